"""``unjam doctor``: one look from outside, read-only, whatever is down; then the verdict."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import httpx

from unjam._redis import sentinels_of
from unjam.app.checks import Check, checks_of
from unjam.app.house import House, settle_in
from unjam.app.looking import places_of
from unjam.app.services import ledger_url
from unjam.app.vector_stores import look_at, open_vectors
from unjam.core.causes import CAUSES, Cause
from unjam.core.errors import UnjamError
from unjam.core.incident import Diagnosis, Saying, Severity
from unjam.core.ports import VectorStore
from unjam.observe.logs import secrets_cut
from unjam.settings import Settings
from unjam.stores.ledger.reader import LedgerReader
from unjam.watchdog.detect import detect
from unjam.watchdog.diagnose import diagnose
from unjam.watchdog.facts import LOOK_S, Facts
from unjam.watchdog.snapshot import Snapshot

DEFAULT_API = "http://127.0.0.1:8002"
REDIS_COMMAND, REDIS_URL = "redis-cli -n 5", "redis://127.0.0.1:6379/5"
CHROMA_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnosis with its cause's words; *command* has this house's addresses."""

    diagnosis: Diagnosis
    cause: Cause
    command: str


@dataclass(frozen=True, slots=True)
class Report:
    """*verdict*: ok, info, warning, critical, unknown. No secrets anywhere in it."""

    verdict: Severity | str
    exit: int
    findings: Sequence[Finding]
    checks: Sequence[Check]
    data_dir: str
    took_s: float


async def examine(settings: Settings, *, probe_embedding: bool = False) -> Report:
    """Look at the house that *settings* and its ``house.json`` describe.

    Nothing is written, created or migrated. *probe_embedding*: one word is sent to the endpoint.
    Never raises for what it looks at.
    """
    house = House.read(settings.data_dir)
    settings, trouble = _settled(settings, house)
    ledger, unread = await _open(settings)
    vectors, unknown = _vectors(settings)
    trouble = trouble or unknown
    snapshot = Snapshot(places_of(settings, ledger, vectors, dict, trouble=unread), one_off=True)
    # UNJAM_URL: as the other commands; in a container the API is another one.
    api_url = os.environ.get("UNJAM_URL") or (house.api_url if house else "") or DEFAULT_API
    try:
        told = house.embedding if house else ""
        facts, api, checks = await asyncio.gather(
            snapshot.take(),
            _api(api_url),
            checks_of(settings, probe_embedding=probe_embedding, told=told),
        )
    finally:
        await snapshot.close()
        if vectors is not None:
            await vectors.close()
        if ledger is not None:
            await ledger.close()
    known = house is not None or bool(settings.redis_url or settings.database_url)
    built = known or (settings.data_dir / "ledger.db").exists()
    facts = replace(facts, api=api, built=built)
    return _report(settings, facts, checks.of(facts, trouble))


def _report(settings: Settings, facts: Facts, checks: Sequence[Check]) -> Report:
    cut = secrets_cut(settings)
    diagnoses = diagnose(detect(facts), facts) if facts.built else []
    findings = [_finding(settings, d, cut) for d in diagnoses]
    shown = [
        replace(c, said=_clean(c.said, cut), command=localised(settings, c.command)) for c in checks
    ]
    verdict, code = _verdict(facts, findings, shown)
    return Report(verdict, code, findings, shown, str(settings.data_dir), facts.took_s)


def _verdict(facts: Facts, findings: Sequence[Finding], checks: Sequence[Check]) -> tuple[str, int]:
    if not facts.built:
        return "unknown", 3
    found: set[str] = {f.cause.severity for f in findings}
    found |= {c.level for c in checks if c.level in ("warning", "critical")}
    for verdict, code in (("critical", 2), ("warning", 1)):
        if verdict in found:
            return verdict, code
    if facts.vitals is None or facts.trouble:
        return "unknown", 3
    return ("info" if "info" in found else "ok"), 0


def _finding(settings: Settings, diagnosis: Diagnosis, cut: Callable[[str], str]) -> Finding:
    cause = CAUSES[diagnosis.cause]
    evidence = tuple(_clean(said, cut) for said in diagnosis.evidence)
    return Finding(replace(diagnosis, evidence=evidence), cause, localised(settings, cause.command))


def _clean(said: Saying, cut: Callable[[str], str]) -> Saying:
    return Saying(cut(said.en), cut(said.ko))


def localised(settings: Settings, command: str) -> str:
    """*command* with the addresses of this house, without passwords."""
    if settings.redis_url and (watched := sentinels_of(settings.redis_url)) is not None:
        database = watched.database  # which server is the primary is known when it is asked
        command = command.replace(REDIS_COMMAND, f"redis-cli -h PRIMARY -n {database}")
        command = command.replace(REDIS_URL, f"redis://PRIMARY:6379/{database}")
    elif settings.redis_url:
        place = urlsplit(settings.redis_url)
        host, port = place.hostname or "127.0.0.1", place.port or 6379
        database = place.path.strip("/") or "0"
        where = "" if host in ("127.0.0.1", "localhost") else f" -h {host}"
        where += "" if port == 6379 else f" -p {port}"
        where += " --tls" if place.scheme == "rediss" else ""
        command = command.replace(REDIS_COMMAND, f"redis-cli{where} -n {database}")
        command = command.replace(REDIS_URL, f"{place.scheme}://{host}:{port}/{database}")
    if settings.vector_store != "Chroma" and CHROMA_URL in command:
        command = look_at(settings)
    elif settings.chroma_url:
        place = urlsplit(settings.chroma_url)
        netloc = place.netloc.rpartition("@")[2]
        command = command.replace(CHROMA_URL, f"{place.scheme}://{netloc}{place.path.rstrip('/')}")
    return command


def _vectors(settings: Settings) -> tuple[VectorStore | None, str]:
    """The store; why there is none, when its address or its library does not fit."""
    if not settings.vectors_url:
        return None, ""
    try:
        return open_vectors(settings.vectors_url), ""
    except UnjamError as error:
        return None, f"{error.detail} {error.hint}".strip()


def _settled(settings: Settings, house: House | None) -> tuple[Settings, str]:
    """With what the house knows; why not, when it does not fit this machine."""
    if house is None:
        return settings, ""
    try:
        return settle_in(settings, house), ""
    except UnjamError as error:
        return settings, f"{error.detail} {error.hint}".strip()


async def _open(settings: Settings) -> tuple[LedgerReader | None, str]:
    try:
        async with asyncio.timeout(LOOK_S):
            return await LedgerReader.open(ledger_url(settings)), ""
    except UnjamError as error:
        return None, f"{error.detail} {error.hint}".strip()
    except TimeoutError:
        return None, f"the ledger does not answer within {LOOK_S:g} s"


async def _api(url: str) -> str:
    """Why it does not answer; "" : it does."""
    try:
        async with httpx.AsyncClient(timeout=LOOK_S, trust_env=False) as client:
            answer = await client.get(f"{url}/healthz")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{url}: {str(error) or type(error).__name__}"
    return "" if answer.is_success else f"{url} answers {answer.status_code}"
