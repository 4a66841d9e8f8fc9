"""Drills on workers: killed with documents in hand, frozen beyond their lease."""

from __future__ import annotations

import asyncio
import signal

from unjam.core.events import EventKind
from unjam.core.lease import LEASE_S
from unjam.testing.drills.scene import SETTLE_S, Scene
from unjam.testing.wait import until

NOTICED_S = 5.0
FROZEN_S = LEASE_S + 3.0
BATCH = 32
SLOTS = 6  # two workers with three requests in flight each


async def worker_kill(scene: Scene) -> None:
    """kill -9 of every worker while documents are in hand and others wait."""
    scene.stack.endpoint.control(latency_ms=600)
    await scene.upload(24)
    held = await scene.in_hand(4)
    scene.fault(
        f"kill -9 of every worker, {len(held)} documents in hand",
        f"모든 워커를 kill -9, 처리 중이던 문서 {len(held)}개",
    )
    for name in scene.stack.names("worker"):
        scene.stack.hit(name, signal.SIGKILL)
    scene.stack.endpoint.control(latency_ms=0)
    await scene.noticed(NOTICED_S, "supervisor: worker", "event worker_died", "incident")
    await scene.upload(2)
    await scene.recovered(SETTLE_S)
    await _taken_up_again(scene)
    await scene.unhurt()
    twice = scene.stack.endpoint.stats()["repeated"]
    scene.promise(
        "under one batch per slot was embedded twice",
        "두 번 임베딩한 텍스트는 슬롯당 한 묶음 미만이다",
        twice < SLOTS * BATCH,
        f"{twice} texts",
    )


async def worker_freeze(scene: Scene) -> None:
    """SIGSTOP of a worker for longer than its lease; then it wakes up as a zombie."""
    scene.stack.endpoint.control(latency_ms=600)
    await scene.upload(24)
    held = await scene.in_hand(4)
    pids = scene.stack.supervisor.pids()
    frozen = max(
        scene.stack.names("worker"),
        key=lambda name: sum(f".{pids[name]}." in document.worker for document in held),
    )
    scene.fault(
        f"SIGSTOP of {frozen} for {FROZEN_S:g} s, longer than a lease",
        f"{frozen}을 임대 시간보다 긴 {FROZEN_S:g}초 동안 SIGSTOP",
    )
    scene.stack.endpoint.control(latency_ms=0)
    freezing = asyncio.create_task(scene.stack.freeze(frozen, FROZEN_S))
    await scene.noticed(LEASE_S + 5.0, "event worker_died", "incident")
    await freezing
    scene.healed("SIGCONT: it wakes up as a zombie", "SIGCONT: 좀비로 깨어남")
    await scene.upload(2)
    await scene.recovered(SETTLE_S)
    await _taken_up_again(scene)
    await scene.unhurt()
    ledger = scene.stack.services.ledger
    doubles: list[str] = []
    for document_id in scene.expected:
        events = await ledger.events(document_id, limit=1000)
        flips = [e.generation for e in events if e.kind is EventKind.SEARCHABLE]
        if len(flips) != len(set(flips)):
            doubles.append(document_id)
    scene.promise(
        "no generation was finished twice, the zombie wrote nothing",
        "두 번 끝난 세대가 없고, 좀비는 아무것도 쓰지 않았다",
        not doubles,
        str(doubles[:3]),
    )


async def _taken_up_again(scene: Scene) -> None:
    """The fault was one: some document lost its worker, and was claimed by another."""

    async def orphans() -> int:
        count = 0
        for document_id in scene.expected:
            events = await scene.stack.services.ledger.events(document_id, limit=1000)
            count += any(e.kind is EventKind.WORKER_DIED for e in events)
        return count

    count = await until("documents lost their worker", orphans, deadline_s=5.0)
    scene.say(
        f"{count} documents were taken up again by themselves",
        f"문서 {count}개를 저절로 다시 맡음",
    )
