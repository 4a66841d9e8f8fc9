"""A house with something of everything, for looking at the dashboard.

``python -m tests.browser.filled DIR PORT DASHBOARD_PORT`` serves it until SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from pathlib import Path

from tests.fixtures.web import WORKER, TestHouse, open_house
from unjam.core.document import CLAIMABLE, State
from unjam.core.incident import Action, Diagnosis, Saying
from unjam.core.outcome import Retry
from unjam.core.ports import Progress, WorkerRef
from unjam.web.server import serve

NAMES = (
    "분기 실적 보고서 2026-3Q.pdf",
    "expense-rules.html",
    "onboarding-deck.pptx",
    "연차·휴가 규정.docx",
    "server-room-safety.pdf",
    "release-notes.md",
    "store-locations.csv",
    "김치 담그기.txt",
    "warranty-terms.docx",
    "회의록-물류센터-이전.hwpx",
    "shipping-rates.xlsx",
    "incident-report.eml",
)
TEXT = (
    "배추는 굵은 소금에 여섯 시간 절인 뒤 세 번 헹구고, 물기를 두 시간 뺍니다. "
    "양념은 하루 먼저 만들어 두면 맛이 고르게 배어듭니다."
)
ENGLISH = (
    "A hotel room in Berlin is reimbursed up to 140 euros a night, breakfast included. "
    "Anything above needs the approval of the head of the department before the journey."
)


WORKER_2 = WorkerRef("web-worker-2", "host", 2, "0.1.0")
WATCHDOG = WorkerRef("watch-1", "host", 4, "0.1.0", kind="watchdog")
_tasks: list[asyncio.Task[None]] = []


async def add(house: TestHouse, name: str, text: str, user: str = "") -> str:
    staged = await house.intake.open(name)
    await staged.writer.write(text.encode())
    (receipt,) = await house.intake.accept([staged], user_id=user)
    return receipt.document_id


async def fill(house: TestHouse, *, trouble: bool = False) -> dict[str, str]:
    """Documents in every state; *trouble*: an open incident, too. Name → id of some."""
    ledger = house.ledger
    ids: dict[str, str] = {}
    for n, name in enumerate(NAMES):
        ids[name] = await add(house, name, f"{n} {TEXT if n % 2 == 0 else ENGLISH}", f"user{n % 3}")
        texts = [f"{TEXT} ({n}.{m})" if n % 2 == 0 else f"{ENGLISH} ({n}.{m})" for m in range(4)]
        await house.finish(ids[name], texts)
    for n in range(9):
        await house.park(await add(house, f"scan-{n:02d}.pdf", f"scan {n}", "kim"), "needs_ocr")
    for n in range(3):
        await house.park(await add(house, f"계약서 {n + 1}.pdf", f"locked {n}", "lee"), "encrypted")
    ids["waiting"] = await add(house, "annual-report.pdf", "waits", "ann")
    claim = await house.claim(ids["waiting"])
    detail = "TimeoutError: the parser gave no answer in 60 s"
    await ledger.settle(claim, Retry("processing_error", detail, 45.0))
    ids["running"] = await add(house, "사용 설명서 (전체).pdf", "runs", "ann")
    claim = await house.claim(ids["running"])
    for state, done, total in (
        (State.CHUNKING, 0, 0),
        (State.EMBEDDING, 0, 420),
        (State.STORING, 128, 420),
    ):
        await ledger.report(Progress(ids["running"], claim.token, state, done, total))
    for n in range(14):
        ids[f"queued{n}"] = await add(house, f"invoice-{n + 1:03d}.pdf", f"queued {n}", "park")
    for ref in (WORKER, WORKER_2, WATCHDOG):
        ledger.renew(ref, {}, [])
    await tidy(house)
    await past_incident(house)
    if trouble:
        await open_incident(house)
    return ids


async def tidy(house: TestHouse) -> None:
    """Take the jobs of documents that are no longer in line out of the lane, as a worker does."""
    accepted = (await house.ledger.equation()).accepted
    deadline = time.monotonic() + 20
    lengths = house.queue.lengths
    while (await lengths()).get("rag_processing", 0) < accepted and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    tickets = await house.queue.take(["rag_processing"], accepted, "tidy")
    documents = await house.ledger.get_many([t.document_id for t in tickets])
    in_line = {d.id for d in documents if d.state in CLAIMABLE}
    await house.queue.put_back([t for t in tickets if t.document_id in in_line], "tidy")
    await house.queue.finished([t for t in tickets if t.document_id not in in_line], "tidy")


async def past_incident(house: TestHouse) -> int:
    now = time.time()
    said = Saying("Redis refused 3 pings in 2 s", "2초 동안 Redis 확인 3회 실패")
    diagnosis = Diagnosis("redis_down", evidence=(said,), effects=("workers_hung",), since=now - 42)
    opened = await house.ledger.open_incident(diagnosis, "critical", queue_length=118)
    told = Saying("Claims paused; asked again every 2 s", "문서 할당을 멈추고 2초마다 다시 확인")
    await house.ledger.note_action(opened.id, Action(now - 38, "wait", "done", told))
    await house.ledger.close_incident(opened.id)
    return opened.id


async def open_incident(house: TestHouse) -> int:
    said = Saying("Chroma gave no answer for 6 s", "Chroma가 6초 동안 응답하지 않음")
    more = Saying("14 documents wait for it", "문서 14건이 기다리는 중")
    diagnosis = Diagnosis("chroma_down", evidence=(said, more), since=time.time() - 95)
    opened = await house.ledger.open_incident(diagnosis, "critical", queue_length=14)
    told = Saying(
        "Claims are paused; Chroma is asked again every 2 s",
        "문서 할당을 멈추고 2초마다 Chroma를 다시 확인하고 있습니다",
    )
    await house.ledger.note_action(opened.id, Action(time.time() - 90, "wait", "done", told))
    return opened.id


async def _factory(folder: Path, trouble: bool) -> TestHouse:
    new = not (folder / "ledger.db").exists()
    house = await open_house(folder, durable=False)
    if new:
        await fill(house, trouble=trouble)
    _tasks.append(asyncio.create_task(_beat(house)))
    return house


async def _beat(house: TestHouse) -> None:
    while True:
        for ref in (WORKER, WORKER_2, WATCHDOG):
            await asyncio.to_thread(house.ledger.renew, ref, {}, [])
        await asyncio.sleep(2)


async def _main(folder: Path, port: int, dashboard_port: int, trouble: bool) -> int:
    factory = partial(_factory, folder, trouble)
    return await serve(
        factory, "127.0.0.1", port, dashboard_port, on_ready=lambda: print("ready", flush=True)
    )


if __name__ == "__main__":
    where, first, second = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    sys.exit(asyncio.run(_main(where, first, second, "trouble" in sys.argv)))
