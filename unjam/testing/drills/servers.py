"""Drills on servers: Redis restarted and emptied, Chroma away."""

from __future__ import annotations

import asyncio
import signal
import time

from unjam.core.document import State
from unjam.testing.drills.scene import SETTLE_S, Scene
from unjam.testing.wait import until

NOTICED_S = 5.0
AWAY_S = 6.0
AGAIN_S = 0.1


async def redis_restart(scene: Scene) -> None:
    """kill -9 of Redis with documents in hand and in line; its data stays."""
    await _under_way(scene)
    scene.fault("kill -9 of Redis; its data stays", "Redis를 kill -9 (데이터는 남음)")
    scene.stack.hit("valkey", signal.SIGKILL)
    scene.stack.endpoint.control(latency_ms=0)
    late = await scene.upload(2)
    scene.say(
        f"{len(late)} documents were taken meanwhile", f"그사이에도 문서 {len(late)}개를 받음"
    )
    await scene.noticed(NOTICED_S)
    await scene.recovered(SETTLE_S)
    await scene.unhurt()


async def redis_flush(scene: Scene) -> None:
    """FLUSHALL with documents in hand and in line: everything that Redis knew is gone."""
    await _under_way(scene)
    scene.fault("FLUSHALL: Redis has forgotten everything", "FLUSHALL: Redis가 모두 잊음")
    await scene.stack.flush_redis()
    scene.stack.endpoint.control(latency_ms=0)
    await scene.noticed(NOTICED_S, "lost data", "event requeued", "incident")
    await scene.upload(2)
    await scene.recovered(SETTLE_S)
    await scene.unhurt()


async def chroma_down(scene: Scene) -> None:
    """Chroma is killed, and again each time it comes back, for some seconds."""
    await scene.upload(2)
    await scene.all_searchable()
    scene.fault(
        f"kill -9 of Chroma, over and over for {AWAY_S:g} s",
        f"{AWAY_S:g}초 동안 Chroma를 거듭 kill -9",
    )
    killing = asyncio.create_task(_keep_down(scene, "chroma", AWAY_S))
    await scene.upload(16)
    await scene.noticed(NOTICED_S + 5.0, "breaker chroma", "ChromaDB", "incident")
    waiting = await until("documents wait for it", lambda: _waiting(scene), deadline_s=20.0)
    scene.say(
        f"{waiting} documents wait for vector_store_down",
        f"문서 {waiting}개가 vector_store_down 대기",
    )
    await killing
    scene.healed("Chroma may stay", "Chroma를 더는 죽이지 않음")
    await scene.recovered(SETTLE_S)
    await scene.unhurt()


async def _under_way(scene: Scene) -> None:
    """Some documents in hand, more in line."""
    scene.stack.endpoint.control(latency_ms=600)
    await scene.upload(24)
    held = await scene.in_hand(4)
    queued = len(scene.expected) - len(held)
    scene.say(
        f"{len(held)} documents in hand, {queued} in line",
        f"처리 중 {len(held)}개, 대기 {queued}개",
    )


async def _waiting(scene: Scene) -> int:
    found = (await scene.documents()).values()
    return sum((d.state, d.reason) == (State.WAITING, "vector_store_down") for d in found)


async def _keep_down(scene: Scene, name: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scene.stack.hit(name, signal.SIGKILL)
        await asyncio.sleep(AGAIN_S)
