"""Multi-part uploads that were begun and never ended: they are invisible, and cost money.

The client in use can neither list nor end them, so these two requests are signed here (AWS
Signature Version 4, "Authenticating Requests: Using the Authorization Header"). They need keys in
the environment; with a machine's own role they are left to the bucket's life-cycle rule.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import httpx

from unjam.stores.s3_place import ANSWER_S, CONNECT_S, S3Place

_EMPTY = hashlib.sha256(b"").hexdigest()
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Leftover:
    """A multi-part upload that is under way or forgotten. *begun_at* by the store's clock."""

    key: str
    upload_id: str
    begun_at: float


class Leftovers:
    """Raises httpx.HTTPError, OSError and ElementTree.ParseError throughout."""

    def __init__(self, place: S3Place, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        self._place = place
        self._key = env.get("AWS_ACCESS_KEY_ID", "")
        self._secret = env.get("AWS_SECRET_ACCESS_KEY", "")
        self._token = env.get("AWS_SESSION_TOKEN", "")
        self._trusted: ssl.SSLContext | bool | None = None

    @property
    def can(self) -> bool:
        """Whether there are keys to sign with."""
        return bool(self._key and self._secret)

    async def find(self) -> list[Leftover]:
        """The first thousand below our prefix."""
        query = {"uploads": "", "max-uploads": str(_PAGE)}
        if self._place.prefix:
            query["prefix"] = f"{self._place.prefix}/"
        answer = await self._request("GET", "", query)
        found: list[Leftover] = []
        for upload in ElementTree.fromstring(answer.content).iterfind("{*}Upload"):
            begun = upload.findtext("{*}Initiated", "")
            key, upload_id = upload.findtext("{*}Key", ""), upload.findtext("{*}UploadId", "")
            found.append(Leftover(key, upload_id, datetime.fromisoformat(begun).timestamp()))
        return found

    async def begin(self, key: str) -> None:
        """Begin one and leave it, as a process does that is killed meanwhile."""
        await self._request("POST", key, {"uploads": ""})

    async def end(self, one: Leftover) -> None:
        """Idempotent."""
        await self._request("DELETE", one.key, {"uploadId": one.upload_id}, absent=True)

    async def _request(
        self, method: str, key: str, query: Mapping[str, str], *, absent: bool = False
    ) -> httpx.Response:
        place = self._place
        base = urlsplit(place.endpoint or f"https://s3.{place.region}.amazonaws.com")
        folder = "" if place.virtual_hosted else f"/{place.bucket}"
        path = quote(f"{base.path.rstrip('/')}{folder}/{key}".rstrip("/") or "/", safe="/-_.~")
        asked = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in sorted(query.items())
        )
        headers = self._signed(method, base.netloc, path, asked)
        if self._trusted is None:
            self._trusted = base.scheme == "https" and _authorities(place.ca_file)
        limit = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        async with httpx.AsyncClient(
            timeout=limit, verify=self._trusted, trust_env=False
        ) as client:
            url = f"{base.scheme}://{base.netloc}{path}?{asked}"
            answer = await client.request(method, url, headers=headers)
        if not (absent and answer.status_code == 404):
            answer.raise_for_status()
        return answer

    def _signed(self, method: str, host: str, path: str, query: str) -> dict[str, str]:
        now = datetime.now(UTC)
        stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
        if self._token:
            headers["x-amz-security-token"] = self._token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{_EMPTY}"
        scope = f"{day}/{self._place.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        secret = f"AWS4{self._secret}".encode()
        for part in (day, self._place.region, "s3", "aws4_request"):
            secret = hmac.digest(secret, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        signature = hmac.digest(secret, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers


def _authorities(ca_file: str) -> ssl.SSLContext:
    """The system's certificates and *ca_file*. Raises OSError."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
