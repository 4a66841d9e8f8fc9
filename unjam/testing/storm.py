"""Storm: seeded faults of every kind over a throw-away system while documents come in.

The storm keeps its own list of what was accepted and judges by that: never by the system's counts.
The order and kind of faults, the documents and their texts follow from the seed; what they meet
does not, since processes run as fast as they may.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis

from unjam.core.errors import UnjamError
from unjam.testing.embedded_stack import EmbeddedStack, Timeline
from unjam.testing.verdict import Verdict, judge
from unjam.testing.wait import TooLate, until
from unjam.worker.supervisor import Happening

SETTLE_S = 60.0
"""How long after the last fault everything may take to be at its end."""

FREEZE_S = (10.5, 13.0)
"""Longer than a lease."""

_WORDS = "pump valve line crew motor filter drain report order stock 정비 창고 재고 운송"


@dataclass(frozen=True, slots=True)
class StormPlan:
    """*updates*: share of the documents that are replaced (PUT) while the storm lasts."""

    seed: int
    seconds: float = 60.0
    documents: int = 400
    faults_per_s: float = 1.0
    updates: float = 0.1
    workers: int = 2
    watchdogs: int = 1
    weights: Mapping[str, int] = field(
        default_factory=lambda: {
            "kill a worker": 6,
            "kill all workers": 2,
            "freeze a worker": 2,
            "drain a worker": 2,
            "kill the watchdog": 2,
            "restart Redis": 1,
            "lose Redis": 1,
            "flush Redis": 2,
            "kill Chroma": 2,
            "endpoint 429": 1,
            "endpoint 503": 1,
            "endpoint hangs": 1,
        }
    )


@dataclass
class Storm:
    """``await Storm(plan, folder).run()`` is the verdict; *timeline* tells what happened."""

    plan: StormPlan
    data_dir: Path
    database_url: str = ""
    settle_s: float = SETTLE_S
    timeline: Timeline = field(default_factory=Timeline)
    faults: Counter[str] = field(default_factory=Counter[str])
    expected: dict[str, str] = field(default_factory=dict[str, str])

    async def run(self) -> Verdict:
        """Raises TooLate when the system does not even come up."""
        self._random = random.Random(self.plan.seed)
        self._background: set[asyncio.Task[None]] = set()
        async with EmbeddedStack(
            self.data_dir,
            self.plan.workers,
            self.plan.watchdogs,
            self.database_url,
            listen=self._heard,
        ) as self._stack:
            await until("the system is up", self._stack.processes_ready, deadline_s=60.0)
            self.timeline.add("the storm begins")
            await asyncio.gather(self._documents(), self._faults())
            await self._heal()
            healed_s = self.timeline.now_s
            self.timeline.add(f"the storm is over; {len(self.expected)} documents were accepted")
            verdict = await judge(self._stack, self.expected, self.settle_s)
            settled = (
                f"settled after {verdict.settled_s:.1f} s" if verdict.settled_s else "NOT settled"
            )
            self.timeline.add(f"{settled} ({self.timeline.now_s - healed_s:.1f} s with the checks)")
            return verdict

    def _heard(self, happening: Happening) -> None:
        if happening.what == "died" and happening.name not in ("valkey", "chroma"):
            self.timeline.add(f"    {happening.name} ended: {happening.how}")

    # -- documents --------------------------------------------------------------------------
    async def _documents(self) -> None:
        """Bursts and single ones, spread over nine tenths of the storm."""
        plan, dice = self.plan, random.Random(self.plan.seed + 1)
        times = sorted(dice.uniform(0, plan.seconds * 0.9) for _ in range(plan.documents))
        began = self.timeline.now_s
        for number, at in enumerate(times):
            await asyncio.sleep(max(0.0, began + at - self.timeline.now_s))
            text = make_text(dice, f"{plan.seed}n{number}")
            document_id = await self._stack.stack.add(text, f"note-{number}.txt")
            self.expected[document_id] = text
            if dice.random() < plan.updates:
                older = dice.choice(list(self.expected))
                await self._update(older, make_text(dice, f"{plan.seed}u{number}"))

    async def _update(self, document_id: str, text: str) -> None:
        services = self._stack.services
        document = await services.ledger.get(document_id)
        assert document is not None, f"{document_id} was accepted and is not in the ledger"
        staged = await services.intake.open("update.txt")
        await services.intake.write(staged, text.encode())
        try:
            await services.intake.replace(document, staged)
        except UnjamError as error:  # refused, so nothing was promised
            self.timeline.add(f"    update of {document_id} refused: {error.code}")
            return
        self.expected[document_id] = text

    # -- faults -----------------------------------------------------------------------------
    async def _faults(self) -> None:
        kinds, weights = zip(*self.plan.weights.items(), strict=True)
        end = self.timeline.now_s + self.plan.seconds
        while (left := end - self.timeline.now_s) > 0:
            await asyncio.sleep(min(left, self._random.expovariate(self.plan.faults_per_s)))
            kind = self._random.choices(kinds, weights)[0]
            self.faults[kind] += 1
            self.timeline.add(kind)
            await self._verbs()[kind]()

    def _verbs(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {
            "kill a worker": lambda: self._hit("worker", signal.SIGKILL),
            "kill all workers": lambda: self._hit("worker", signal.SIGKILL, every=True),
            "freeze a worker": self._freeze,
            "drain a worker": lambda: self._hit("worker", signal.SIGTERM),
            "kill the watchdog": lambda: self._hit("watchdog", signal.SIGKILL),
            "restart Redis": lambda: self._hit("valkey", signal.SIGKILL),
            "lose Redis": self._lose_redis,
            "flush Redis": self._flush,
            "kill Chroma": lambda: self._hit("chroma", signal.SIGKILL),
            "endpoint 429": lambda: self._trouble("429"),
            "endpoint 503": lambda: self._trouble("503"),
            "endpoint hangs": lambda: self._trouble("hang"),
        }

    async def _hit(self, kind: str, number: int, every: bool = False) -> None:
        names = self._stack.names(kind)
        for name in names if every else [self._random.choice(names)]:
            self._stack.hit(name, number)

    async def _freeze(self) -> None:
        name = self._random.choice(self._stack.names("worker"))
        self._spawn(self._stack.freeze(name, self._random.uniform(*FREEZE_S)))

    async def _lose_redis(self) -> None:
        self._stack.lose_redis()

    async def _flush(self) -> None:
        try:
            await self._stack.flush_redis()
        except (redis.RedisError, OSError):
            self.timeline.add("    Redis was away, nothing to flush")

    async def _trouble(self, fault: str) -> None:
        async def burst(seconds: float) -> None:
            try:
                await asyncio.sleep(seconds)
            finally:
                self._stack.endpoint.control(fault="")

        self._stack.endpoint.control(fault=fault)
        self._spawn(burst(self._random.uniform(0.5, 3.0)))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _heal(self) -> None:
        """What was ordered ends; what was killed comes back by itself."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._stack.thaw()
        self._stack.endpoint.control(fault="")


def make_text(dice: random.Random, name: str) -> str:
    """One to sixty paragraphs, each marked with *name*, so that no chunk is like another."""
    words = _WORDS.split()
    return "\n\n".join(
        f"Note {name}, part {n}: {' '.join(dice.choices(words, k=dice.randrange(16, 28)))}."
        for n in range(dice.choice((1, 1, 2, 3, 5, 8, 20, 60)))
    )


async def storm_or_raise(storm: Storm) -> Verdict:
    """The verdict, when every promise held.

    Raises:
        TooLate: with the timeline and what was broken.
    """
    verdict = await storm.run()
    if not verdict.ok:
        raise TooLate(f"seed {storm.plan.seed}\n{storm.timeline}\n{verdict}")
    return verdict


def main() -> int:
    """``python -m unjam.testing.storm --seed 1``: one storm, its timeline, 1 when it broke."""
    parser = argparse.ArgumentParser(description="a seeded storm over a throw-away system")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--database-url", default="", help="empty: SQLite")
    parser.add_argument("--keep", action="store_true", help="leave data and logs where they are")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="unjam-storm-"))
    plan = StormPlan(options.seed, options.seconds, options.documents)
    storm = Storm(plan, folder, options.database_url)
    try:
        verdict = asyncio.run(storm.run())
    finally:
        sys.stdout.write(f"{storm.timeline}\n")
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{dict(storm.faults)}\nlast of all, {verdict.last}\n{verdict}\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
