"""Several hosts, each with its own network and processes: cut off, killed, restarted one by one.

    make thorough ARGS="-n 0 -s tests/scenarios/test_hosts.py" HOSTS_DOCUMENTS=2000

The client keeps its own list of what was accepted, and every text has words that no other has.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from unjam.testing.hosts import TOKEN, Hosts
from unjam.testing.storm import make_text
from unjam.testing.switch import hindrance
from unjam.testing.uploads import Uploads
from unjam.testing.verdict import Verdict, judge
from unjam.testing.wait import until

DOCUMENTS = int(os.environ.get("HOSTS_DOCUMENTS") or 200)
PER_S = 8.0
LEASE_S = 10.0

pytestmark = [pytest.mark.thorough, pytest.mark.alone, pytest.mark.timeout(120 + DOCUMENTS)]


@pytest.fixture
def folder() -> AsyncIterator[Path]:
    """Not pytest's own, which PostgreSQL's user must not enter."""
    if reason := hindrance():
        pytest.skip(f"no network namespaces here: {reason}")
    made = Path(tempfile.mkdtemp(prefix="unjam-hosts-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def texts(seed: int) -> Callable[[int], str]:
    return lambda n: make_text(random.Random(seed * 1_000_003 + n), f"{seed}n{n}")


def uploads_to(hosts: Hosts, *names: str) -> Uploads:
    return Uploads(hosts.urls(names), TOKEN)


async def taken(uploads: Uploads, share: float, within_s: float = 300.0) -> None:
    async def count() -> int:
        return len(uploads.accepted)

    wanted = round(DOCUMENTS * share)
    await until(f"{wanted} taken", count, lambda n: n >= wanted, deadline_s=within_s, every_s=0.1)


async def judged(hosts: Hosts, uploads: Uploads) -> Verdict:
    """Everything that was accepted stands there, exact; nothing failed and nobody was blamed."""
    verdict = await judge(hosts, uploads.accepted, 60 + DOCUMENTS / 10)
    print(f"\n{uploads}\n{verdict}")
    assert uploads.failed == []
    assert len(uploads.accepted) == DOCUMENTS
    assert verdict.ok, str(verdict)
    return verdict


async def scratched(hosts: Hosts, uploads: Uploads) -> list[str]:
    """Documents that have an error or a death to their name."""
    ledger = hosts.services.ledger
    found = [await ledger.get(i) for i in uploads.accepted]
    return [
        f"{d.id}: {d.errors} errors, {d.deaths} deaths" for d in found if d and d.errors + d.deaths
    ]


async def test_one_host_is_cut_off_and_another_killed(folder: Path) -> None:
    async with Hosts(folder) as hosts:
        uploads = uploads_to(hosts)
        load = asyncio.create_task(uploads.send(DOCUMENTS, texts(1), PER_S))
        await taken(uploads, 0.2)
        first = await hosts.leader()
        hosts.cut(first)  # the one that leads: another must take over
        cut = time.monotonic()
        leader = await until(
            "another watchdog leads", hosts.leader, lambda n: n not in ("", first), deadline_s=30
        )
        took_over_s = time.monotonic() - cut
        await taken(uploads, 0.5)
        second = next(n for n in hosts.hosts if n not in (first, leader))
        hosts.kill(second)
        await taken(uploads, 0.7)
        left_s = 2 * LEASE_S - (time.monotonic() - cut)
        await asyncio.sleep(max(0.0, left_s))  # it holds leases, and they are over
        hosts.heal(first)
        await load
        verdict = await judged(hosts, uploads)
        await hosts.ready(first, deadline_s=30)
        print(f"{first} cut off, another led after {took_over_s:.1f} s; {verdict.last[:300]}")
        assert took_over_s < 15
        assert uploads.unkind() == []
