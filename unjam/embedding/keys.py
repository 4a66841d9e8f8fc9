"""The key pool: which API key a request uses, and which keys must rest. Pure: no I/O, no sleep.

The API limits a *project*, not a key, so keys are grouped: ``group:key``. A 429 makes the whole
group rest; a 401, 403 or an empty account takes only that key out, for a while.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

QUARANTINE_S = 60.0
"""A refused key is tried again this often: it may have been restored at the provider."""


@dataclass(eq=False, slots=True)
class Key:
    """One API key. *secret* stays out of ``repr`` and so out of logs."""

    secret: str = field(repr=False)
    group: str
    name: str = ""  # for people: its number among all, and its group
    barred_until: float = 0.0
    barred_for: str = ""  # waiting reason: embedding_unauthorised or embedding_quota

    @property
    def id(self) -> str:
        """By which processes tell each other of it; a digest, since Redis holds no secrets."""
        return hashlib.blake2b(self.secret.encode(), digest_size=8, person=b"unjam key").hexdigest()


@dataclass(frozen=True, slots=True)
class NoKey:
    """Nothing may be sent now: the waiting reason, and for how many seconds."""

    code: str
    wait_s: float


class KeyPool:
    """Keys in the order given. Not thread-safe: one event loop."""

    def __init__(
        self,
        entries: Sequence[str],
        *,
        rotate: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*entries*: each ``key`` or ``group:key``; ungrouped keys share one group.

        With *rotate*, requests are spread over all keys; without, the first usable one is used.
        """
        self._keys = [_parse(n, len(entries), entry) for n, entry in enumerate(entries, 1)]
        self._rotate = rotate
        self._clock = clock
        self._next = 0
        self._resting: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def candidates(self) -> list[Key] | NoKey:
        """Keys that the next request may use, best first; or why there is none."""
        now = self._clock()
        usable = [i for i, key in enumerate(self._keys) if key.barred_until <= now]
        if not usable:
            return self._all_barred(now)
        if not self._rotate:
            usable = usable[:1]
        ready = [i for i in usable if self._resting.get(self._keys[i].group, 0.0) <= now]
        if not ready:
            soonest = min(self._resting[self._keys[i].group] for i in usable)
            return NoKey("embedding_throttled", soonest - now)
        ready.sort(key=lambda i: i < self._next)
        return [self._keys[i] for i in ready]

    def use(self, key: Key) -> None:
        """A request goes out with *key*: the next one begins after it."""
        self._next = self._keys.index(key) + 1

    def ready(self) -> int:
        """How many keys may be used, or could be but for a pause of their group."""
        now = self._clock()
        return sum(key.barred_until <= now for key in self._keys)

    def learn(self, barred: Mapping[str, tuple[str, float]]) -> None:
        """What other processes told: id → (waiting reason, seconds that it stays barred)."""
        for key in self._keys:
            code, seconds = barred.get(key.id, ("", 0.0))
            if seconds > 0:
                self.bar(key, code, seconds)

    def is_ready(self, key: Key) -> bool:
        """Whether *key* may be used at this moment."""
        now = self._clock()
        return key.barred_until <= now and self._resting.get(key.group, 0.0) <= now

    def rest(self, group: str, seconds: float) -> None:
        """The group was throttled (429): no request of it for *seconds*."""
        self._resting[group] = max(self._clock() + seconds, self._resting.get(group, 0.0))

    def bar(self, key: Key, code: str, seconds: float = QUARANTINE_S) -> None:
        """*key* itself was refused, for the waiting reason *code*."""
        key.barred_until = self._clock() + seconds
        key.barred_for = code

    def _all_barred(self, now: float) -> NoKey:
        if not self._keys:
            return NoKey("embedding_unauthorised", QUARANTINE_S)
        # An empty account is what a person can cure soonest, so it wins over a wrong key.
        codes = {key.barred_for for key in self._keys}
        code = "embedding_quota" if "embedding_quota" in codes else "embedding_unauthorised"
        return NoKey(code, max(0.0, min(key.barred_until for key in self._keys) - now))


def _parse(number: int, count: int, entry: str) -> Key:
    group, colon, secret = entry.partition(":")
    if not colon:
        group, secret = "", entry
    name = f"{number}/{count}" + (f" ({group.strip()})" if group.strip() else "")
    return Key(secret.strip(), group.strip(), name)
