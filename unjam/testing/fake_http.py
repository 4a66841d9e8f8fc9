"""The least HTTP/1.1 server that keeps connections alive: the fake must not be the bottleneck."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast
from urllib.parse import urlsplit

import httptools


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Response:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])


Handler = Callable[[Request], Awaitable[Response | None]]
"""None closes the connection without an answer."""


class _Connection(asyncio.Protocol):
    """One client; its requests are answered one after the other."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._close()

    # called by the parser
    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        url = urlsplit(self._url.decode("latin-1"))
        method = self._parser.get_method().decode("ascii")
        body = b"".join(self._body)
        self._waiting.append(Request(method, url.path, url.query, self._headers, body))
        if self._task is None:
            self._task = asyncio.ensure_future(self._answer_all())

    async def _answer_all(self) -> None:
        while self._waiting:
            response = await self._handler(self._waiting.popleft())
            if response is None or self._transport is None:
                self._close()
                break
            self._transport.write(_encode(response))
        self._task = None

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _encode(response: Response) -> bytes:
    phrase = HTTPStatus(response.status).phrase
    headers = {"content-type": "application/json", **response.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {response.status} {phrase}\r\n{lines}content-length: {len(response.body)}"
    return head.encode("latin-1") + b"\r\n\r\n" + response.body


async def serve(
    handler: Handler,
    host: str,
    port: int,
    announce: Callable[[int], None],
    *,
    exit_on_eof: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, or with *exit_on_eof* until stdin closes.

    The latter ties the server to the process that holds the other end of the pipe, however that
    one ends. *announce* gets the port once it listens.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    server = await loop.create_server(lambda: _Connection(handler), host, port, backlog=1024)
    if exit_on_eof:
        stdin = sys.stdin.fileno()
        loop.add_reader(stdin, lambda: None if os.read(stdin, 4096) else done.set())
    announce(server.sockets[0].getsockname()[1])
    await done.wait()
    server.close()
