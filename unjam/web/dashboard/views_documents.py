"""The pages about documents: the list, one of them with its story, and the dead letters."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from unjam.core.chunk import StoredChunk, chunk_ids
from unjam.core.dead_letters import AT_ONCE, DeadFilter
from unjam.core.document import ENDED, RUNNING, Document, State
from unjam.core.errors import NotFound, UnjamError, UsageError
from unjam.core.events import Event, EventKind
from unjam.web.dashboard.render import Ctx, View
from unjam.web.dashboard.story import tell
from unjam.web.schemas import document_json

PAGE = 50
CHUNKS = 10
EVENTS = 1000
"""Events of one document that its story is told from."""
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}\Z")
CANCELLABLE = frozenset(State) - ENDED
RETRIABLE = frozenset({State.DEAD, State.CANCELLED, State.WAITING})


def clean(value: str | None, name: str) -> str | None:
    """A query's field, None when it is empty. Raises UsageError."""
    if value and ("\0" in value or len(value) > 500):
        raise UsageError(f"{name} is not one of ours", code="invalid")
    return value or None


async def documents(ctx: Ctx) -> View:
    """Raises UsageError, DependencyDown."""
    given = clean(ctx.query.get("state"), "state")
    state = State(given) if given in set(State) else None
    if given and state is None:
        raise UsageError(f"no state {given!a}", code="invalid")
    user = clean(ctx.query.get("user"), "user")
    cursor = clean(ctx.query.get("cursor"), "cursor")
    page = await ctx.house.ledger.list(state=state, user_id=user, cursor=cursor, limit=PAGE)
    states = ctx.snap.ledger.value.states
    shown = [s for s in State if s is not State.DELETED and (states.get(s) or s is state)]
    data = {
        "rows": rows_of(ctx, page.items),
        "next_cursor": page.next_cursor,
        "cursor": cursor,
        "state": state.value if state else "",
        "user": user or "",
        "chips": [{"state": s.value, "count": states.get(s, 0)} for s in shown],
        "all": sum(n for s, n in states.items() if s is not State.DELETED),
    }
    return View("documents.html", ctx.t("Documents", "문서"), data)


def rows_of(ctx: Ctx, items: Sequence[Document]) -> list[dict[str, Any]]:
    """As the API shows them, with the times as numbers."""
    keeps, forecast = ctx.house.breakers.keeps, ctx.snap.forecast
    return [_row(d, document_json(d, ctx.lang, keeps, forecast)) for d in items]


def _row(document: Document, shown: dict[str, Any]) -> dict[str, Any]:
    return {
        **shown,
        "created": document.created_at,
        "updated": document.updated_at,
        "next_at": document.next_step_at,
        "running": document.state in RUNNING,
    }


# -- one document -----------------------------------------------------------------------------
async def document(ctx: Ctx, document_id: str) -> View:
    """Raises NotFound, DependencyDown."""
    found = await ctx.house.ledger.get(document_id) if _ID.match(document_id) else None
    if found is None:
        raise NotFound(f"no document {document_id!a}")
    events, cut = await _events(ctx, found.id)
    now = time.time()
    (row,) = rows_of(ctx, [found])
    chunks, chunk_error = await _chunks(ctx, found)
    data = {
        "d": row,
        "doc": found,
        "story": tell(found, events, now, ctx.lang),
        "now_s": now,
        "events": list(reversed(events))[:100],
        "cut": cut,
        "evidence": _evidence(events) if found.state is State.DEAD else {},
        "chunks": chunks,
        "chunk_error": chunk_error,
        "first_chunk": _first(ctx),
        "chunk_page": CHUNKS,
        "can": {
            "cancel": found.state in CANCELLABLE,
            "retry": found.state in RETRIABLE,
            "delete": found.state is not State.DELETED,
        },
    }
    return View("document.html", found.filename or found.id, data)


async def _events(ctx: Ctx, document_id: str) -> tuple[list[Event], bool]:
    events: list[Event] = []
    while len(events) < EVENTS:
        after = events[-1].seq if events else 0
        some = await ctx.house.ledger.events(document_id, after=after, limit=200)
        events += some
        if len(some) < 200:
            return events, False
    return events, True


def _evidence(events: Sequence[Event]) -> dict[str, Any]:
    death = next((e for e in reversed(events) if e.kind is EventKind.DEAD), None)
    found: dict[str, Any] = dict(death.data.get("evidence", {})) if death else {}
    return {k: v for k, v in found.items() if v not in (None, "", 0, [], {})}


def _first(ctx: Ctx) -> int:
    given = ctx.query.get("chunk", "0")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 9 else 0


async def _chunks(ctx: Ctx, found: Document) -> tuple[list[StoredChunk], str]:
    first = _first(ctx)
    last = min(first + CHUNKS, found.chunks)
    if not found.visible_generation or found.state is State.DELETED or first >= last:
        return [], ""
    ids = chunk_ids(found.id, found.visible_generation, last, first)
    try:
        for pin in [ctx.house.current_pin(), *await ctx.house.ledger.pins_in_use()]:
            some = await ctx.house.vectors.get(pin.fingerprint.collection, ids)
            if some:
                return list(some), ""
    except UnjamError as error:
        return [], error.detail
    return [], ""


# -- dead letters -----------------------------------------------------------------------------
async def dead_letters(ctx: Ctx) -> View:
    """Raises UsageError, DependencyDown."""
    reason = clean(ctx.query.get("reason"), "reason")
    cursor = clean(ctx.query.get("cursor"), "cursor")
    ledger = ctx.house.ledger
    page = await ledger.dead_page(DeadFilter(reason), cursor=cursor, limit=PAGE)
    groups = await ledger.dead_by_reason()
    data = {
        "groups": list(groups.items()),
        "total": sum(groups.values()),
        "chosen": reason or "",
        "chosen_count": groups.get(reason, 0) if reason else sum(groups.values()),
        "rows": rows_of(ctx, page.items),
        "next_cursor": page.next_cursor,
        "cursor": cursor,
        "at_once": AT_ONCE,
    }
    return View("dead_letters.html", ctx.t("Dead letters", "데드레터"), data)
