"""A slow line to a real server: TCP in between, whose delay can be changed while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from types import TracebackType

PIECE_BYTES = 262_144


@dataclass
class SlowLine:
    """``async with SlowLine(port) as line``; clients connect to ``line.port`` of this host.

    Each piece of data on its way to the server waits *delay_s* seconds, which for a request and
    its answer is one slow round trip. With *only* set, none but pieces that contain it do: a
    server that is slow at one thing. Nothing is lost or changed.
    """

    server_port: int
    delay_s: float = 0.0
    only: bytes = b""
    port: int = 0
    _server: asyncio.Server | None = None
    _lines: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def __aenter__(self) -> SlowLine:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._lines:
            task.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _connected(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        try:
            server, ask = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:  # the server is away: so is the line
            answer.close()
            self._lines.discard(task)
            return
        ways = [
            asyncio.ensure_future(self._carry(client, ask, slow=True)),
            asyncio.ensure_future(self._carry(server, answer, slow=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            ask.close()
            answer.close()
            self._lines.discard(task)

    async def _carry(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, slow: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(PIECE_BYTES):
                if slow and self.delay_s and self.only in piece:
                    await asyncio.sleep(self.delay_s)
                to.write(piece)
                await to.drain()
