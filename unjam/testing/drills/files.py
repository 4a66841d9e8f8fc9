"""Drills on files: one whose parsing eats all memory, one that is huge and loses its worker."""

from __future__ import annotations

import asyncio
import signal
import time

from unjam.core.document import Document, State
from unjam.pipeline.fault import FAULT
from unjam.pipeline.intake import Intake
from unjam.queue.lanes import PROCESSING
from unjam.settings import MIB
from unjam.testing.drills.scene import SETTLE_S, Scene
from unjam.testing.wait import until

NOTICED_S = 20.0

SMALL_CAP = {"RAG_WORKER_MEMORY_MB": "256", "UNJAM_TESTING": "1"}

HUGE_MB = 12
HUGE = {"RAG_MAX_CHUNK_SIZE": "1024", "RAG_CHUNK_OVERLAP": "0"}
"""Chunks of a usual size: it is the document that is huge, not the number of its vectors."""

BATCH = 32
SLOTS = 3


async def oom(scene: Scene) -> None:
    """A document whose parsing takes all the memory it can get, among healthy ones."""
    scene.fault(
        "a file whose parsing takes all memory it can get, among 24 healthy ones",
        "파싱 중 메모리를 끝없이 쓰는 파일 하나와 정상 문서 24개",
    )
    poison = await _misbehaving(scene, "memory")
    await scene.upload(24)
    scene.parked[poison] = "parser_memory"
    await scene.noticed(NOTICED_S, "parser_memory", "event dead", "event waiting", "incident")
    await scene.recovered(SETTLE_S)
    await scene.unhurt()
    letter = await scene.stack.services.ledger.dead_letter(poison)
    evidence = dict(letter.evidence)
    scene.promise(
        "it is parked with evidence: its limit and what it used",
        "한도와 사용량이 증거로 남은 채 보관된다",
        "memory_cap_bytes" in evidence and "rss_bytes" in str(evidence),
        str(evidence),
    )
    restarts = scene.stack.supervisor.restarts()
    scene.promise(
        "no worker died of it",
        "이 때문에 죽은 워커가 없다",
        not any(n for name, n in restarts.items() if name.startswith("worker")),
        str(restarts),
    )


async def _misbehaving(scene: Scene, order: str) -> str:
    """Accept a file that the parsing child meets with *order* (see ``pipeline.fault``).

    Our readers are too frugal for a real file of a fair size to get there; the child really takes
    memory until the kernel refuses.
    """
    services = scene.stack.services
    intake = Intake(
        services.ledger,
        services.blobs,
        services.queue,
        sniff=lambda head, name: FAULT,
        lane_for=lambda size, kind: PROCESSING,
        current_pin=services.current_pin,
        max_upload_bytes=MIB,
    )
    try:
        staged = await intake.open("hungry.bin")
        await intake.write(staged, order.encode())
        return (await intake.accept([staged]))[0].document_id
    finally:
        await intake.close()


async def huge_file(scene: Scene) -> None:
    """A huge document and small ones; the worker that has the huge one is killed half-way."""
    huge = await _upload_huge(scene)
    small = await scene.upload(24)

    async def half_way() -> Document | None:
        document = (await scene.documents([huge]))[huge]
        return document if document.progress_done >= 1000 else None

    document = await until("the huge one is half-way", half_way, deadline_s=90.0)
    assert document is not None
    done = [d for d in (await scene.documents(small)).values() if d.state is State.SEARCHABLE]
    scene.promise(
        "small documents do not wait for the huge one",
        "작은 문서가 거대한 문서를 기다리지 않는다",
        len(done) == len(small) and document.state is not State.SEARCHABLE,
        f"{len(done)} of {len(small)} searchable beside it",
    )
    pids = scene.stack.supervisor.pids()
    (holder,) = [n for n in scene.stack.names("worker") if f".{pids[n]}." in document.worker]
    scene.fault(
        f"kill -9 of {holder}, {document.progress_done} chunks of the huge one stored",
        f"{holder}을 kill -9, 거대한 문서의 청크 {document.progress_done}개가 저장된 때",
    )
    scene.stack.hit(holder, signal.SIGKILL)
    await scene.noticed(5.0, "supervisor: worker", "event worker_died", "incident")
    await scene.recovered(SETTLE_S + HUGE_MB * 4)
    await scene.unhurt()
    twice = scene.stack.endpoint.stats()["repeated"]
    scene.promise(
        "it went on where it was: under one batch per slot was embedded twice",
        "멈춘 곳에서 이어 갔다: 두 번 임베딩한 텍스트가 슬롯당 한 묶음 미만이다",
        twice < SLOTS * BATCH,
        f"{twice} texts",
    )


async def _upload_huge(scene: Scene) -> str:
    """HUGE_MB MiB of text, no line like another."""

    def write() -> str:
        lines: list[str] = []
        size = 0
        while size < HUGE_MB * MIB:
            lines.append(f"Line {len(lines)} of the huge report: pump {len(lines) * 7919 % 99991}.")
            size += len(lines[-1]) + 1
        return "\n".join(lines)

    text = await asyncio.to_thread(write)
    began = time.monotonic()
    files = [("file", ("huge.txt", text.encode()))]
    answer = await scene.http.post("/api/rag/documents", files=files)
    assert answer.status_code == 202, answer.text
    huge: str = answer.json()["id"]
    scene.expected[huge] = text
    scene.say(
        f"{HUGE_MB} MiB taken in {time.monotonic() - began:.1f} s",
        f"{HUGE_MB} MiB를 {time.monotonic() - began:.1f}초에 받음",
    )
    return huge
