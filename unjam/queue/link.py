"""One process's connections to Redis: time-outs, scripts, and errors in unjam's own words."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from unjam._redis import client_of, shown_place
from unjam.core.cancel import heeding
from unjam.core.errors import DependencyDown

T = TypeVar("T")

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
CLOCK_S = 30.0
"""The server's clock is read anew after this long; in between a clock that nobody sets counts."""
HEALTH_CHECK_S = 15
"""A connection that idled longer is pinged before its next use."""


@cache
def _source(name: str) -> str:
    """The script; what ``--#include other`` in its first line names stands before it."""
    text = (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
    first, _, rest = text.partition("\n")
    if first.startswith(_INCLUDE):
        return _source(first.removeprefix(_INCLUDE).strip()) + rest
    return text


_INCLUDE = "--#include "


class RedisLink:
    """Lazy pool of connections; nothing is opened before the first call.

    Every failure of Redis comes out as ``DependencyDown`` (queue_down: away, slow, read-only,
    loading; queue_full: no memory left for what takes memory).
    """

    def __init__(self, url: str, client_name: str = "unjam") -> None:
        self.url = url
        self.redis: Any = client_of(
            url,
            decode_responses=True,
            encoding_errors="surrogateescape",
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_keepalive=True,
            health_check_interval=HEALTH_CHECK_S,
            client_name=client_name,
            retry=Retry(NoBackoff(), 0),  # retries are ours, per call
        )
        self._scripts: dict[str, Any] = {}
        self._clock: tuple[float, float] | None = None  # the server's, and ours at that moment

    async def call(self, work: Callable[[], Awaitable[T]], *, again: bool = True) -> T:
        """The result of *work*; tried once more on a broken connection when *again*.

        A server that restarted leaves a pool of dead connections behind: the second try opens
        a new one. *again* must be False where twice is not once.
        """
        try:
            return await heeding(work())
        except RedisConnectionError as error:
            if not again:
                raise self.down(error) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self.down(error) from error
        try:
            return await heeding(work())
        except (RedisError, OSError, TimeoutError) as error:
            raise self.down(error) from error

    async def run(
        self, name: str, keys: Sequence[str], args: Sequence[str | int | float], again: bool = True
    ) -> Any:
        """Run ``lua/<name>.lua``: one round trip, atomic."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.redis.register_script(_source(name))
        return await self.call(lambda: script(keys=list(keys), args=list(args)), again=again)

    async def now(self) -> float:
        """Unix seconds by the server's clock, which all hosts share: their own may be minutes
        off."""
        if self._clock is None or time.monotonic() - self._clock[1] > CLOCK_S:
            seconds, micros = await self.call(lambda: self.redis.time())
            self._clock = int(seconds) + int(micros) / 1e6, time.monotonic()
        return self._clock[0] + time.monotonic() - self._clock[1]

    async def moment(self) -> datetime:
        """``now`` as RQ's books have it."""
        return datetime.fromtimestamp(await self.now(), UTC)

    def down(self, error: BaseException) -> DependencyDown:
        """*error* as the reason for which documents wait."""
        where = shown_place(self.url)
        if isinstance(error, RedisTimeoutError | TimeoutError):
            what = f"Redis at {where} does not answer in time"
        elif isinstance(error, ResponseError) or not isinstance(error, RedisConnectionError):
            what = f"Redis at {where} refuses: {error}"
        else:
            what = f"Redis at {where} is away: {error}"
        full = isinstance(error, OutOfMemoryError)
        return DependencyDown(what, code="queue_full" if full else "queue_down", retry_after_s=2.0)

    async def close(self) -> None:
        await self.redis.aclose()
