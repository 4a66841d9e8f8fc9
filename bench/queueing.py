"""A discrete-event model of documents that pass through stations: pure, and the same for a seed.

A *station* has servers, each of which takes a batch and is busy for ``fixed_s + units × each_s``.
Stations that name a CPU share its cores: when more servers are busy than there are cores, all of
them are slower by that much (processor sharing). Others only wait: a disk, a network, a remote
endpoint. Documents come from an endless backlog, as many in flight as are allowed, or by chance
at a given rate.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Station:
    """*batch*: units that a server takes at most; *sources*: so many processes stand in line, each
    with its own documents, its batches and its share of the servers (one at least); *spread*: 0
    takes always as long, 1 is exponential; *linger_s*: so long the first of a process waits until
    there are *enough* units."""

    name: str
    servers: int = 1
    each_s: float = 0.0
    fixed_s: float = 0.0
    batch: int = 1
    sources: int = 1
    cpu: str = ""
    spread: float = 0.0
    linger_s: float = 0.0
    enough: int = 0  # 0: a whole batch


@dataclass(frozen=True)
class Visit:
    """A document's stop: *units* of the station's work (transitions, texts, chunks …)."""

    station: str
    units: int = 1


@dataclass(frozen=True)
class Result:
    """Of the steady part: documents a second, seconds each is under way, documents under way,
    each station's share of busy servers (0 … 1); of the whole run, its units a batch."""

    per_s: float
    mean_s: float
    in_system: float
    busy: Mapping[str, float]
    batch: Mapping[str, float]

    @property
    def limit(self) -> str:
        """The station that is busiest."""
        return max(self.busy, key=lambda name: self.busy[name])


@dataclass(slots=True)
class _Document:
    """*seat*: its place among those under way; who comes after it takes that, and its process."""

    began: float
    seat: int
    at: int = 0


@dataclass(slots=True)
class _Queue:
    """What one process has in a station's line."""

    waiting: deque[tuple[_Document, int, float]] = field(
        default_factory=deque["tuple[_Document, int, float]"]
    )  # document, units, when it came
    units: int = 0  # of all that wait
    busy: int = 0
    listed: bool = False
    asked: bool = False

    def take(self, limit: int) -> tuple[list[_Document], int]:
        """The next batch and its units."""
        taken: list[_Document] = []
        units = 0
        while self.waiting and (not taken or units + self.waiting[0][1] <= limit):
            document, one, _ = self.waiting.popleft()
            taken.append(document)
            units += one
        self.units -= units
        return taken, units


@dataclass(slots=True)
class _Line:
    station: Station
    queues: list[_Queue]
    turns: deque[_Queue] = field(default_factory=deque["_Queue"])
    busy: int = 0
    busy_s: float = 0.0
    since: float = 0.0
    batches: int = 0
    served: int = 0  # units of them

    @classmethod
    def of(cls, station: Station) -> _Line:
        return cls(station, [_Queue() for _ in range(station.sources)])

    @property
    def share(self) -> int:
        """Servers of one process."""
        return max(1, -(-self.station.servers // self.station.sources))

    def list(self, queue: _Queue) -> None:
        if not queue.listed:
            queue.listed = True
            self.turns.append(queue)

    def note(self, now: float) -> None:
        self.busy_s += self.busy * (now - self.since)
        self.since = now


_Served = tuple[_Line, _Queue, list[_Document]]


@dataclass(slots=True)
class _Cpu:
    """*work* counts seconds of an undisturbed server; it passes slower when cores are short."""

    cores: float
    work: float = 0.0
    at: float = 0.0
    version: int = 0
    ends: list[tuple[float, int, _Served]] = field(
        default_factory=list["tuple[float, int, _Served]"]
    )

    @property
    def pace(self) -> float:
        return min(1.0, self.cores / len(self.ends)) if self.ends else 1.0

    def pass_to(self, now: float) -> None:
        self.work += (now - self.at) * self.pace
        self.at = now


class _Run:
    def __init__(
        self,
        stations: Sequence[Station],
        cores: Mapping[str, float],
        route: Sequence[Visit],
        seed: int,
    ) -> None:
        self.lines = {s.name: _Line.of(s) for s in stations}
        self.cpus = {name: _Cpu(n) for name, n in cores.items()}
        self.route = [(self.lines[v.station], v.units) for v in route]
        self.random = random.Random(seed)
        self.now = 0.0
        self.number = 0
        self.events: list[tuple[float, int, object]] = []
        self.done: list[tuple[float, float]] = []  # (ended, began)
        self.free: list[int] = []  # seats of those that ended

    def at(self, when: float, what: object) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, what))

    def go_on(self, document: _Document) -> None:
        """To its next station, or out."""
        if document.at == len(self.route):
            self.done.append((self.now, document.began))
            self.free.append(document.seat)
            return
        line, units = self.route[document.at]
        document.at += 1
        queue = line.queues[document.seat % line.station.sources]
        queue.waiting.append((document, units, self.now))
        queue.units += units
        line.list(queue)
        self.serve(line)

    def serve(self, line: _Line) -> None:
        station = line.station
        while line.turns and line.busy < station.servers:
            queue = line.turns.popleft()
            queue.listed = False
            if not queue.waiting or queue.busy >= line.share or self.lingers(line, queue):
                continue
            taken, units = queue.take(station.batch)
            takes_s = station.fixed_s + units * station.each_s
            if station.spread:
                chance = self.random.expovariate(1.0)
                takes_s *= 1.0 - station.spread + station.spread * chance
            line.note(self.now)
            line.busy += 1
            line.batches += 1
            line.served += units
            queue.busy += 1
            if queue.waiting:
                line.list(queue)
            if not station.cpu:
                self.at(self.now + takes_s, (line, queue, taken))
                continue
            cpu = self.cpus[station.cpu]
            cpu.pass_to(self.now)
            self.number += 1
            heapq.heappush(cpu.ends, (cpu.work + takes_s, self.number, (line, queue, taken)))
            self.plan(cpu)

    def lingers(self, line: _Line, queue: _Queue) -> bool:
        """Whether what a process has in line waits for company; it is then looked at again."""
        station = line.station
        due = queue.waiting[0][2] + station.linger_s
        if queue.units >= (station.enough or station.batch) or self.now >= due:
            return False
        if not queue.asked:
            queue.asked = True
            self.at(due, (line, queue))
        return True

    def plan(self, cpu: _Cpu) -> None:
        """When the first of this CPU's servers ends, if nothing else begins until then."""
        cpu.version += 1
        if cpu.ends:
            left_s = max(0.0, cpu.ends[0][0] - cpu.work) / cpu.pace
            self.at(self.now + left_s, (cpu, cpu.version))

    def end(self, served: _Served) -> None:
        line, queue, documents = served
        line.note(self.now)
        line.busy -= 1
        queue.busy -= 1
        if queue.waiting:
            line.list(queue)
        for document in documents:
            self.go_on(document)
        self.serve(line)

    def step(self) -> object | None:
        """The next event; what it was, if it is none of the stations'."""
        self.now, _, what = heapq.heappop(self.events)
        match what:
            case (_Cpu() as cpu, int(version)):
                if version == cpu.version:
                    cpu.pass_to(self.now)
                    served = heapq.heappop(cpu.ends)[2]
                    self.plan(cpu)
                    self.end(served)
            case (_Line() as line, _Queue() as queue):
                queue.asked = False
                line.list(queue)
                self.serve(line)
            case (_Line() as line, _Queue() as queue, documents):
                self.end((line, queue, documents))
            case _:
                return what
        return None


def simulate(
    stations: Sequence[Station],
    cores: Mapping[str, float],
    route: Sequence[Visit],
    *,
    documents: int,
    in_flight: int = 0,
    per_s: float = 0.0,
    seed: int = 1,
) -> Result:
    """*documents* pass by *route*: *in_flight* at a time out of a backlog, or arriving at *per_s*
    by chance. The first quarter (filling up) and the last tenth (running dry) are not counted.

    Raises:
        ValueError: neither or both of *in_flight* and *per_s*.
    """
    if (in_flight > 0) == (per_s > 0):
        raise ValueError("either in_flight or per_s")
    run = _Run(stations, cores, route, seed)
    begun = 0
    first, last = documents // 4, documents * 9 // 10
    marks: list[tuple[float, dict[str, float]]] = []

    def begin() -> None:
        nonlocal begun
        begun += 1
        run.go_on(_Document(run.now, run.free.pop() if run.free else begun - 1))

    def note() -> None:
        for line in run.lines.values():
            line.note(run.now)
        marks.append((run.now, {n: line.busy_s for n, line in run.lines.items()}))

    if per_s:
        run.at(run.random.expovariate(per_s), "arrival")
    for _ in range(min(in_flight, documents)):
        begin()
    while len(run.done) < documents:
        before = len(run.done)
        if run.step() == "arrival":
            begin()
            if begun < documents:
                run.at(run.now + run.random.expovariate(per_s), "arrival")
        ended = len(run.done)
        if in_flight:
            for _ in range(min(ended - before, documents - begun)):
                begin()
        if before < first <= ended or before < last <= ended:
            note()
    return _result(run, marks, first, last)


def _result(
    run: _Run, marks: Sequence[tuple[float, dict[str, float]]], first: int, last: int
) -> Result:
    (began, before), (ended, after) = marks[0], marks[-1]
    took_s = max(ended - began, 1e-12)
    counted = [(e - b) for e, b in run.done if began < e <= ended]
    # Documents under way, averaged over the time: each counts for the part that it was.
    present_s = sum(min(e, ended) - max(b, began) for e, b in run.done if e > began and b < ended)
    return Result(
        per_s=len(counted) / took_s,
        mean_s=sum(counted) / max(1, len(counted)),
        in_system=present_s / took_s,
        busy={
            name: (after[name] - before[name]) / took_s / line.station.servers
            for name, line in run.lines.items()
        },
        batch={name: line.served / max(1, line.batches) for name, line in run.lines.items()},
    )
