"""Symptoms of what everything stands on: disks, ledger, clocks, Redis, Chroma, the endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator

from unjam.core import breaker
from unjam.core.breaker import Breaker
from unjam.core.incident import Saying
from unjam.watchdog.facts import LOOK_S, Disk, Facts, History
from unjam.watchdog.symptom import Symptom, apart, began, lasted, size, usual, within

AGAIN_S = 1.5
"""A probe that failed once is asked again by the next look: a lost packet is no outage. Two looks
are 2 s apart, so an outage is noticed within 5 s."""

LEAST_INODES = 1024
"""A document takes two files at most; below this the next minutes' uploads may meet ENOSPC."""

WRITE_SLOW_S = 1.0
"""All leases of a process are renewed in one write every 2 s; a commit to a disk takes 1–30 ms."""

REDIS_SLOW_S = 0.25
"""A PING takes under 1 ms on a host, 1–2 ms in a data centre; workers ask every 75 ms, and at
a quarter of a second each, taking documents costs more than a small one's work."""

CHROMA_SLOW_S = 1.0
"""A heartbeat takes 1–5 ms, a read by id 2–20 ms at 100,000 chunks; a thousand times that is a
disk or a server in trouble."""

REDIS_FULL = 0.95
"""Of maxmemory, under ``noeviction``: an enqueued document takes 1.4 kB, so writes begin to be
refused at any moment."""

THROTTLED_SHARE = 0.2
THROTTLED_LEAST = 5
"""Of the requests of the last 30 s. The governor keeps refusals under 3 % once it knows the limit
(``bench``), so a fifth means that the limit is far below what it was told."""

SLOW_LEAST = 3
EMBEDDING_SLOW_S = 10.0
"""Mean of the last answers' time. OpenAI's endpoint answers a batch of 32 in 0.1–1 s; at
10 s three requests in flight give less than 10 chunks a second."""

CRASH_S = 60.0

SHOWN_S = 10.0
"""What was found and is repaired already counts as seen for so long."""


def detect_stores(facts: Facts, history: History) -> Iterator[Symptom]:
    yield from _disks(facts, history)
    yield from _ledger(facts, history)
    yield from _redis(facts, history)
    yield from _redis_unsafe(facts, history)
    yield from _chroma(facts, history)
    if facts.embedding is not None and not facts.embedding.local:
        yield from _embedding(facts, history)


def held(facts: Facts, name: str) -> Breaker | None:
    """The breaker of a dependency, while it holds."""
    found = facts.vitals.breakers.get(name) if facts.vitals else None
    return found if found is not None and found.holds else None


# -- disks, ledger -------------------------------------------------------------------------
def is_full(disk: Disk) -> bool:
    if not disk.writable or disk.free_bytes < disk.needed_bytes:
        return True
    return disk.free_inodes is not None and disk.free_inodes < LEAST_INODES


def _disks(facts: Facts, history: History) -> Iterator[Symptom]:
    for disk in facts.disks:
        if not is_full(disk):
            continue
        since = began(
            facts,
            history,
            lambda f, what=disk.what: any(is_full(d) for d in f.disks if d.what == what),
        )
        left = f"{size(disk.free_bytes)} free"
        left_ko = f"여유 공간 {size(disk.free_bytes)}"
        if not disk.writable:
            left, left_ko = "it cannot be written", "쓸 수 없음"
        elif disk.free_bytes >= disk.needed_bytes:
            left, left_ko = f"{disk.free_inodes} inodes free", f"남은 inode {disk.free_inodes}개"
        yield Symptom(
            "disk_full",
            Saying(
                f"{disk.what} ({disk.path}): {left}; {size(disk.needed_bytes)} are needed",
                f"{disk.what}({disk.path}): {left_ko}. {size(disk.needed_bytes)}가 필요합니다",
            ),
            disk.what,
            since or facts.at,
        )


def _ledger(facts: Facts, history: History) -> Iterator[Symptom]:
    def bad(f: Facts) -> bool:
        return not f.ledger.answers or f.ledger.writable is False

    shut = held(facts, breaker.LEDGER)
    since = lasted(facts, history, bad, AGAIN_S)
    if since is not None and _written_since(facts, since):
        since = None
    if since is not None or shut is not None:
        detail = facts.ledger.detail or (shut.detail if shut else "")
        yield Symptom(
            "ledger_down",
            Saying(f"The ledger: {detail}", f"원장: {detail}"),
            since=since or (shut.changed_at if shut else facts.at),
        )
    originals = held(facts, breaker.BLOBS)
    if originals is not None:
        yield Symptom(
            "originals_down",
            Saying(f"The originals: {originals.detail}", f"원본 저장소: {originals.detail}"),
            since=originals.changed_at,
        )
    slow_s = usual(facts, history, _write_s, 30.0)
    if slow_s is not None and slow_s > WRITE_SLOW_S:
        yield Symptom(
            "ledger_slow",
            Saying(f"A write takes {slow_s:.1f} s", f"쓰기 한 번에 {slow_s:.1f}초가 걸립니다"),
            since=facts.at,
        )


def _written_since(facts: Facts, since: float) -> bool:
    """It can be read, our write came to no end within its time, and others' heartbeats were
    written since then: it is slow."""
    late = facts.ledger.answers and facts.ledger.write_s >= LOOK_S
    return late and any(p.age_s < facts.at - since for p in facts.processes)


def _write_s(facts: Facts) -> float | None:
    """One that came to no end took that long at least; one that was refused tells nothing."""
    ledger = facts.ledger
    return ledger.write_s if ledger.writable or ledger.write_s >= LOOK_S else None


# -- Redis ----------------------------------------------------------------------------------
def _redis(facts: Facts, history: History) -> Iterator[Symptom]:
    redis, vitals = facts.redis, facts.vitals
    shut = held(facts, breaker.REDIS)
    since = lasted(facts, history, lambda f: not f.redis.answers, AGAIN_S)
    if since is not None or (shut is not None and not redis.answers):
        detail = redis.detail or (shut.detail if shut else "")
        yield Symptom("redis_down", Saying(detail, detail), since=since or facts.at)
    if not redis.answers:
        return
    if redis.read_only or redis.loading:
        what = "is a replica" if redis.read_only else "is loading its data"
        what_ko = "읽기 전용 복제본입니다" if redis.read_only else "데이터를 읽는 중입니다"
        evidence = Saying(f"Redis at {redis.url} {what}", f"{redis.url}의 Redis는 {what_ko}")
        yield Symptom("redis_down", evidence, since=facts.at)
    if vitals and redis.house and redis.house != vitals.ledger_id:
        yield Symptom(
            "redis_wrong_database",
            Saying(
                f"{redis.url} belongs to ledger {redis.house}; ours is {vitals.ledger_id}",
                f"{redis.url}은 원장 {redis.house}의 것이고 우리 원장은 {vitals.ledger_id}입니다",
            ),
            since=facts.at,
        )
    yield from _redis_full(facts, history)
    lost_at = float(vitals.meta.get("redis_lost_at", 0) or 0) if vitals else 0.0
    if vitals and 0.0 <= vitals.now - lost_at < 30.0:
        yield Symptom(
            "redis_lost_data",
            Saying(
                "Redis came back without what it held; the ledger rings for every document again",
                "Redis가 데이터를 잃고 돌아왔습니다. 원장이 모든 문서를 다시 넣습니다",
            ),
            since=lost_at,
        )
    slow_s = usual(facts, history, lambda f: f.redis.ping_s if f.redis.answers else None, 30.0)
    if slow_s is not None and slow_s > REDIS_SLOW_S:
        said = f"PING {slow_s * 1000:.0f} ms"
        yield Symptom("redis_slow", Saying(said, said), since=facts.at)


def _redis_full(facts: Facts, history: History) -> Iterator[Symptom]:
    def full(f: Facts) -> bool:
        r = f.redis
        near = r.max_bytes > 0 and r.used_bytes >= REDIS_FULL * r.max_bytes
        return r.answers and near and r.policy in ("noeviction", "")

    redis, outbox = facts.redis, held(facts, breaker.OUTBOX)
    refused = outbox is not None and outbox.reason == "queue_full"
    if full(facts) or refused:
        used, limit = size(redis.used_bytes), size(redis.max_bytes)
        yield Symptom(
            "redis_full",
            Saying(f"{used} of {limit} (maxmemory)", f"maxmemory {limit} 중 {used} 사용"),
            since=began(facts, history, full) or (outbox.changed_at if outbox else facts.at),
        )
    if redis.max_clients and redis.clients >= REDIS_FULL * redis.max_clients:
        yield Symptom(
            "redis_full",
            Saying(
                f"{redis.clients} of {redis.max_clients} connections",
                f"연결 {redis.max_clients}개 중 {redis.clients}개 사용",
            ),
            since=facts.at,
        )


def _redis_unsafe(facts: Facts, history: History) -> Iterator[Symptom]:
    redis = facts.redis
    if not redis.answers:
        return
    if redis.policy not in ("", "noeviction"):
        said = f"maxmemory-policy {redis.policy}"
        since = began(facts, history, lambda f: f.redis.policy not in ("", "noeviction"))
        yield Symptom("redis_unsafe", Saying(said, said), "policy", since or facts.at)
    if redis.aof is False or not redis.aof_ok:
        what = "appendonly no" if redis.aof is False else "its last write to disk failed"
        what_ko = "appendonly no" if redis.aof is False else "마지막 디스크 쓰기가 실패했습니다"
        since = began(facts, history, lambda f: f.redis.aof is False or not f.redis.aof_ok)
        yield Symptom("redis_unsafe", Saying(what, what_ko), "aof", since or facts.at)
    before = within(history, facts, CRASH_S)
    if before and before.redis.run_id == redis.run_id and redis.evicted > before.redis.evicted:
        n = redis.evicted - before.redis.evicted
        evidence = Saying(f"{n} keys evicted lately", f"최근 키 {n}개가 축출되었습니다")
        yield Symptom("redis_unsafe", evidence, "eviction", before.at)


# -- Chroma ---------------------------------------------------------------------------------
def _chroma(facts: Facts, history: History) -> Iterator[Symptom]:
    chroma, shut = facts.chroma, held(facts, breaker.CHROMA)
    since = lasted(facts, history, lambda f: not f.chroma.answers, AGAIN_S)
    if since is not None or (shut is not None and not chroma.answers):
        detail = chroma.detail or (shut.detail if shut else "")
        name, url = chroma.name, chroma.url
        evidence = Saying(f"{name} at {url}: {detail}", f"{url}의 {name}: {detail}")
        yield Symptom("chroma_down", evidence, since=since or facts.at)
    elif chroma.answers:
        yield from _chroma_writes(facts, history, shut)
        slow_s = usual(
            facts, history, lambda f: max(f.chroma.beat_s, f.chroma.read_s) or None, 30.0
        )
        if slow_s is not None and slow_s > CHROMA_SLOW_S:
            yield Symptom(
                "chroma_slow",
                Saying(f"A read takes {slow_s:.1f} s", f"읽기 한 번에 {slow_s:.1f}초가 걸립니다"),
                since=facts.at,
            )
    yield from _index_short(facts, history)


def _index_short(facts: Facts, history: History) -> Iterator[Symptom]:
    """Documents lack chunks, or did so a moment ago: an idle house fills such a gap from its cache
    before two looks have seen it, and somebody should know that an index lost rows."""
    since = lasted(facts, history, lambda f: bool(f.vitals and f.vitals.missing > 0), AGAIN_S)
    if since is not None and facts.vitals:
        n = facts.vitals.missing
        yield Symptom(
            "chroma_index_short",
            Saying(f"{n} searchable documents lack chunks", f"문서 {n}개의 청크가 부족합니다"),
            since=since,
        )
    lost = json.loads(facts.vitals.meta.get("vectors_lost", "{}")) if facts.vitals else {}
    if facts.vitals and lost and 0.0 <= facts.vitals.now - lost["at"] < SHOWN_S:
        n = lost["documents"]
        yield Symptom(
            "chroma_index_short",
            Saying(
                f"{n} documents were found without all of their chunks, and are stored again",
                f"청크가 일부 없는 문서 {n}개를 발견해 다시 저장합니다",
            ),
            since=lost["since"],
        )


def _chroma_writes(facts: Facts, history: History, shut: Breaker | None) -> Iterator[Symptom]:
    """It answers, and documents meet trouble: either the breaker says so, or their number grew
    in a time in which every look found it well."""
    before = within(history, facts, 30.0)
    well = before is not None and all(f.chroma.answers for f in history if f.at >= before.at)
    errors = "vector_store_errors"
    grew = facts.counter(errors) - before.counter(errors) if before and before.vitals else 0.0
    if (shut is not None and (well or facts.one_off)) or (well and grew >= 3):
        detail = shut.detail if shut else f"{grew:.0f} writes failed within 30 s"
        detail_ko = shut.detail if shut else f"30초 동안 쓰기 {grew:.0f}건이 실패했습니다"
        yield Symptom(
            "chroma_refuses_writes",
            Saying(f"It answers, but: {detail}", f"응답은 하지만: {detail_ko}"),
            since=shut.changed_at if shut else facts.at,
        )


# -- the embedding endpoint -----------------------------------------------------------------
_EMBEDDING = {
    "embedding_unauthorised": "embedding_key_bad",
    "embedding_quota": "embedding_quota",
    "embedding_dimension_changed": "embedding_dimension_changed",
    "embedding_down": "embedding_down",
    "embedding_throttled": "embedding_throttled",
}


def _embedding(facts: Facts, history: History) -> Iterator[Symptom]:
    known, shut = facts.embedding, held(facts, breaker.EMBEDDING)
    assert known is not None
    if shut is not None and shut.reason in _EMBEDDING:
        code = _EMBEDDING[shut.reason]
        evidence = Saying(f"{known.endpoint}: {shut.detail}", f"{known.endpoint}: {shut.detail}")
        yield Symptom(code, evidence, since=shut.changed_at)
    for reason, n in sorted(known.barred.items()):
        if reason in _EMBEDDING:
            yield Symptom(
                _EMBEDDING[reason],
                Saying(
                    f"{n} of {known.keys} keys are set aside, {known.keys_ready} are ready",
                    f"키 {known.keys}개 중 {n}개 제외, {known.keys_ready}개 사용 가능",
                ),
                since=facts.at,
            )
    before = within(history, facts, 30.0)
    if before is not None and before.embedding is not None:
        yield from _throttled(facts, before)
    yield from _slow(facts, history)


def _grown(facts: Facts, before: Facts, outcome: str) -> int:
    if facts.embedding is None or before.embedding is None:
        return 0
    now, then = facts.embedding.outcomes, before.embedding.outcomes
    return max(0, now.get(outcome, 0) - then.get(outcome, 0)) if then or not now else 0


def _throttled(facts: Facts, before: Facts) -> Iterator[Symptom]:
    refused = _grown(facts, before, "throttled")
    sent = refused + _grown(facts, before, "ok") + _grown(facts, before, "failed")
    if refused >= THROTTLED_LEAST and refused >= THROTTLED_SHARE * sent:
        yield Symptom(
            "embedding_throttled",
            Saying(
                f"{refused} of the last {sent} requests were refused (429)",
                f"최근 요청 {sent}건 중 {refused}건이 거절되었습니다(429)",
            ),
            since=before.at,
        )


def _slow(facts: Facts, history: History) -> Iterator[Symptom]:
    """The last few answers of a minute: quick ones of before must not hide what is slow now."""
    minute = (f for f in reversed(history) if apart(f, facts) <= 60.0 and f.embedding is not None)
    before = next((f for f in minute if _grown(facts, f, "ok") >= SLOW_LEAST), None)
    if before is None:
        return
    assert facts.embedding is not None and before.embedding is not None
    answered = _grown(facts, before, "ok")
    spent_ms = facts.embedding.answered_ms - before.embedding.answered_ms
    if spent_ms / answered > EMBEDDING_SLOW_S * 1000:
        mean = spent_ms / answered / 1000
        yield Symptom(
            "embedding_slow",
            Saying(f"An answer takes {mean:.0f} s", f"응답 하나에 {mean:.0f}초가 걸립니다"),
            since=before.at,
        )
