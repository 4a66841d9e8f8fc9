"""The key pool: which API key a request uses, and which keys must rest. Pure: no I/O, no sleep.

The API limits a *project*, not a key, so keys are grouped: ``group:key``. A 429 makes the whole
group rest; a 401, 403 or an empty account takes only that key out, for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

QUARANTINE_S = 60.0
"""A refused key is tried again this often: it may have been restored at the provider."""


@dataclass(eq=False, slots=True)
class Key:
    """One API key. *secret* stays out of ``repr`` and so out of logs."""

    secret: str = field(repr=False)
    group: str
    barred_until: float = 0.0
    barred_for: str = ""  # waiting reason: embedding_unauthorised or embedding_quota


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
        self._keys = [_parse(entry) for entry in entries]
        self._rotate = rotate
        self._clock = clock
        self._next = 0
        self._resting: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def pick(self) -> Key | NoKey:
        """The key for the next request, or why there is none."""
        now = self._clock()
        usable = [i for i, key in enumerate(self._keys) if key.barred_until <= now]
        if not usable:
            return self._all_barred(now)
        if not self._rotate:
            return self._if_rested(self._keys[usable[0]], now)
        ready = [i for i in usable if self._resting.get(self._keys[i].group, 0.0) <= now]
        if not ready:
            soonest = min(self._resting[self._keys[i].group] for i in usable)
            return NoKey("embedding_throttled", soonest - now)
        chosen = next((i for i in ready if i >= self._next), ready[0])
        self._next = chosen + 1
        return self._keys[chosen]

    def is_ready(self, key: Key) -> bool:
        """Whether *key* may be used at this moment."""
        now = self._clock()
        return key.barred_until <= now and self._resting.get(key.group, 0.0) <= now

    def rest(self, key: Key, seconds: float) -> None:
        """The group of *key* was throttled (429): no request of it for *seconds*."""
        until = self._clock() + seconds
        self._resting[key.group] = max(until, self._resting.get(key.group, 0.0))

    def bar(self, key: Key, code: str, seconds: float = QUARANTINE_S) -> None:
        """*key* itself was refused, for the waiting reason *code*."""
        key.barred_until = self._clock() + seconds
        key.barred_for = code

    def _if_rested(self, key: Key, now: float) -> Key | NoKey:
        until = self._resting.get(key.group, 0.0)
        return key if until <= now else NoKey("embedding_throttled", until - now)

    def _all_barred(self, now: float) -> NoKey:
        if not self._keys:
            return NoKey("embedding_unauthorised", QUARANTINE_S)
        # An empty account is what a person can cure soonest, so it wins over a wrong key.
        codes = {key.barred_for for key in self._keys}
        code = "embedding_quota" if "embedding_quota" in codes else "embedding_unauthorised"
        return NoKey(code, max(0.0, min(key.barred_until for key in self._keys) - now))


def _parse(entry: str) -> Key:
    group, colon, secret = entry.partition(":")
    return Key(secret.strip(), group.strip()) if colon else Key(entry.strip(), "")
