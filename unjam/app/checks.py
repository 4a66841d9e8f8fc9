"""The doctor's checks beside the diagnosis: each step of a person's own round, with its figures."""

from __future__ import annotations

import asyncio
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from unjam import __version__
from unjam.app.house import without_password
from unjam.app.originals import upload_folder
from unjam.app.vector_stores import look_at
from unjam.core.document import State
from unjam.core.errors import SetupError, UnjamError
from unjam.core.incident import Saying
from unjam.embedding.keys import KeyPool
from unjam.queue.lanes import DEAD, parse_type_queues
from unjam.settings import Settings
from unjam.stores.chroma_place import ChromaPlace
from unjam.watchdog.facts import LOOK_S, Facts
from unjam.watchdog.symptom import size

Level = Literal["ok", "note", "warning", "critical", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the round. *command*: how to see the same by hand."""

    name: str
    level: Level
    said: Saying
    command: str = ""


@dataclass(frozen=True, slots=True)
class Outside:
    """What only these checks ask, gathered beside the look."""

    settings: Settings
    heartbeats: dict[str, int]  # path → HTTP status; 0 = no answer
    kernel: tuple[str, ...] | None  # its last lines about killed processes; None: not allowed
    endpoint: Check | None
    told: str  # what the house says of its embedding: ``House.embedding``

    def of(self, facts: Facts, trouble: str) -> list[Check]:
        """All checks, in the order in which a person would make them."""
        found = [_queues(facts), _workers(facts), _redis(facts)]
        found.append(_vectors(self.settings, facts, self.heartbeats))
        found.append(self.endpoint or _endpoint(self.settings, facts, self.told))
        found += [_storage(facts), _memory(facts), _kernel(self.kernel), _ledger(facts)]
        found += _configuration(self.settings, trouble)
        return [*found, Check("version", "ok", _same(f"unjam {__version__}"), "unjam --version")]


async def checks_of(settings: Settings, *, probe_embedding: bool, told: str = "") -> Outside:
    heartbeats, kernel, endpoint = await asyncio.gather(
        _heartbeats(settings.chroma_url if settings.vector_store == "Chroma" else None),
        _kernel_lines(),
        _probe(settings) if probe_embedding else _nothing(),
    )
    return Outside(settings, heartbeats, kernel, endpoint, told)


async def _nothing() -> None:
    return None


def _same(text: str) -> Saying:
    return Saying(text, text)


# -- from the look --------------------------------------------------------------------------
def _queues(facts: Facts) -> Check:
    lanes = facts.redis.lanes
    command = "redis-cli -n 5 LLEN rq:queue:rag_processing"
    if not lanes:
        what = Saying("unknown: Redis does not answer", "알 수 없음: Redis가 응답하지 않습니다")
        return Check("queues", "unknown", what, command)
    listed = ", ".join(f"{name} {lane.count}" for name, lane in lanes.items())
    dead = lanes[DEAD].count if DEAD in lanes else 0
    return Check("queues", "note" if dead else "ok", _same(listed), command)


def _workers(facts: Facts) -> Check:
    own = sum(p.ref.kind == "worker" for p in facts.workers)
    stock = facts.stock_workers
    others = ", ".join(
        f"{p.ref.kind} {p.ref.pid}" for p in facts.processes if p.beats and not p.works
    )
    what = Saying(
        f"{own} workers of unjam, {stock} stock rq workers, {facts.running} documents in work"
        + (f"; {others}" if others else ""),
        f"unjam 워커 {own}개, rq 기본 워커 {stock}개, 처리 중 문서 {facts.running}건"
        + (f". {others}" if others else ""),
    )
    return Check("workers", "ok" if own or stock else "unknown", what, 'ps aux | grep "rq worker"')


def _redis(facts: Facts) -> Check:
    redis = facts.redis
    if not redis.answers:
        return Check("redis", "unknown", _same(redis.detail), "redis-cli -n 5 ping")
    limit = size(redis.max_bytes) if redis.max_bytes else "none"
    limit_ko = size(redis.max_bytes) if redis.max_bytes else "없음"
    what = Saying(
        f"{redis.url}: PING {redis.ping_s * 1000:.1f} ms, {redis.clients} clients, "
        f"{redis.connections} connections so far, memory {size(redis.used_bytes)} (limit {limit}), "
        f"{redis.policy}, appendonly {'yes' if redis.aof else 'no'}, {redis.evicted} evicted",
        f"{redis.url}: PING {redis.ping_s * 1000:.1f} ms, 클라이언트 {redis.clients}개, 누적 연결 "
        f"{redis.connections}회, 메모리 {size(redis.used_bytes)}(한도 {limit_ko}), "
        f"{redis.policy}, appendonly {'yes' if redis.aof else 'no'}, 축출 {redis.evicted}건",
    )
    return Check("redis", "ok", what, "redis-cli -n 5 info clients")


def _vectors(settings: Settings, facts: Facts, heartbeats: dict[str, int]) -> Check:
    """The vector store, under its own name."""
    chroma, name = facts.chroma, settings.vector_store.lower()
    command = look_at(settings)
    if not chroma.answers:
        return Check(name, "unknown", _same(chroma.detail), command)
    more = more_ko = ""
    if heartbeats.get("/api/v1/heartbeat") == 410:
        more = "; /api/v1/heartbeat answers 410 because Chroma 1.x has no API v1: that is well"
        more_ko = ". /api/v1/heartbeat의 410은 Chroma 1.x에 v1 API가 없기 때문이며 정상입니다"
    beat = f"{chroma.url}: heartbeat {chroma.beat_s * 1000:.1f} ms"
    return Check(name, "ok", Saying(beat + more, beat + more_ko), command)


def _endpoint(settings: Settings, facts: Facts, told: str) -> Check:
    known = facts.embedding
    if told and settings.uses_local_model:
        what = Saying(
            f"{told} (this shell has no key of it, so it is not asked)",
            f"{told} (이 셸에는 키가 없어 확인하지 않습니다)",
        )
        return Check("embedding", "ok", what, "OPENAI_API_KEY=… unjam doctor --probe-embedding")
    if known is None or known.local:
        what = Saying(
            f"{settings.model} on this machine; no text leaves it",
            f"이 기기의 {settings.model}. 텍스트가 밖으로 나가지 않습니다",
        )
        return Check("embedding", "ok", what)
    met = ", ".join(f"{name} {n}" for name, n in sorted(known.outcomes.items()))
    what = Saying(
        f"{known.endpoint}: {known.keys_ready} of {known.keys} keys ready; requests so far: "
        f"{met or 'none'} (--probe-embedding sends one word)",
        f"{known.endpoint}: 키 {known.keys}개 중 {known.keys_ready}개 사용 가능, 누적 요청: "
        f"{met or '없음'}(--probe-embedding은 한 단어를 보내 확인합니다)",
    )
    return Check("embedding", "ok", what, "unjam doctor --probe-embedding")


def _storage(facts: Facts) -> Check:
    listed = "; ".join(
        f"{d.what} {d.path}: {size(d.free_bytes)} free of {size(d.total_bytes)}"
        for d in facts.disks
    )
    listed_ko = "; ".join(
        f"{d.what} {d.path}: {size(d.total_bytes)} 중 {size(d.free_bytes)} 여유"
        for d in facts.disks
    )
    path = facts.disks[0].path if facts.disks else "."
    return Check("storage", "ok", Saying(listed, listed_ko), f"df -h {path}")


def _memory(facts: Facts) -> Check:
    host = facts.host
    free, whole = size(host.memory_free_bytes), size(host.memory_bytes)
    what = Saying(
        f"{free} of {whole} available, load {host.load:.1f} on {host.cpus} cores, "
        f"{host.oom_kills} killed for want of memory since boot",
        f"{whole} 중 {free} 사용 가능, 코어 {host.cpus}개에 부하 {host.load:.1f}, 부팅 후 메모리 "
        f"부족 종료 {host.oom_kills}건",
    )
    return Check("memory", "note" if host.oom_kills else "ok", what, "free -h")


def _kernel(lines: Sequence[str] | None) -> Check:
    command = 'dmesg | grep -i "killed process"'
    if lines is None:
        what = Saying("the kernel's log may not be read here", "커널 로그를 읽을 권한이 없습니다")
        return Check("kernel", "note", what, f"sudo {command}")
    if not lines:
        return Check("kernel", "ok", Saying("no killed process", "종료된 프로세스 없음"), command)
    return Check("kernel", "note", _same("; ".join(lines)), command)


def _ledger(facts: Facts) -> Check:
    if facts.vitals is None:
        return Check("ledger", "unknown", _same(facts.ledger.detail), "unjam status")
    counts = ", ".join(f"{state} {n}" for state in State if (n := facts.count(state)))
    missing = facts.vitals.missing
    read = f"{facts.ledger.read_s * 1000:.0f} ms"
    what = Saying(
        f"read in {read}; {counts or 'no documents'}; missing {missing}",
        f"읽기 {read}. {counts or '문서 없음'}. 누락 {missing}",
    )
    return Check("ledger", "ok", what, "unjam status")


# -- the configuration ----------------------------------------------------------------------
def _configuration(settings: Settings, trouble: str) -> list[Check]:
    faults: list[Saying] = [_same(trouble)] if trouble else []
    try:
        parse_type_queues(settings.type_queues)
        upload_folder(settings)
    except UnjamError as error:
        faults.append(_same(f"{error.detail}: {error.hint}"))
    if settings.uses_local_model and "openai_base_url" in settings.model_fields_set:
        faults.append(
            Saying(
                "OPENAI_BASE_URL is set and no key is: the local model is used",
                "OPENAI_BASE_URL은 있으나 키가 없어 로컬 모델을 씁니다",
            )
        )
    token = settings.data_dir / "admin-token"
    try:
        if stat.S_IMODE(token.stat().st_mode) & 0o077:
            faults.append(
                Saying(
                    f"{token} can be read by others", f"{token}을 다른 사용자가 읽을 수 있습니다"
                )
            )
    except OSError:
        pass
    if not faults:
        return [Check("configuration", "ok", Saying("fits together", "문제 없음"))]
    return [Check("configuration", "warning", fault) for fault in faults]


# -- asked by the doctor alone --------------------------------------------------------------
async def _heartbeats(url: str | None) -> dict[str, int]:
    if not url:
        return {}

    async def ask(client: httpx.AsyncClient, path: str) -> int:
        try:
            return (await client.get(place.url + path, headers=place.headers)).status_code
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0

    try:
        place = ChromaPlace.parse(url)
        verify = place.certificates() or True
    except SetupError:
        return {}
    paths = ("/api/v1/heartbeat", "/api/v2/heartbeat")
    async with httpx.AsyncClient(timeout=LOOK_S, trust_env=False, verify=verify) as client:
        answers = await asyncio.gather(*(ask(client, path) for path in paths))
    return dict(zip(paths, answers, strict=True))


async def _kernel_lines() -> tuple[str, ...] | None:
    program = shutil.which("dmesg")
    if program is None:
        return None
    child = await asyncio.create_subprocess_exec(
        program,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(LOOK_S):
            out, _ = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        return None
    if child.returncode != 0:
        return None
    lines = out.decode(errors="replace").splitlines()
    return tuple(line.strip() for line in lines if "killed process" in line.lower())[-3:]


async def _probe(settings: Settings) -> Check | None:
    """One word to the endpoint with each key: what it costs is a token each."""
    if settings.uses_local_model:
        return None
    entries = [entry.rpartition(":")[2] for entry in settings.api_keys]
    url = settings.openai_base_url.rstrip("/") + "/embeddings"
    async with httpx.AsyncClient(timeout=LOOK_S) as client:
        answers = await asyncio.gather(*(_ask(client, url, settings.model, k) for k in entries))
    names = [f"key {n}/{len(KeyPool(settings.api_keys))}" for n in range(1, len(entries) + 1)]
    listed = "; ".join(f"{n}: {a[1]}" for n, a in zip(names, answers, strict=True))
    shown = without_password(settings.openai_base_url)
    good = all(answer[0] for answer in answers)
    host = urlsplit(settings.openai_base_url).netloc.rpartition("@")[2]
    return Check(
        "embedding",
        "ok" if good else "critical",
        _same(f"{shown}: {listed}"),
        f'curl -sS -H "Authorization: Bearer $OPENAI_API_KEY" https://{host}/v1/models',
    )


async def _ask(client: httpx.AsyncClient, url: str, model: str, key: str) -> tuple[bool, str]:
    began = time.monotonic()
    body = {"input": "test", "model": model}
    try:
        answer = await client.post(url, json=body, headers={"Authorization": f"Bearer {key}"})
    except httpx.HTTPError as error:
        return False, str(error) or type(error).__name__
    took = f"{(time.monotonic() - began) * 1000:.0f} ms"
    if not answer.is_success:
        return False, f"HTTP {answer.status_code} after {took}"
    try:
        raw: Any = answer.json()
        return True, f"{len(raw['data'][0]['embedding'])} dimensions in {took}"
    except (ValueError, KeyError, IndexError, TypeError):
        return False, f"HTTP {answer.status_code} that holds no vector"
