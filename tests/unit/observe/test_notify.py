"""Webhooks and Slack against a real HTTP server: signed, and repeated until they arrive."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.fixtures.ledger import accepted, claimed, searchable
from unjam.core.errors import SetupError
from unjam.core.outcome import Dead
from unjam.observe import courier as couriers
from unjam.observe.courier import Courier, document_messages
from unjam.observe.notify import Message, Slack, Undelivered, Webhook, webhook_secret
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger

KEY = b"k" * 32


@dataclass
class Receiver:
    """Answers with *statuses* in turn, then 200. Keeps what it was sent."""

    port: int = 0
    got: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    refuses: bytes = b"\0"
    hold: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/secret"

    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    seen = Receiver()
    seen.hold.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.hold.wait(20)
            seen.got.append((dict(self.headers.items()), body))
            status = seen.statuses.pop(0) if seen.statuses else 200
            if seen.refuses in body:
                status = 422
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield seen
    seen.hold.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
async def book() -> AsyncIterator[SqlLedger]:
    ledger = await memory_ledger()
    yield ledger
    await ledger.close()


@pytest.fixture
async def courier(book: SqlLedger, receiver: Receiver) -> AsyncIterator[Courier]:
    made = Courier(
        "webhook", book, Webhook(receiver.url, KEY), document_messages(book), first_pause_s=0.01
    )
    await rounds(made)  # the bookmark is set: from now on
    yield made
    await made.close()


async def rounds(courier: Courier) -> None:
    """One call as the leader makes it, and its round to the end."""
    courier._not_before = 0.0
    await courier()
    if courier._task is not None:
        await courier._task


async def parked(ledger: SqlLedger, n: int) -> None:
    claim = await claimed(ledger, await accepted(ledger, n))
    await ledger.settle(claim, Dead("encrypted", "page 1"))


async def test_documents_that_end_are_told_signed(
    book: SqlLedger, courier: Courier, receiver: Receiver
) -> None:
    await searchable(book, 1)
    await parked(book, 2)
    await accepted(book, 3)
    await rounds(courier)
    kinds = {str(b["type"]): b["data"] for b in receiver.bodies()}
    assert kinds["document.searchable"] == {
        "document_id": "d00000001",
        "generation": 1,
        "filename": "file-1.txt",
        "user_id": "ann",
        "chunks": 3,
    }
    dead = kinds["document.dead"]
    assert isinstance(dead, dict) and dead["reason"] == "encrypted" and dead["hint"]
    assert len(receiver.got) == 2
    for headers, body in receiver.got:
        lower = {k.lower(): v for k, v in headers.items()}
        signed = f"{lower['webhook-id']}.{lower['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert lower["webhook-signature"] == f"v1,{expected}"
        assert abs(int(lower["webhook-timestamp"]) - time.time()) < 30
        assert lower["content-type"] == "application/json"
    await rounds(courier)
    assert len(receiver.got) == 2  # once is enough


async def test_history_is_not_told(book: SqlLedger, receiver: Receiver) -> None:
    await searchable(book, 1)
    made = Courier("webhook", book, Webhook(receiver.url, KEY), document_messages(book))
    await rounds(made)
    await rounds(made)
    assert receiver.got == []
    await made.close()


async def test_a_receiver_that_fails_gets_it_again_under_the_same_id(
    book: SqlLedger, courier: Courier, receiver: Receiver
) -> None:
    receiver.statuses = [500, 503, 429]
    await searchable(book, 1)
    for _ in range(4):
        await rounds(courier)
    ids = {k.lower(): v for headers, _ in receiver.got for k, v in headers.items()}
    assert len(receiver.got) == 4
    assert ids["webhook-id"].startswith("evt_")
    assert len({dict(h)["webhook-id"] for h, _ in receiver.got}) == 1


async def test_the_next_leader_goes_on_where_the_last_one_stopped(
    book: SqlLedger, courier: Courier, receiver: Receiver
) -> None:
    await searchable(book, 1)
    await rounds(courier)
    receiver.statuses = [500] * 100
    await searchable(book, 2)
    await rounds(courier)
    receiver.statuses = []
    later = Courier("webhook", book, Webhook(receiver.url, KEY), document_messages(book))
    await rounds(later)
    told = [b["data"]["document_id"] for b in receiver.bodies()]  # type: ignore[index]
    assert told == ["d00000001", "d00000002", "d00000002"]
    await later.close()


async def test_a_receiver_that_hangs_holds_nobody_up(
    book: SqlLedger, courier: Courier, receiver: Receiver
) -> None:
    receiver.hold.clear()
    await searchable(book, 1)
    courier._not_before = 0.0
    began = time.perf_counter()
    for _ in range(5):
        await courier()
    assert time.perf_counter() - began < 0.5
    receiver.hold.set()
    assert courier._task is not None
    await courier._task
    assert len(receiver.got) == 1  # and one round at a time


async def test_after_an_outage_everything_comes(
    book: SqlLedger, courier: Courier, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 3
    for n in range(1, 31):
        await searchable(book, n)
    for _ in range(30):
        await rounds(courier)
    arrived = {b["data"]["document_id"] for b in receiver.bodies()}  # type: ignore[index]
    assert len(arrived) == 30
    assert await book.bookmark("webhook") == await book.last_event()


async def test_a_message_that_is_refused_for_good_is_given_up_and_stops_no_other(
    book: SqlLedger, courier: Courier, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.refuses = b"file-2.txt"
    for n in (1, 2, 3):
        await searchable(book, n)
    await rounds(courier)
    assert {b["data"]["filename"] for b in receiver.bodies()} == {  # type: ignore[index]
        "file-1.txt",
        "file-2.txt",
        "file-3.txt",
    }
    for _ in range(couriers.REFUSALS):
        await rounds(courier)
    assert len(receiver.got) == 2 + couriers.REFUSALS
    assert await book.bookmark("webhook") == await book.last_event()
    assert "is not told" in caplog.text
    assert "secret" not in caplog.text  # the path of the address is one


async def test_pages_of_events_without_news_are_passed(
    book: SqlLedger, courier: Courier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "PAGE", 3)
    for n in range(1, 8):
        await accepted(book, n)
    await searchable(book, 8)
    await rounds(courier)
    assert len(receiver.got) == 1


async def test_nobody_there_is_tried_again_later(book: SqlLedger) -> None:
    made = Courier("webhook", book, Webhook("http://127.0.0.1:9/x", KEY), document_messages(book))
    await rounds(made)
    await searchable(book, 1)
    await rounds(made)
    assert made._not_before > time.monotonic()
    assert await book.bookmark("webhook") != await book.last_event()
    await made.close()


async def test_slack_says_a_text_and_says_when_it_could_not(receiver: Receiver) -> None:
    slack = Slack(receiver.url)
    await slack.deliver(Message("m1", "incident", 0.0, {}, "RAG queue auto-recovery executed"))
    assert receiver.bodies() == [{"text": "RAG queue auto-recovery executed"}]
    receiver.statuses = [503]
    with pytest.raises(Undelivered, match="503") as trouble:
        await slack.say("again")
    assert not trouble.value.refused
    receiver.statuses = [400]
    with pytest.raises(Undelivered) as trouble:
        await slack.say("again")
    assert trouble.value.refused
    with pytest.raises(Undelivered):
        await Slack("http://127.0.0.1:9/x").say("nobody")


async def test_secrets_are_made_once_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "webhook-secret"
    keys = await asyncio.gather(*(asyncio.to_thread(webhook_secret, "", file) for _ in range(4)))
    assert len(set(keys)) == 1 and len(keys[0]) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("whsec_")
    given = "whsec_" + base64.b64encode(KEY).decode()
    assert webhook_secret(given, file) == KEY
    for bad in ("whsec_short", "whsec_%%%", "whsec_" + base64.b64encode(b"k" * 8).decode()):
        with pytest.raises(SetupError, match="RAG_WEBHOOK_SECRET"):
            webhook_secret(bad, file)
    for url in ("ftp://example.com", "example.com/hook", "http://"):
        with pytest.raises(SetupError, match="RAG_WEBHOOK_URL"):
            Webhook(url, KEY)


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks libraries' own tests."""
    from unjam.observe.notify import signature

    secret = webhook_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Path("/nonexistent"))
    body = b'{"test": 2432232314}'
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
