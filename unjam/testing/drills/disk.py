"""Drill on the disk: the ledger's is full, with documents in hand and in line."""

from __future__ import annotations

import asyncio
import contextlib

import httpx

from unjam.testing.drills.scene import SETTLE_S, Scene
from unjam.testing.small_disk import SmallDisk
from unjam.testing.wait import until

NOTICED_S = 15.0
FULL_S = 4.0

TIGHT = {"RAG_RESERVE_MB": "4", "RAG_MIN_FREE_DISK_MB": "0"}
"""A reserve that fits a small disk, and no refusal before it is full."""

WRITERS = ("api", "worker", "watchdog")


async def disk_full(scene: Scene, disk: SmallDisk) -> None:
    """Not one byte more can be written for some seconds."""
    scene.stack.endpoint.control(latency_ms=600)
    await scene.upload(12)
    held = await scene.in_hand(4)
    scene.fault(
        f"the disk is full, {len(held)} documents in hand",
        f"디스크가 가득 참, 처리 중이던 문서 {len(held)}개",
    )
    pids = [scene.stack.supervisor.pids()[n] for kind in WRITERS for n in scene.stack.names(kind)]
    disk.fill(pids)
    await until("uploads are refused", lambda: _refused(scene), deadline_s=NOTICED_S, every_s=0.2)
    scene.signs.add("upload refused: 503 ledger_unwritable")
    await scene.noticed(NOTICED_S, "ledger", "upload refused", "incident")
    scene.stack.endpoint.control(latency_ms=0)
    await asyncio.sleep(FULL_S)
    disk.free()
    scene.healed("there is room again", "공간이 다시 생김")
    await until("uploads are taken", lambda: _taken(scene), deadline_s=SETTLE_S, every_s=0.2)
    await scene.recovered(SETTLE_S)
    await scene.unhurt()


async def _refused(scene: Scene) -> bool:
    """Whether an upload is answered 503 with the reason; one that is taken counts as ours."""
    answer = await _post(scene)
    return answer is not None and answer.status_code == 503 and "ledger_unwritable" in answer.text


async def _taken(scene: Scene) -> bool:
    answer = await _post(scene)
    return answer is not None and answer.status_code == 202


async def _post(scene: Scene) -> httpx.Response | None:
    with contextlib.suppress(httpx.HTTPError):
        return await scene.try_upload()
    return None
