"""Recovery: look after look, from facts to incidents to remedies to a proof that it helped.

One leader over all hosts does the rounds, apart from the reconciler's: a Redis that hangs holds
that one up, and must not keep anybody from noticing. ``unjam recover`` is the same round, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from unjam.core.errors import DependencyDown, LedgerVersionError, NotFound
from unjam.core.incident import Action, Diagnosis, Incident, Sample, Saying
from unjam.core.ports import WorkerRef
from unjam.observe import words
from unjam.watchdog import incident as judge
from unjam.watchdog.acting import Book, Case, Hands
from unjam.watchdog.detect import detect
from unjam.watchdog.diagnose import diagnose
from unjam.watchdog.facts import LOOK_S, Facts, History
from unjam.watchdog.incident import Sign, Step
from unjam.watchdog.remedies import Choice, Remedy, choose
from unjam.watchdog.snapshot import Looking

ROUND_S = 1.0
"""Two looks must see a trouble, and it must be noticed within five seconds."""

ROLE = "recovery"
LEADER_TTL_S = 6.0
ROUND_AT_MOST_S = 20.0

ANSWER_S = 25.0
"""A person waits for a remedy at most so long; it goes on."""

Diagnose = Callable[[Facts, History], Sequence[Diagnosis]]


def diagnosed(facts: Facts, history: History) -> list[Diagnosis]:
    return diagnose(detect(facts, history), facts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, or is being done, about an incident."""

    incident: Incident | None  # None: a plan only, nothing was written
    diagnosis: Diagnosis
    choice: Choice


@dataclass(frozen=True, slots=True)
class Round:
    """What one look led to."""

    facts: Facts
    diagnoses: tuple[Diagnosis, ...]
    incidents: tuple[Incident, ...]
    plans: tuple[Plan, ...]
    paused: bool


@dataclass(slots=True)
class Recovery:
    """``follow`` until *stopping*; ``once`` for a person. *told* hears of every change."""

    book: Book
    look: Looking
    hands: Hands
    me: WorkerRef
    told: Callable[[Incident, str, str], None] = lambda incident, what, detail: None
    judge_facts: Diagnose = diagnosed
    reconcile: Callable[[], Awaitable[object]] | None = None  # one round of it, for a person
    round_s: float = ROUND_S
    _wrote_s: float = 0.0
    _memory: dict[tuple[str, str], Sign] = field(default_factory=dict[tuple[str, str], Sign])
    _acting: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _unwritten: dict[tuple[str, str], tuple[Diagnosis, float]] = field(
        default_factory=dict[tuple[str, str], tuple[Diagnosis, float]]
    )

    # -- the watchdog's rounds --------------------------------------------------------------
    async def follow(self, stopping: asyncio.Event) -> None:
        """Rounds as long as this process leads."""
        while not stopping.is_set():
            began = time.monotonic()
            try:
                async with asyncio.timeout(ROUND_AT_MOST_S):
                    if await self._leads():
                        await self.round()
                    else:
                        self._memory.clear()
            except DependencyDown as error:
                words.dependency_lost(error.code, error.detail)
            except Exception as error:  # the next look must come, whatever this one met
                words.watchdog_fault(error)
            rest = max(0.05, self.round_s - (time.monotonic() - began))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), rest)
        await self.close()

    async def _leads(self) -> bool:
        """While the ledger is away nobody can say; then the look goes on, and writes nothing. A
        watchdog that is older than the ledger leaves it to the others."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(LOOK_S):
                return await self.book.lead(ROLE, self.me.id, LEADER_TTL_S)
        except DependencyDown as error:
            return error.code != LedgerVersionError.code
        except TimeoutError:
            return True
        finally:
            self._wrote_s = time.monotonic() - began

    async def close(self) -> None:
        """What is under way is cut off: its incident says so, and the next leader goes on."""
        for task in self._acting:
            task.cancel()
        await asyncio.gather(*self._acting, return_exceptions=True)

    # -- one round --------------------------------------------------------------------------
    async def round(self, *, confirm: int = judge.CONFIRM_LOOKS) -> Round:
        """Look, judge, write, act. Raises DependencyDown when the ledger cannot be used."""
        facts = await self.look.take(self._wrote_s)
        history = self.look.history
        diagnoses = tuple(self.judge_facts(facts, history))
        shut = facts.ledger.writable is False
        if shut and any(d.cause == "ledger_down" for d in diagnoses):
            self._remember(diagnoses, facts.at)
            return Round(facts, diagnoses, (), (), False)
        try:
            async with asyncio.timeout(LOOK_S if shut else None):
                return await self._settle(facts, history, diagnoses, confirm)
        except DependencyDown:
            self._remember(diagnoses, facts.at)
            raise
        except TimeoutError:
            self._remember(diagnoses, facts.at)
            return Round(facts, diagnoses, (), (), False)

    def _remember(self, diagnoses: Sequence[Diagnosis], now: float) -> None:
        """The ledger cannot take it down now: it is written when the ledger is back."""
        self._memory, steps = judge.step(self._memory, (), diagnoses, now)
        for step in steps:
            if step.kind == "open" and step.diagnosis.key not in self._unwritten:
                self._unwritten[step.diagnosis.key] = step.diagnosis, now
                words.incident_unwritten(step.diagnosis.cause)

    async def _settle(
        self, facts: Facts, history: History, diagnoses: Sequence[Diagnosis], confirm: int
    ) -> Round:
        for key, (missed, at) in list(self._unwritten.items()):
            await self._open(missed, facts, noticed_at=at)
            del self._unwritten[key]
        open_ones = (await self.book.incidents(open_only=True, limit=200)).items
        self._memory, steps = judge.step(
            self._memory, open_ones, diagnoses, facts.at, confirm=confirm
        )
        paused = await self.book.remedies_paused()
        plans: list[Plan] = []
        current: list[Incident] = []
        for step in steps:
            incident = await self._write(step, facts)
            if step.kind == "close":
                continue
            current.append(incident)
            choice = choose(incident, facts.at)
            plans.append(Plan(incident, step.diagnosis, choice))
            await self._follow_up(Case(incident, step.diagnosis, facts, history), choice, paused)
        for over in await self.book.undone():
            await self.hands.put_back(over)
            self.told(over, "put_back", "")
        return Round(facts, tuple(diagnoses), tuple(current), tuple(plans), paused)

    async def _write(self, step: Step, facts: Facts) -> Incident:
        if step.kind == "close":
            assert step.incident is not None
            closed = await self.book.close_incident(step.incident.id)
            self.told(closed, "closed", "")
            return closed
        return await self._open(step.diagnosis, facts, step.incident)

    async def _open(
        self,
        diagnosis: Diagnosis,
        facts: Facts,
        known: Incident | None = None,
        noticed_at: float | None = None,
    ) -> Incident:
        made = await self.book.open_incident(
            diagnosis,
            judge.severity_of(diagnosis.cause),
            queue_length=facts.in_line,
            reopen_within_s=judge.REOPEN_S,
            noticed_at=noticed_at,
        )
        if known is None:
            self.told(made, "opened" if made.flaps == 0 else "reopened", "")
        sample = Sample(facts.in_line, facts.running, int(facts.completed))
        await self.book.note_sample(made.id, sample)
        return made

    # -- acting -----------------------------------------------------------------------------
    async def _follow_up(self, case: Case, choice: Choice, paused: bool) -> None:
        if choice.verdict == "hand_over" and case.incident.state == "open":
            await self.book.hand_over(case.incident.id)
            self.told(await self.book.incident(case.incident.id), "handed_over", choice.why)
        elif choice.verdict == "act" and choice.remedy is not None:
            if paused:
                await self._note_planned(case.incident, choice.remedy)
            else:
                await self._act(case, choice.remedy, "watchdog")

    async def _note_planned(self, incident: Incident, remedy: Remedy) -> None:
        """Once: what the kill switch keeps it from."""
        if any(a.outcome == "planned" and a.remedy == remedy.code for a in incident.actions):
            return
        planned = Action(0.0, remedy.code, "planned", remedy.title)
        await self.book.note_action(incident.id, planned)

    async def _act(self, case: Case, remedy: Remedy, by: str) -> asyncio.Task[None] | None:
        """Begin it, if the ledger grants it; it runs beside the next looks."""
        asked = Action(0.0, remedy.code, "asked", remedy.title, by)
        why_not = await self.book.begin_action(
            case.incident.id, asked, per_hour=remedy.per_hour, rest_s=remedy.verify_s
        )
        if why_not == "rate":
            await self.book.hand_over(case.incident.id)
            again = await self.book.incident(case.incident.id)
            self.told(again, "handed_over", f"{remedy.code}: {remedy.per_hour} an hour")
        if why_not:
            return None
        self.told(case.incident, "begun", remedy.code)
        task = asyncio.create_task(self._carry_out(case, remedy, by), name=remedy.code)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        return task

    async def _carry_out(self, case: Case, remedy: Remedy, by: str) -> None:
        result = await self.hands.carry_out(remedy.code, case)
        detail = Saying(
            f"{remedy.title.en}: {result.detail.en}", f"{remedy.title.ko}: {result.detail.ko}"
        )
        action = Action(0.0, remedy.code, result.outcome, detail, by)
        while True:
            try:
                await self.book.note_action(case.incident.id, action)
                break
            except NotFound:
                return
            except DependencyDown:
                await asyncio.sleep(self.round_s)
        self.told(case.incident, result.outcome, f"{remedy.code}: {result.detail.en}")

    # -- for a person -----------------------------------------------------------------------
    async def once(self, *, plan: bool, by: str, looks: int = 2) -> Round:
        """One round, now: *plan* writes nothing and does nothing. Waits for what it began.

        Raises:
            DependencyDown: the ledger cannot be used.
        """
        facts = await self.look.take()
        for _ in range(looks - 1):  # what grows or stands still shows in two looks only
            await asyncio.sleep(self.round_s)
            facts = await self.look.take()
        history = self.look.history
        diagnoses = tuple(self.judge_facts(facts, history))
        paused = await self.book.remedies_paused()
        if plan:
            return await self._planned(facts, diagnoses, paused)
        _, steps = judge.step({}, (), diagnoses, facts.at, confirm=1)
        plans: list[Plan] = []
        for step in steps:
            incident = await self._open(step.diagnosis, facts, step.incident)
            choice = _choice(incident, facts.at)
            plans.append(Plan(incident, step.diagnosis, choice))
            if choice.verdict == "act" and choice.remedy is not None and not paused:
                case = Case(incident, step.diagnosis, facts, history)
                task = await self._act(case, choice.remedy, by)
                if task is not None:
                    await asyncio.wait({task}, timeout=ANSWER_S)
        if self.reconcile is not None and not paused:
            await self.reconcile()
        incidents = [
            await self.book.incident(p.incident.id) for p in plans if p.incident is not None
        ]
        return Round(facts, diagnoses, tuple(incidents), tuple(plans), paused)

    async def _planned(self, facts: Facts, diagnoses: tuple[Diagnosis, ...], paused: bool) -> Round:
        open_ones = {i.key: i for i in (await self.book.incidents(open_only=True)).items}
        plans: list[Plan] = []
        for found in diagnoses:
            if found.cause in judge.NO_INCIDENT:
                continue
            known = open_ones.get(found.key)
            stand_in = known or Incident(
                0,
                found.cause,
                found.subject,
                judge.severity_of(found.cause),
                "open",
                found.since or facts.at,
                facts.at,
            )
            plans.append(Plan(known, found, _choice(stand_in, facts.at)))
        return Round(facts, diagnoses, tuple(open_ones.values()), tuple(plans), paused)


def _choice(incident: Incident, now: float) -> Choice:
    """For a person who asks now: no waiting for what may heal by itself, and what was handed over
    is tried once more. What was just done is still verified first."""
    if incident.state == "handed_over":
        incident = replace(incident, state="open", actions=())
    return choose(incident, now if incident.actions else now + 3600.0)
