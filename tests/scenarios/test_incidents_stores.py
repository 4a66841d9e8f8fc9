"""What may become of Chroma's data, of disk and memory, and of a database's clock."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.play import NOTICED_S, SLACK_S, play_on
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.small_disk import forbid, small_disk_at
from unjam.testing.wait import until

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(420)]

JUMP_S = 90


async def test_a_chroma_that_loses_rows_and_one_that_cannot_write(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        play = await play_on(stack)
        pin = stack.services.current_pin().fingerprint.collection

        async def lose_rows() -> None:
            held = await stack.stack.chunk_ids(play.added[0])
            await stack.services.vectors.delete(pin, sorted(held))

        short = await play.fault("chroma_index_short", lose_rows)
        await play.closed(short)

        async def no_room() -> None:
            forbid([stack.supervisor.pids()["chroma"]])
            await play.add(4)

        refused = await play.fault("chroma_refuses_writes", no_room)
        await play.closed(refused)  # a restart of ours is what helps
        done = (await play.book.incident(refused.id)).actions
        assert ("restart_chroma", "done") in [(a.remedy, a.outcome) for a in done]
        await play.all_over()


async def test_a_disk_that_runs_full(tmp_path: Path) -> None:
    """Uploads stop in time; with the room that is left everything else goes on."""
    less = {"RAG_MIN_FREE_DISK_MB": "64", "RAG_RESERVE_MB": "4"}
    with small_disk_at(tmp_path / "disk", size_mb=256) as disk:
        if not disk.real:
            pytest.skip("no disk of this test's own can be mounted here")
        async with EmbeddedStack(disk.folder / "data", workers=1, extra=less) as stack:
            play = await play_on(stack)
            filler = disk.folder / "filler"

            async def fill() -> None:
                left = shutil.disk_usage(disk.folder).free - (40 << 20)
                filler.write_bytes(bytes(left))

            async def free() -> None:
                filler.unlink()

            full = await play.fault("disk_full", fill, free)
            assert full.subject == "originals"
            await play.add(1)
            await play.all_over()


async def test_memory_that_runs_short(tmp_path: Path) -> None:
    """The watchdog reads a ``/proc/meminfo`` of its own, mounted as lxcfs does."""
    real = Path("/proc/meminfo").read_text()
    shown = tmp_path / "meminfo"
    shown.write_text(real)
    script = 'mount --bind "$0" /proc/meminfo && exec "$@"'
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(shown)]
    tried = await asyncio.to_thread(subprocess.run, [*inside, "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("no mount of this test's own can be made here")

    def available(kib: int | None) -> None:
        lines = real.splitlines(keepends=True)
        name = "MemAvailable:"
        told = [f"{name} {kib} kB\n" if kib and x.startswith(name) else x for x in lines]
        shown.write_text("".join(told))

    async with EmbeddedStack(tmp_path / "data", workers=1, inside=inside) as stack:
        play = await play_on(stack)

        async def eat() -> None:
            available(100 << 10)

        short = await play.fault("memory_short", eat)

        async def lowered() -> dict[str, int]:
            knobs = (await play.book.vitals([])).knobs
            return {name: value for name, value in knobs.items() if "CONCURREN" in name}

        await until("less is taken at a time", lowered)
        took = await lowered()
        available(None)
        await play.closed(short)
        await until("as before", lowered, lambda now: all(now[n] > took[n] for n in took))
        await play.add(1)
        await play.all_over()


FAKED = """
CREATE SCHEMA faked;
CREATE TABLE faked.clock (off interval NOT NULL);
INSERT INTO faked.clock VALUES ('0');
CREATE FUNCTION faked.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  $$ SELECT pg_catalog.clock_timestamp() + off FROM faked.clock $$;
"""


async def test_a_database_whose_clock_jumps(tmp_path: Path, pg_server: Any, pg_url: str) -> None:
    """The ledger's own question for the time, answered by another function of that name."""
    name = pg_url.partition("?")[0].rpartition("/")[2]

    def sql(text: str) -> None:
        pg_server.psql(f"\\c {name}\n{text}")

    sql(FAKED + f"ALTER DATABASE {name} SET search_path = faked, pg_catalog, public;")
    async with EmbeddedStack(tmp_path / "data", workers=1, database_url=pg_url) as stack:
        play = await play_on(stack)

        async def jump() -> None:
            sql(f"UPDATE faked.clock SET off = '{JUMP_S} seconds';")

        async def back() -> None:
            sql("UPDATE faked.clock SET off = '0';")

        at = time.monotonic()
        # The incident is dated by the clock that jumped.
        jumped = await play.fault("clock_jump", jump, within_s=NOTICED_S + JUMP_S)
        assert time.monotonic() - at <= NOTICED_S + SLACK_S
        await play.add(1)
        await back()
        await play.closed(jumped)
        assert {i.cause for i in await play.every()} == {"clock_jump"}
        assert not (await play.book.incident(jumped.id)).actions
        await play.all_over()
