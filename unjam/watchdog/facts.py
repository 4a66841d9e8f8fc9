"""Facts: all that one look at the house found, once. Pure data; whoever judges reads nothing else.

A part that could not be looked at within its time is None, or says ``answers=False`` with why:
unknown is never the same as good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unjam.core.document import State
from unjam.core.ports import LaneFacts, WorkerRef
from unjam.core.vitals import Standing, Vitals

LOOK_S = 2.0
"""A probe that has not answered by then counts as silent."""

PATIENCE_S = 1.0
"""What the watchdog gives a heartbeat of Redis or Chroma (1–5 ms when well): two looks in a row,
2 s apart, then notice one that hangs within 5 s. A single look waits ``LOOK_S`` instead."""

BEAT_LATE_S = 5.0
"""A process renews every 2 s (``core.lease.RENEW_S``): two renewals in a row are missing."""

SILENT_S = 7.0
"""Three renewals are missing: its lease of 10 s is about to run out. (One late renewal is what a
starved host looks like.)"""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the house. *alive*: seen on this host, or kept by a supervisor of another one
    that did not see it end; None: elsewhere."""

    ref: WorkerRef
    age_s: float  # of its last heartbeat
    alive: bool | None
    state: str = ""  # as ``ps`` has it, where it can be seen; T: somebody stopped it

    @property
    def beats(self) -> bool:
        return self.age_s < BEAT_LATE_S and self.alive is not False

    @property
    def frozen(self) -> bool:
        """It lives, and does nothing: stopped, or silent for three renewals."""
        if self.alive is False:
            return False
        return self.state in ("T", "t") or (self.alive is True and self.age_s >= SILENT_S)

    @property
    def works(self) -> bool:
        return self.ref.kind in ("worker", "stock")


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """*writable* None: nobody tried (``unjam doctor`` only reads)."""

    answers: bool
    detail: str = ""
    read_s: float = 0.0
    writable: bool | None = None
    write_s: float = 0.0
    vitals: Vitals | None = None


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What Redis says of itself, and RQ's books. *safe* things are None where it would not say."""

    answers: bool
    detail: str = ""
    url: str = ""  # without a password
    ping_s: float = 0.0
    run_id: str = ""
    uptime_s: float = 0.0
    used_bytes: int = 0
    max_bytes: int = 0  # 0: no limit
    policy: str = ""
    aof: bool | None = None
    aof_ok: bool = True  # its last write went through
    evicted: int = 0  # keys since it started
    read_only: bool = False
    loading: bool = False
    clients: int = 0
    max_clients: int = 0
    rejected: int = 0  # connections since it started
    connections: int = 0  # received since it started
    suspended: bool = False
    house: str = ""  # ledger id of rag:house, "" when nobody wrote it
    epoch: int = 0
    lanes: Mapping[str, LaneFacts] = field(default_factory=dict[str, LaneFacts])
    version: str = ""


@dataclass(frozen=True, slots=True)
class ChromaFacts:
    """The vector store, whichever it is; *name* as people know it."""

    answers: bool
    detail: str = ""
    url: str = ""
    beat_s: float = 0.0
    status: int = 0  # HTTP status of the last answer that was no success
    read_s: float = 0.0  # a read of one collection; 0.0 = there is none yet
    collection: bool | None = None  # whether the collection in use exists
    version: str = ""
    name: str = "Chroma"


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """The endpoint as all processes together met it; nothing is sent for this."""

    local: bool
    endpoint: str = ""
    keys: int = 0
    keys_ready: int = 0
    barred: Mapping[str, int] = field(default_factory=dict[str, int])  # reason → keys
    outcomes: Mapping[str, int] = field(default_factory=dict[str, int])  # outcome → requests
    answered_ms: int = 0  # that all good answers together took


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder that is written to. *needed_bytes*: below it uploads or the ledger stop."""

    what: str  # data, originals, logs, ledger
    path: str
    free_bytes: int = 0
    total_bytes: int = 0
    free_inodes: int | None = None  # None: the file system counts none
    writable: bool = True
    needed_bytes: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host that looks. Memory is that of the tighter of host and cgroup."""

    boottime: float  # CLOCK_BOOTTIME, seconds
    memory_bytes: int = 0
    memory_free_bytes: int = 0  # that can be had without swapping
    swap_bytes: int = 0
    oom_kills: int = 0  # by the kernel since boot, in the host or the cgroup
    load: float = 0.0  # 1 minute
    cpus: int = 1
    memory_stalled: float = 0.0  # PSI: share of the last 10 s in which somebody waited for memory


@dataclass(frozen=True, slots=True)
class Facts:
    """One look. *at* is Unix seconds by the ledger's clock, which all hosts share; *clock* those
    of the host that looked, where they are others. *took_s*: how long the look took.

    *version* is the program's own; *one_off* tells a single look (``unjam doctor``) from the
    rounds of a watchdog, which have a history to compare with.
    """

    at: float
    took_s: float
    host: HostFacts
    ledger: LedgerFacts
    redis: RedisFacts
    chroma: ChromaFacts
    embedding: EmbeddingFacts | None = None
    processes: tuple[Process, ...] = ()
    disks: tuple[Disk, ...] = ()
    sample: tuple[Standing, ...] = ()
    """Documents at evenly spaced places of the lanes: of whom, and how large, the backlog is."""
    paused_lanes: tuple[str, ...] = ()  # by a person; "*": all
    api: str | None = None
    """Why the API does not answer; "" : it does. None: nobody asked."""
    built: bool = True  # there is a house: a ledger, or an address of one
    version: str = ""
    max_concurrent: int = 50
    large_bytes: int = 10_485_760
    parse_wall_s: float = 600.0
    one_off: bool = False
    clock: float | None = None
    trouble: Mapping[str, str] = field(default_factory=dict[str, str])
    """Probe → why it told nothing."""

    @property
    def vitals(self) -> Vitals | None:
        return self.ledger.vitals

    def count(self, *states: State) -> int:
        """Documents in these states; 0 when the ledger did not answer."""
        vitals = self.ledger.vitals
        return sum(vitals.counts.get(s, 0) for s in states) if vitals else 0

    @property
    def in_line(self) -> int:
        return self.count(State.RECEIVED, State.QUEUED)

    @property
    def running(self) -> int:
        return self.ledger.vitals.running_count if self.ledger.vitals else 0

    @property
    def completed(self) -> float:
        """Documents that became searchable since the ledger began."""
        return self.counter("jobs_completed")

    def counter(self, name: str) -> float:
        vitals = self.ledger.vitals
        if vitals is None:
            return 0.0
        return sum(value for (counter, _), value in vitals.counters.items() if counter == name)

    @property
    def workers(self) -> tuple[Process, ...]:
        """Processes that take documents, and beat."""
        return tuple(p for p in self.processes if p.works and p.beats)

    @property
    def rq_workers(self) -> int:
        """Live workers in RQ's books, stock ones included; 0 when Redis does not answer."""
        return max((lane.workers for lane in self.redis.lanes.values()), default=0)

    @property
    def stock_workers(self) -> int:
        """Those of them that are not ours. (Ours stand there for 15 s after their death.)"""
        ours = sum(p.ref.kind == "worker" for p in self.processes)
        busy = sum(p.ref.kind == "stock" and p.beats for p in self.processes)
        return max(0, busy, self.rq_workers - ours)


History = Sequence[Facts]
"""Earlier looks, oldest first, the present one not among them; at most two minutes of them."""

HISTORY_S = 120.0
