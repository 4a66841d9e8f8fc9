"""Several hosts, each with its own network and processes: cut off, killed, restarted one by one.

    make thorough ARGS="-n 0 -s tests/scenarios/test_hosts.py" HOSTS_DOCUMENTS=2000

The client keeps its own list of what was accepted, and every text has words that no other has.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.clocks import WRONG_S, clock_off_by
from tests.fixtures.release import next_release
from tests.fixtures.s3 import S3Server
from tests.fixtures.sentinel import Watched
from tests.fixtures.tls import behind_tls, make_certificate
from unjam.core.document import State
from unjam.testing.hosted_servers import CHROMA, LEDGER, REDIS
from unjam.testing.hosts import TOKEN, Hosts
from unjam.testing.storm import make_text
from unjam.testing.switch import OURS, Switch, hindrance
from unjam.testing.uploads import Uploads
from unjam.testing.verdict import Verdict, judge
from unjam.testing.wait import until

DOCUMENTS = int(os.environ.get("HOSTS_DOCUMENTS") or 200)
PER_S = 8.0
LEASE_S = 10.0

pytestmark = [pytest.mark.thorough, pytest.mark.alone, pytest.mark.timeout(300 + DOCUMENTS)]


@pytest.fixture
def switch() -> Iterator[Switch]:
    if reason := hindrance():
        pytest.skip(f"no network namespaces here: {reason}")
    with Switch() as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own, which PostgreSQL's user must not enter."""
    made = Path(tempfile.mkdtemp(prefix="unjam-hosts-"))
    made.chmod(0o755)
    yield made
    if not os.environ.get("HOSTS_KEEP"):
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


async def more_taken(uploads: Uploads) -> None:
    """Twenty more than now."""
    await taken(uploads, (len(uploads.accepted) + 20) / DOCUMENTS)


async def judged(hosts: Hosts, uploads: Uploads, more: int = 0) -> Verdict:
    """Everything that was accepted stands there, exact; nothing failed and nobody was blamed."""
    verdict = await judge(hosts, uploads.accepted, 60 + uploads.begun / 10)
    print(f"\n{uploads}\n{verdict}")
    assert uploads.failed == []
    assert len(uploads.accepted) == uploads.begun + more
    assert verdict.ok, str(verdict)
    return verdict


async def scratched(hosts: Hosts, uploads: Uploads) -> list[str]:
    """Documents that have an error or a death to their name."""
    ledger = hosts.services.ledger
    found = [await ledger.get(i) for i in uploads.accepted]
    return [
        f"{d.id}: {d.errors} errors, {d.deaths} deaths" for d in found if d and d.errors + d.deaths
    ]


async def test_one_host_is_cut_off_and_another_killed(folder: Path, switch: Switch) -> None:
    async with Hosts(folder, switch) as hosts:
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


async def test_everything_is_restarted_in_turn(folder: Path, switch: Switch) -> None:
    """Host by host, then server by server: nobody who asks again when told so notices, and no
    document has an error to its name."""
    async with Hosts(folder, switch) as hosts:
        uploads = uploads_to(hosts)
        done = asyncio.Event()
        load = asyncio.create_task(uploads.send(100_000, texts(2), PER_S / 2, done))
        for name in hosts.hosts:
            await more_taken(uploads)
            begun = asyncio.Event()
            slow = asyncio.create_task(slow_upload(hosts.hosts[name].url, f"slow {name}", begun))
            async with asyncio.timeout(20):
                await begun.wait()
            began = time.monotonic()
            await hosts.restart(name)
            print(f"{name} restarted in {time.monotonic() - began:.1f} s")
            document_id, text = await slow
            uploads.accepted[document_id] = text
        for server in ("valkey", "chroma", "postgres"):
            await more_taken(uploads)
            began = time.monotonic()
            await hosts.servers.restart(
                server, signal.SIGINT if server == "postgres" else signal.SIGTERM
            )
            print(f"{server} restarted in {time.monotonic() - began:.1f} s")
        await more_taken(uploads)
        done.set()
        await load
        await judged(hosts, uploads, len(hosts.hosts))
        assert await scratched(hosts, uploads) == []
        assert uploads.unkind() == []
        broken = [a for a in uploads.answers if a.status == 0 and not a.what.startswith("Connect")]
        assert len(broken) <= len(hosts.hosts), broken  # a kept connection that closed just then


async def slow_upload(url: str, name: str, begun: asyncio.Event) -> tuple[str, str]:
    """An upload that takes two seconds and is under way when its API is told to end. *begun*: its
    head and first half are sent."""
    text = make_text(random.Random(name), name.replace(" ", ""))
    half = len(text) // 2

    async def body() -> AsyncIterator[bytes]:
        part = f'Content-Disposition: form-data; name="file"; filename="{name}.txt"'
        yield f"--b\r\n{part}\r\n\r\n{text[:half]}".encode()
        begun.set()
        await asyncio.sleep(2.0)
        yield text[half:].encode() + b"\r\n--b--\r\n"

    head = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "multipart/form-data; boundary=b"}
    async with httpx.AsyncClient(headers=head, timeout=20) as http:
        answer = await http.post(f"{url}/api/rag/documents", content=body())
    assert answer.status_code == 202, answer.text
    return answer.json()["id"], text


async def test_redis_fails_over_and_postgresql_restarts(folder: Path, switch: Switch) -> None:
    switch.join("redis", 5)
    watched = Watched(folder / "redis", switch.address(5), switch.inside("redis"))
    watched.folder.mkdir()
    try:
        await watched.start()
        async with Hosts(folder, switch, 2, extra={"RAG_REDIS_URL": watched.url}) as hosts:
            uploads = uploads_to(hosts)
            load = asyncio.create_task(uploads.send(DOCUMENTS, texts(3), PER_S))
            await taken(uploads, 0.2)
            old, new = watched.servers
            watched.kill(old)
            await until("the replica leads", watched.primary, lambda p: p == new, deadline_s=60)
            for share, signum in ((0.5, signal.SIGINT), (0.75, signal.SIGQUIT)):
                await taken(uploads, share)
                began = time.monotonic()
                await hosts.servers.restart("postgres", signum)
                print(f"PostgreSQL was away for {time.monotonic() - began:.1f} s")
            await load
            await judged(hosts, uploads)
            assert await scratched(hosts, uploads) == []
            assert uploads.unkind() == []
            assert {a.status for a in uploads.answers} <= {200, 202, 503}
            assert uploads.longest_gap_s() <= 10.0
    finally:
        watched.end()


async def test_a_host_loses_one_server_at_a_time(folder: Path, switch: Switch) -> None:
    """Redis, then the ledger, then Chroma, for longer than a lease: the other host goes on."""
    async with Hosts(folder, switch, 2) as hosts:
        uploads = uploads_to(hosts)
        load = asyncio.create_task(uploads.send(DOCUMENTS, texts(4), DOCUMENTS / 60))
        for name, last in (("Redis", REDIS), ("the ledger", LEDGER), ("Chroma", CHROMA)):
            before, began = await searchable(hosts), len(uploads.answers)
            with switch.blocked("h1", switch.address(last)):
                await asyncio.sleep(1.5 * LEASE_S)
            flowed = await searchable(hosts) - before
            seen = Counter(f"{a.status} {a.what}" for a in uploads.answers[began:])
            print(f"without {name}: {flowed} became searchable, answers {dict(seen)}")
            assert flowed > 0.5 * LEASE_S
            if last == LEDGER:  # not only hung up on
                assert seen["503 ledger_unwritable"] > 0
        await load
        await judged(hosts, uploads)
        assert await scratched(hosts, uploads) == []
        assert uploads.unkind() == []


async def test_a_newer_release_takes_over_host_by_host(folder: Path, switch: Switch) -> None:
    """It migrates the ledger under the others: these drain and send uploads on, until their turn
    comes."""
    newer = next_release(folder)
    async with Hosts(folder, switch, 2) as hosts:
        uploads = uploads_to(hosts)
        done = asyncio.Event()
        load = asyncio.create_task(uploads.send(100_000, texts(5), PER_S / 2, done))
        for name, host in hosts.hosts.items():
            await more_taken(uploads)
            assert await hosts.stop(name) == 0
            host.extra = newer
            hosts.start(name)
            await hosts.ready(name)
            if name == "h1":
                told = await drained(hosts, "h2")
                print(f"h2: {told}")
        await more_taken(uploads)
        done.set()
        await load
        await judged(hosts, uploads)
        assert await scratched(hosts, uploads) == []
        assert uploads.unkind() == []
        assert any(a.what == "ledger_newer" for a in uploads.answers)


async def drained(hosts: Hosts, name: str) -> list[str]:
    """Nobody there works any more, and its API says why, within ten seconds: its reasons."""
    ledger = hosts.services.ledger
    url = f"{hosts.hosts[name].url}/readyz"

    async def codes() -> list[str]:
        beats = [p for p, age in await ledger.processes() if age < 4.0 and p.kind == "worker"]
        if any(p.host.startswith(f"{name}-") for p in beats):
            return ["a worker beats"]
        async with httpx.AsyncClient(timeout=5.0) as http:
            return [reason["code"] for reason in (await http.get(url)).json()["reasons"]]

    return await until(
        f"{name} has drained", codes, lambda c: "ledger_newer" in c, deadline_s=30, every_s=0.2
    )


async def test_clocks_are_wrong_and_a_worker_hangs_on_another_host(
    folder: Path, switch: Switch
) -> None:
    """One host is five minutes ahead, one behind. Whoever leads asks the other's supervisor."""
    off = {"h1": clock_off_by(WRONG_S), "h2": clock_off_by(-WRONG_S)}
    async with Hosts(folder, switch, 2, own=off) as hosts:
        uploads = uploads_to(hosts)
        load = asyncio.create_task(uploads.send(DOCUMENTS, texts(6), PER_S / 2))
        await taken(uploads, 0.2)
        leader = await hosts.leader("recovery")
        other = next(name for name in hosts.hosts if name != leader)
        before = await until("its worker is known", lambda: worker_on(hosts, other))
        pid = hosts.pid_of(other, "rq worker rag_processing (unjam worker 1)")
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)

        async def another() -> str:
            return await worker_on(hosts, other)

        after = await until(
            "it is replaced", another, lambda w: w not in ("", before), deadline_s=60
        )
        asked = await asyncio.to_thread(
            hosts.servers.asked,
            "SELECT host || ' ' || process_id || ' ' || outcome FROM remedies"
            " WHERE action = 'restart' AND done_at IS NOT NULL ORDER BY id LIMIT 1",
        )
        print(f"led from {leader}: {before} was replaced after {time.monotonic() - began:.1f} s")
        assert asked == f"{before.rsplit('.', 2)[0]} {before} done"
        assert after.startswith(f"{other}-")
        await load
        await judged(hosts, uploads)
        assert uploads.unkind() == []


async def test_originals_in_a_bucket_and_redis_over_tls(
    folder: Path, switch: Switch, s3_server: S3Server
) -> None:
    """A host is killed: what it took in lies in the bucket, and the other goes on with it."""
    ours = switch.address(OURS)
    (folder / "tls").mkdir()
    certificate = make_certificate(folder / "tls", ours)
    authority = certificate / "ca.pem"
    async with (
        behind_tls(
            6379, certificate, server_address=switch.address(REDIS), address=ours
        ) as redis_port,
        behind_tls(s3_server.port, certificate, address=ours) as s3_port,
    ):
        bucket = s3_server.url().replace(s3_server.endpoint, f"https://{ours}:{s3_port}")
        extra = {
            "RAG_REDIS_URL": f"rediss://{ours}:{redis_port}/5?ssl_ca_certs={authority}",
            "RAG_STORAGE_URL": f"{bucket}&ca={authority}",
        }
        async with Hosts(folder, switch, 2, extra=extra) as hosts:
            uploads = uploads_to(hosts)
            load = asyncio.create_task(uploads.send(DOCUMENTS, texts(7), PER_S / 2))
            await taken(uploads, 0.5)
            hosts.kill("h1")
            await load
            await judged(hosts, uploads)
            assert uploads.unkind() == []
        kept = [f for f in s3_server.objects(bucket).rglob("*") if f.is_file()]
        assert len(kept) >= DOCUMENTS


async def worker_on(hosts: Hosts, name: str) -> str:
    """The worker that beats on host *name*; "": none does."""
    beats = await hosts.services.ledger.processes()
    mine = [p.id for p, age in beats if p.kind == "worker" and age < 4.0]
    return next((i for i in mine if i.startswith(f"{name}-")), "")


async def searchable(hosts: Hosts) -> int:
    return (await hosts.services.ledger.state_counts())[State.SEARCHABLE]
