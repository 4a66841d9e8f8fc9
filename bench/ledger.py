"""The ledger at size: every listing and count that API or watchdog needs, and transitions a second.

    python -m bench.ledger [--documents 1000000] [--url sqlite:////path/ledger.db]

Fills a ledger by bulk insert (9 of 10 documents searchable, the rest over all other states),
then times each question: the median of several calls, beside the same on a small ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from unjam.core.document import Fingerprint, Pin, State, Submission, Ticket
from unjam.core.outcome import Done
from unjam.core.ports import WorkerRef
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.dialect import dialect_of

PIN = Pin(Fingerprint("local", "bench"), 256, 32, "local")
WORKER = WorkerRef("bench", "host", 1, "0")
REST = [s for s in State if s is not State.SEARCHABLE]
BLOCK = 5_000


def row(n: int) -> dict[str, Any]:
    state = State.SEARCHABLE if n % 10 else REST[n // 10 % len(REST)]
    if state.value in ("parsing", "chunking", "embedding", "storing") and n > 2_000:
        state = State.QUEUED  # at most a few dozen are ever in flight
    running = state.value in ("parsing", "chunking", "embedding", "storing")
    seen = state is State.SEARCHABLE
    return {
        "id": f"0190{n:032x}",
        "user_id": f"user-{n % 50}",
        "shown": int(state is not State.DELETED),
        "filename": f"file-{n}.pdf",
        "media_type": "application/pdf",
        "size_bytes": 100_000,
        "content_hash": f"{n:064x}",
        "pin_id": PIN.id,
        "home_lane": "rag_processing",
        "lane": "rag_processing",
        "created_at": 1.7e9 + n,
        "updated_at": 1.7e9 + n,
        "state": state.value,
        "generation": 1,
        "enqueue_seq": 1,
        "token": int(seen or running),
        "visible_generation": int(seen),
        "visible_pin": PIN.id if seen else "",
        "visible_hash": f"{n:064x}" if seen else "",
        "chunks": 35 if seen else 0,
        "started_generation": int(seen or running),
        "worker": "gone" if running else "",
        "lease_until": 0.0 if running else None,
        "next_step_at": 4e9 if state is State.WAITING else None,
        "slo_since": None if seen else time.time(),
    }


def fill(url: str, documents: int) -> None:
    engine = dialect_of(url, durable=False).writer()
    with engine.begin() as conn:
        conn.execute(
            sa.insert(schema.pins),
            {"id": PIN.id, "fingerprint_id": PIN.fingerprint.id, "json": PIN.to_json()},
        )
    for start in range(0, documents, BLOCK):
        rows = [row(n) for n in range(start, min(documents, start + BLOCK))]
        with engine.begin() as conn:
            conn.execute(sa.insert(schema.documents), rows)
            conn.execute(
                sa.insert(schema.acceptances), [{"document_id": r["id"], "at": 0} for r in rows]
            )
            conn.execute(
                sa.insert(schema.events),
                [
                    {"document_id": r["id"], "generation": 1, "at": 0, "kind": "accepted"}
                    for r in rows
                ],
            )
    engine.dispose()


async def timed(call: Callable[[], Awaitable[Any]], times: int = 7) -> float:
    """Median milliseconds."""
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1e3)
    return sorted(took)[times // 2]


async def questions(ledger: SqlLedger, documents: int) -> dict[str, float]:
    deep = f"0190{documents // 20:032x}"
    middle = f"0190{documents // 2:032x}"
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "equation": ledger.equation,
        "state_counts": ledger.state_counts,
        "counters": ledger.counters,
        "get": lambda: ledger.get(middle),
        "find_live": lambda: ledger.find_live("user-1", [f"{1:064x}"]),
        "list": lambda: ledger.list(),
        "list, deep cursor": lambda: ledger.list(cursor=deep),
        "list state=dead": lambda: ledger.list(state=State.DEAD),
        "list state=searchable, deep": lambda: ledger.list(state=State.SEARCHABLE, cursor=deep),
        "list user, deep": lambda: ledger.list(user_id="user-7", cursor=deep),
        "list user+state": lambda: ledger.list(user_id="user-0", state=State.DELETED),
        "events after": lambda: ledger.events(None, after=documents - 50),
        "visible of 200": lambda: ledger.visible([f"0190{n:032x}" for n in range(0, 2000, 10)]),
        "pins_in_use": ledger.pins_in_use,
        "pushable 50": lambda: ledger.pushable(50),
        "queued_slice 500, deep": lambda: ledger.queued_slice(middle, 500),
        "due_cleanups": ledger.due_cleanups,
        "unreferenced_blobs": lambda: ledger.unreferenced_blobs(3600),
        "wake (nothing due)": ledger.wake,
        "count_late (none)": ledger.count_late,
        "repin (nothing to do)": lambda: ledger.repin(PIN, 50),
    }
    await ledger.expire()
    calls["expire (none)"] = ledger.expire
    return {name: await timed(call) for name, call in calls.items()}


async def transitions(ledger: SqlLedger, documents: int, group: int, rounds: int) -> float:
    """Documents a second through accept, push, claim and settle; *group* at a time."""
    spent: dict[str, float] = dict.fromkeys(("accept", "push", "claim", "settle"), 0.0)
    for k in range(rounds):
        base = documents + 1 + k * group + group * 10_000_000
        uploads = [
            Submission(
                f"0191{base + n:032x}",
                "bench",
                "f.txt",
                "text/plain",
                1,
                f"{base + n:064x}",
                PIN,
                "rag_processing",
            )
            for n in range(group)
        ]
        marks = [time.perf_counter()]
        await ledger.accept(uploads)
        marks.append(time.perf_counter())
        tickets = [Ticket(u.document_id, 1, u.lane, 1) for u in uploads]
        await ledger.mark_pushed(tickets)
        marks.append(time.perf_counter())
        answers = await ledger.claim(tickets, WORKER, 1_000_000)
        marks.append(time.perf_counter())
        await asyncio.gather(*(ledger.settle(a.claim, Done(3)) for a in answers if a.claim))
        marks.append(time.perf_counter())
        for name, began, ended in zip(spent, marks, marks[1:], strict=False):
            spent[name] += ended - began
    total = group * rounds
    parts = "  ".join(f"{name} {total / s:,.0f}/s" for name, s in spent.items())
    both = total / (spent["claim"] + spent["settle"])
    print(f"  groups of {group:>3}: {parts}  claim+settle {both:,.0f} documents/s")
    return both


async def measure(url: str, documents: int) -> dict[str, float]:
    ledger = await SqlLedger.open(url)
    began = time.perf_counter()
    await asyncio.to_thread(fill, url, documents)
    print(f"{documents:,} documents filled in {time.perf_counter() - began:.0f} s")
    try:
        found = await questions(ledger, documents)
        for group, rounds in ((1, 200), (50, 40)):
            await transitions(ledger, documents, group, rounds)
        equation = await ledger.equation()
        assert equation.missing == 0, equation
    finally:
        await ledger.close()
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--documents", type=int, default=1_000_000)
    options.add_argument("--url", help="an empty database; default: SQLite in a temporary folder")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="unjam-bench-") as folder:
        small = asyncio.run(measure(f"sqlite:///{Path(folder) / 'small.db'}", 2_000))
        url = given.url or f"sqlite:///{Path(folder) / 'large.db'}"
        large = asyncio.run(measure(url, given.documents))
    print(f"\n{'question':<30}{'2,000':>12}{given.documents:>14,}   (median ms)")
    for name, took in large.items():
        print(f"{name:<30}{small[name]:>12.2f}{took:>14.2f}")


if __name__ == "__main__":
    main()
