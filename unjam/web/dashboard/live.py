"""The pages' live stream: one per open page, all fed from the same snapshot a second.

A ``tick`` frame a second carries the head of the page (JSON); an unnamed frame carries the page's
fragment, only when it changed. Fragments are made once per page, language and role, for all who
look at the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import StreamingResponse

from unjam.core.errors import UnjamError
from unjam.web.dashboard.board import FRESH_S
from unjam.web.dashboard.render import Ctx, View, context, language, render, tick
from unjam.web.dashboard.verdict import judge
from unjam.web.house import Binding

_Key = tuple[str, str, str, bool, str]


class Fragments:
    """Those of the newest snapshot."""

    def __init__(self) -> None:
        self._number = 0
        self._made: dict[_Key, str] = {}

    async def of(self, ctx: Ctx, view: Callable[[Ctx], Awaitable[View]]) -> str:
        """The page's fragment; "" when it cannot be made now (the page keeps what it shows)."""
        if ctx.snap.number != self._number:
            self._number, self._made = ctx.snap.number, {}
        key = (ctx.path, ctx.lang, ctx.role, ctx.readable, ctx.host)
        if key not in self._made:
            try:
                shown = await view(ctx)
                text = render(ctx, shown, "part.html") if shown.live else ""
            except UnjamError:
                text = ""
            self._made[key] = text
        return self._made[key]


def stream(request: Request, path: str, view: Callable[[Ctx], Awaitable[View]]) -> Any:
    """The event stream of the page at *path*."""
    frames = _frames(request, path, view)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


async def _frames(
    request: Request, path: str, view: Callable[[Ctx], Awaitable[View]]
) -> AsyncIterator[bytes]:
    binding: Binding = request.app.state.binding
    fragments: Fragments = request.app.state.fragments
    sent = b""
    yield b"retry: 1000\n\n"
    while not binding.closing.is_set():
        ctx = await context(request, path)
        head = tick(ctx, judge(ctx.snap, language(request)))
        yield b"event: tick\ndata: " + orjson.dumps(head) + b"\n\n"
        text = await fragments.of(ctx, view)
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if text and digest != sent:
            sent = digest
            yield _message(text)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(binding.closing.wait(), FRESH_S)


def _message(text: str) -> bytes:
    lines = text.replace("\r", "").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
