"""Where messages go: signed webhooks and Slack. ``observe.courier`` carries them there."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from unjam.core.errors import SetupError, UnjamError

ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell. *id* is the same at every try, so that receivers can drop repeats."""

    id: str
    kind: str  # e.g. document.searchable
    at: float  # Unix seconds
    data: Mapping[str, Any]
    text: str = ""  # for people


class Sink(Protocol):
    """Where messages go. ``deliver`` returns when it arrived."""

    async def deliver(self, message: Message) -> None:
        """Raises Undelivered."""
        ...

    async def close(self) -> None: ...


class Undelivered(UnjamError):
    """It did not arrive. *refused*: the receiver answered, and does not want this message."""

    code = "undelivered"

    def __init__(self, detail: str, *, refused: bool = False, after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.refused = refused
        self.after_s = after_s  # the receiver asked for this long a pause


# -- signed webhooks ------------------------------------------------------------------------
def webhook_secret(given: str, file: Path) -> bytes:
    """The key that signs: *given* (``whsec_`` and base64), or the one in *file*, made on first use.

    Raises:
        SetupError: it is no such secret.
    """
    text = given or _stored_secret(file)
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < 24:  # Standard Webhooks: 24 to 64 bytes
        raise SetupError(
            "RAG_WEBHOOK_SECRET must be whsec_ and at least 24 bytes in base64",
            hint="Make one: echo whsec_$(openssl rand -base64 32)",
        )
    return key


def _stored_secret(file: Path) -> str:
    with suppress(FileNotFoundError):
        return file.read_text().strip()
    made = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    aside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(made + "\n")
    with suppress(FileExistsError):  # of two processes that start together the first wins
        os.link(aside, file)
    aside.unlink()
    return file.read_text().strip()


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """``v1,<base64>`` of HMAC-SHA256 over ``id.timestamp.body``.

    Source: Standard Webhooks specification 1.0, "Signature scheme".
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Webhook:
    """POSTs messages as JSON with the headers of Standard Webhooks."""

    def __init__(self, url: str, key: bytes) -> None:
        import httpx

        try:
            fit = httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
        except httpx.InvalidURL:
            fit = False
        if not fit:
            raise SetupError(
                "RAG_WEBHOOK_URL is no http or https address",
                hint="Set it to the receiver's address, e.g. https://example.com/hooks/unjam.",
            )
        self._url = url
        self._key = key
        self._where = urlsplit(url).hostname or "?"  # paths of such addresses are secrets
        self._http = httpx.AsyncClient(timeout=ANSWER_TIMEOUT_S, follow_redirects=False)

    async def deliver(self, message: Message) -> None:
        import httpx

        body = json.dumps(
            {"type": message.kind, "timestamp": _rfc3339(message.at), "data": dict(message.data)},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode("utf-8", "replace")
        now = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "unjam-webhook",
            "webhook-id": message.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._key, message.id, now, body),
        }
        try:
            answer = await self._http.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise Undelivered(f"{self._where}: {type(error).__name__}") from None
        if not answer.is_success:
            status = answer.status_code
            refused = 400 <= status < 500 and status not in (401, 403, 404, 408, 410, 425, 429)
            header = answer.headers.get("retry-after", "")
            after_s = min(float(header), 3600.0) if header.isdigit() else 0.0
            raise Undelivered(f"{self._where} answered {status}", refused=refused, after_s=after_s)

    async def close(self) -> None:
        await self._http.aclose()


class Slack:
    """Posts a message's text to a Slack incoming webhook."""

    def __init__(self, url: str) -> None:
        from slack_sdk.webhook import WebhookClient

        self._client = WebhookClient(url, timeout=int(ANSWER_TIMEOUT_S))

    async def deliver(self, message: Message) -> None:
        await self.say(message.text)

    async def say(self, text: str) -> None:
        """*text*, as Slack's mrkdwn. Raises Undelivered."""
        try:
            answer = await asyncio.to_thread(self._client.send, text=text)
        except Exception as error:  # urllib, ssl and http.client each have their own
            raise Undelivered(f"Slack: {type(error).__name__}") from None
        if answer.status_code != 200:
            refused = answer.status_code == 400
            header = str(answer.headers.get("Retry-After", ""))
            after_s = float(header) if header.isdigit() else 0.0
            raise Undelivered(
                f"Slack answered {answer.status_code}", refused=refused, after_s=after_s
            )

    async def close(self) -> None:
        return None


def _rfc3339(at: float) -> str:
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
