"""Drills: one fault each, on a throw-away system of its own, judged from outside.

``unjam drill`` and ``tests/scenarios/test_drills.py`` run the same code.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unjam.core.errors import UnjamError
from unjam.testing.drills import disk, endpoint, files, servers, workers
from unjam.testing.drills.report import DrillReport, Entry, Promise
from unjam.testing.drills.scene import Scene, clean_environment, scene_of
from unjam.testing.small_disk import SmallDisk, small_disk_at
from unjam.testing.wait import TooLate

__all__ = ["DRILLS", "Drill", "DrillReport", "Entry", "Promise", "Scene", "run_drill"]

DISK_MB = 256
"""Holds a whole system with its servers; full within a second."""


@dataclass(frozen=True, slots=True)
class Drill:
    """*play* is the fault; *play_on_disk* one that needs the disk it happens on."""

    name: str
    what: str
    what_ko: str
    play: Callable[[Scene], Awaitable[None]] | None = None
    play_on_disk: Callable[[Scene, SmallDisk], Awaitable[None]] | None = None
    extra: Mapping[str, str] = field(default_factory=dict[str, str])


DRILLS: Mapping[str, Drill] = {
    drill.name: drill
    for drill in (
        Drill(
            "worker-kill",
            "every worker is killed with -9, documents in hand",
            "모든 워커를 kill -9, 처리 중인 문서 있음",
            workers.worker_kill,
        ),
        Drill(
            "worker-freeze",
            "a worker is stopped for longer than its lease, and wakes up",
            "워커가 임대 시간보다 오래 멈췄다가 깨어남",
            workers.worker_freeze,
        ),
        Drill(
            "redis-restart",
            "Redis is killed with -9 and comes back with its data",
            "Redis를 kill -9, 데이터는 남아 돌아옴",
            servers.redis_restart,
        ),
        Drill(
            "redis-flush",
            "Redis forgets everything",
            "Redis가 모두 잊음",
            servers.redis_flush,
        ),
        Drill(
            "chroma-down",
            "Chroma is away for some seconds",
            "Chroma가 몇 초 동안 사라짐",
            servers.chroma_down,
        ),
        Drill(
            "rate-limit",
            "the embedding endpoint answers 429",
            "임베딩 엔드포인트가 429로 응답",
            endpoint.rate_limit,
        ),
        Drill(
            "bad-key",
            "an embedding key is revoked while others are left",
            "임베딩 키 하나가 폐기되고 나머지는 남음",
            endpoint.bad_key,
            extra=endpoint.TWO_KEYS,
        ),
        Drill(
            "oom",
            "parsing a file takes all memory it can get",
            "파일 파싱이 메모리를 끝없이 씀",
            files.oom,
            extra=files.SMALL_CAP,
        ),
        Drill(
            "huge-file",
            "a huge file among small ones loses its worker half-way",
            "작은 문서들 사이의 거대한 파일이 도중에 워커를 잃음",
            files.huge_file,
            extra=files.HUGE,
        ),
        Drill(
            "disk-full",
            "the disk is full for some seconds",
            "디스크가 몇 초 동안 가득 참",
            play_on_disk=disk.disk_full,
            extra=disk.TIGHT,
        ),
    )
}


async def run_drill(
    drill: Drill,
    *,
    folder: Path | None = None,
    tell: Callable[[Entry], None] = lambda _: None,
    inspect: Callable[[Scene], Awaitable[None]] | None = None,
) -> DrillReport:
    """Play *drill* in *folder* (new; a temporary one that is removed when None). In the main
    thread of a process that may start children.

    *tell* hears each line of the timeline as it happens; *inspect* sees the system at the end,
    before it stops. A promise that breaks is in the report; nothing is raised for it.
    """
    own = Path(tempfile.mkdtemp(prefix="unjam-drill-")) if folder is None else folder
    report = DrillReport(drill.name)
    began = time.monotonic()
    try:
        with clean_environment(), contextlib.ExitStack() as held:
            small = None
            data = own / "data"
            if drill.play_on_disk is not None:
                small = held.enter_context(small_disk_at(own / "disk", DISK_MB))
                data = small.folder / "data"
            async with scene_of(report, data, tell, drill.extra) as scene:
                await _play(drill, scene, small)
                if inspect is not None:
                    await inspect(scene)
    except (TooLate, UnjamError) as error:
        report.story = f"{report.story}\n{error}".strip()
        if report.ok:  # it stopped before anything could be judged
            report.promises.clear()
        report.promises.append(
            Promise("the drill came to its end", "훈련이 끝까지 진행된다", False, str(error)[:500])
        )
    finally:
        report.took_s = time.monotonic() - began
        if folder is None:
            shutil.rmtree(own, ignore_errors=True)
    return report


async def _play(drill: Drill, scene: Scene, small: SmallDisk | None) -> None:
    if drill.play is not None:
        await drill.play(scene)
    if drill.play_on_disk is not None and small is not None:
        await drill.play_on_disk(scene, small)
    await scene.conclude()
