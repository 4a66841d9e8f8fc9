"""Slack and webhooks hear of an incident once per change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from unjam.core.incident import Action, Diagnosis, Sample, Saying
from unjam.observe.courier import Courier
from unjam.observe.incidents import EXECUTED, IncidentTape, incident_messages
from unjam.observe.notify import Message, Slack, Undelivered
from unjam.stores.ledger import SqlLedger
from unjam.testing.wait import until

DOWN = Diagnosis("chroma_down", "", (Saying("no <answer>", "응답 <없음>"),))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    opened = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}", durable=False)
    yield opened
    await opened.close()


class Inbox:
    def __init__(self, refuse: int = 0) -> None:
        self.messages: list[Message] = []
        self.refuse = refuse

    async def deliver(self, message: Message) -> None:
        if self.refuse:
            self.refuse -= 1
            raise Undelivered("away")
        self.messages.append(message)

    async def close(self) -> None: ...


async def a_whole_incident(ledger: SqlLedger) -> int:
    made = await ledger.open_incident(DOWN, "critical")
    await ledger.open_incident(DOWN, "critical")  # seen again: no change
    await ledger.note_sample(made.id, Sample(1, 0, 0))
    asked = Action(0.0, "restart_chroma", "asked", Saying("r", "r"))
    await ledger.begin_action(made.id, asked, per_hour=9, rest_s=0)
    done = Action(0.0, "restart_chroma", "done", Saying("Restart: chroma", "재시작: chroma"))
    await ledger.note_action(made.id, done)
    await ledger.hand_over(made.id)
    await ledger.close_incident(made.id)
    return made.id


async def told(ledger: SqlLedger, inbox: Inbox, lang: str, count: int) -> list[Message]:
    tape = IncidentTape(ledger, ledger)
    translate = incident_messages(ledger, ledger.id, lang)
    courier = Courier("slack", tape, inbox, translate, first_pause_s=0.01)

    async def knock() -> int:
        await courier()
        return len(inbox.messages)

    try:
        await until("told", knock, lambda n: n >= count, deadline_s=20)
        await asyncio.sleep(0.05)
        await courier()
        return inbox.messages
    finally:
        await courier.close()


@pytest.mark.parametrize("lang", ["en", "ko"])
async def test_once_per_change(ledger: SqlLedger, lang: str) -> None:
    await ledger.set_bookmark("slack", 0)
    number = await a_whole_incident(ledger)
    messages = await told(ledger, Inbox(), lang, 4)
    kinds = [m.kind for m in messages]
    assert sorted(kinds) == sorted(
        ["incident.opened", "incident.action", "incident.handed_over", "incident.closed"]
    )
    assert len({m.id for m in messages}) == 4
    by_kind = {m.kind: m for m in messages}
    assert EXECUTED in by_kind["incident.action"].text
    assert all(EXECUTED not in m.text for k, m in by_kind.items() if k != "incident.action")
    assert all(f"unjam postmortem {number}" in m.text for m in messages)
    opened = by_kind["incident.opened"]
    assert ("응답 &lt;없음&gt;" if lang == "ko" else "no &lt;answer&gt;") in opened.text
    assert opened.data["cause"] == "chroma_down" and opened.data["severity"] == "critical"
    assert by_kind["incident.action"].data["outcome"] == "done"


async def test_a_receiver_that_is_away_hears_it_later_and_once(ledger: SqlLedger) -> None:
    await ledger.set_bookmark("slack", 0)
    await a_whole_incident(ledger)
    messages = await told(ledger, Inbox(refuse=3), "en", 4)
    assert len(messages) == len({m.id for m in messages}) == 4


async def test_slack_gets_the_text(ledger: SqlLedger) -> None:
    bodies: list[dict[str, str]] = []

    def app(environ, start):  # type: ignore[no-untyped-def]
        size = int(environ["CONTENT_LENGTH"])
        bodies.append(json.loads(environ["wsgi.input"].read(size)))
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        await ledger.set_bookmark("slack", 0)
        await a_whole_incident(ledger)
        tape = IncidentTape(ledger, ledger)
        sink = Slack(f"http://127.0.0.1:{server.server_port}/hook")
        courier = Courier("slack", tape, sink, incident_messages(ledger, ledger.id))

        async def knock() -> int:
            await courier()
            return len(bodies)

        await until("four posts", knock, lambda n: n >= 4, deadline_s=20)
        await courier.close()
    finally:
        server.shutdown()
        server.server_close()
    assert sum(EXECUTED in body["text"] for body in bodies) == 1
