"""Bucket: requests to one bucket, in unjam's own words; no rule about originals lives here."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unjam.core.errors import DependencyDown
from unjam.stores.s3_place import ANSWER_S, REQUEST_S, S3Place

if TYPE_CHECKING:
    from obstore import Bytes, ObjectMeta

T = TypeVar("T")

PART_BYTES = 8 * 1_048_576
"""Larger originals go and come in parts of this size: 10,000 parts, the most that S3 takes, are
78 GiB."""
PARTS_AT_ONCE = 4
PING_S = 5.0
CLOCK_S = 60.0
"""How long the difference of two clocks serves; they drift by milliseconds in that time."""
PAGES_S = 100 * ANSWER_S
"""A whole listing; each page of 1,000 objects is a request with a time-out of its own."""
PATIENCE_S, ALIVE_S = 5.0, 4.0
"""A transfer that takes longer than the first: is anybody there? Then that has the second. So a
store that hangs is noticed within 9 s."""

CLOCK = ".clock"


class Bucket:
    """Raises DependencyDown (blob_store_down) throughout, FileNotFoundError where it is said."""

    def __init__(self, place: S3Place) -> None:
        self.place = place
        self._store = place.open(ANSWER_S)
        self._carrier = place.open(REQUEST_S)
        self._ahead: tuple[float, float] | None = None  # its clock - ours, measured when

    async def read(self, key: str) -> bytes:
        """A small object. Raises FileNotFoundError: it, or the bucket, is not there."""
        import obstore

        async def work() -> bytes:
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

        return await self._ask("cannot be read", work, PING_S)

    async def read_parts(self, key: str, start: int, end: int) -> list[bytes]:
        """Bytes *start* to *end*, in requests side by side. Raises FileNotFoundError."""
        import obstore

        def part(at: int) -> Awaitable[Bytes]:
            length = min(PART_BYTES, end - at)
            return self._carry(
                "sends nothing",
                lambda: obstore.get_range_async(self._carrier, key, start=at, length=length),
                REQUEST_S,
            )

        parts = await asyncio.gather(*(part(at) for at in range(start, end, PART_BYTES)))
        return [bytes(p) for p in parts]

    async def put(self, key: str, data: bytes) -> None:
        """Durable when it returns."""
        import obstore

        await self._put(lambda: obstore.put_async(self._carrier, key, data), REQUEST_S)

    async def put_new(self, key: str, data: bytes) -> None:
        """Leaves what is there; a server that knows no such condition writes over it."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            await self._put(
                lambda: obstore.put_async(self._store, key, data, mode="create"), REQUEST_S
            )
        except AlreadyExistsError:
            return

    async def put_file(self, key: str, file: Path, size: int) -> None:
        """In parts, at most PARTS_AT_ONCE of them in memory."""
        import obstore

        rounds = 2 + size // (PART_BYTES * PARTS_AT_ONCE)
        await self._put(
            lambda: obstore.put_async(
                self._carrier,
                key,
                file,
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            ),
            REQUEST_S * rounds,
        )

    async def _put(self, request: Callable[[], Awaitable[object]], limit_s: float) -> None:
        try:
            await self._carry("takes no upload", request, limit_s)
        except FileNotFoundError as error:  # what a PUT does not find is the bucket
            raise self.down(f"is not there: {_first_line(error)}") from error

    async def list(self, prefix: str) -> Sequence[ObjectMeta]:
        """All objects below the folder *prefix*, oldest first by the store's clock."""
        import obstore

        found = await self._ask(
            "cannot be listed",
            lambda: obstore.list(self._store, prefix).collect_async(),
            PAGES_S,
        )
        return sorted(found, key=lambda o: (o["last_modified"], o["path"]))

    async def delete(self, keys: Sequence[str]) -> None:
        """Idempotent."""
        import obstore

        for key in keys:
            try:
                await self._ask(
                    "removes nothing", lambda key=key: obstore.delete_async(self._store, key)
                )
            except FileNotFoundError:
                continue

    async def now(self) -> float:
        """Unix time by the store's clock, at most a second ahead of it."""
        import obstore

        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        if self._ahead is None or boot - self._ahead[1] > CLOCK_S:
            await self.put(CLOCK, b"")
            facts = await self._ask(
                "cannot be read", lambda: obstore.head_async(self._store, CLOCK), PING_S
            )
            boot = time.clock_gettime(time.CLOCK_BOOTTIME)
            # The header has whole seconds, cut off.
            self._ahead = (facts["last_modified"].timestamp() + 1.0 - boot, boot)
        return boot + self._ahead[0]

    async def _carry(self, what: str, request: Callable[[], Awaitable[T]], limit_s: float) -> T:
        """A transfer may take long, on a slow line; it goes on while the store answers at all."""
        import obstore

        work = asyncio.ensure_future(self._ask(what, request, limit_s))
        try:
            while not (await asyncio.wait({work}, timeout=PATIENCE_S))[0]:
                try:
                    await self._ask(what, lambda: obstore.head_async(self._store, CLOCK), ALIVE_S)
                except FileNotFoundError:
                    continue  # it says so, so it is there
            return work.result()
        finally:
            work.cancel()

    async def _ask(
        self, what: str, request: Callable[[], Awaitable[T]], limit_s: float = 2 * ANSWER_S
    ) -> T:
        """FileNotFoundError and AlreadyExistsError come out as they are."""
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            async with asyncio.timeout(limit_s):
                return await request()
        except (FileNotFoundError, AlreadyExistsError):
            raise
        except TimeoutError as error:
            raise self.down(f"does not answer within {limit_s:.0f} s") from error
        except (BaseError, OSError, ValueError) as error:
            raise self.down(f"{what}: {_first_line(error)}") from error

    def down(self, what: str) -> DependencyDown:
        return DependencyDown(
            f"{self.place} {what}",
            code="blob_store_down",
            hint="Check the bucket, its endpoint and the AWS_* variables; work goes on by itself "
            "afterwards.",
        )


_CAUSE = re.compile(r'InvalidCertificate\(\s*(\w+)|message: "([^"\n]+)"')


def _first_line(error: BaseException) -> str:
    """The client's messages go on with a dump of its own structures; the very cause is in there."""
    line, _, dump = str(error).strip().partition("\n")
    found = _CAUSE.search(dump)
    if found is None:
        return line[:300]
    why = f"the certificate is not trusted, {found[1]}" if found[1] else found[2]
    return f"{line[:300]} ({why})"
