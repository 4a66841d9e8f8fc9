"""Uploads: a client that sends documents all the time to several APIs, and writes down each answer.

It does what any careful client does: when one API does not answer, or says 503, it asks the next,
with the same Idempotency-Key, so that an upload whose answer was lost is not taken twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import httpx

GIVE_UP_S = 60.0
LONGEST_RETRY_S = 10.0
"""The longest Retry-After that an API may give for a server that is away a moment."""


@dataclass(frozen=True, slots=True)
class Answer:
    """*status*: of HTTP, 0 when there was no answer; *what*: the problem's code, or the fault."""

    at: float
    took_s: float
    api: str
    status: int
    what: str = ""
    retry_after_s: float = 0.0


@dataclass
class Uploads:
    """``send`` until it is told to stop. *accepted*: id → text of what was answered with 202."""

    apis: Sequence[str]
    token: str
    try_s: float = 5.0
    accepted: dict[str, str] = field(default_factory=dict[str, str])
    answers: list[Answer] = field(default_factory=list[Answer])
    failed: list[str] = field(default_factory=list[str])
    begun: int = 0
    _tries: int = 0

    async def send(
        self,
        count: int,
        make: Callable[[int], str],
        per_s: float,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Documents 0 … *count*-1, at most *per_s* begun a second, 16 under way at most."""
        turn = asyncio.Semaphore(16)
        limits = httpx.Limits(max_keepalive_connections=16, keepalive_expiry=5.0)
        timeout = httpx.Timeout(self.try_s, connect=1.0)
        headers = {"Authorization": f"Bearer {self.token}"}
        began = time.monotonic()
        async with (
            httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits) as http,
            asyncio.TaskGroup() as group,
        ):
            for n in range(count):
                await asyncio.sleep(max(0.0, began + n / per_s - time.monotonic()))
                if stop is not None and stop.is_set():
                    break
                await turn.acquire()
                self.begun += 1
                task = group.create_task(self._upload(http, f"note-{n}.txt", make(n)))
                task.add_done_callback(lambda _: turn.release())

    async def _upload(self, http: httpx.AsyncClient, name: str, text: str) -> None:
        end = time.monotonic() + GIVE_UP_S
        refused_in_row = 0
        while time.monotonic() < end:
            self._tries += 1
            api = self.apis[self._tries % len(self.apis)]
            answer, document_id = await self._try(http, api, name, text)
            self.answers.append(answer)
            if document_id:
                self.accepted[document_id] = text
                return
            if answer.status not in (0, 503):
                break
            refused_in_row += 1
            if refused_in_row % len(self.apis) == 0:  # nobody takes it now
                await asyncio.sleep(min(1.0, answer.retry_after_s or 0.2))
        self.failed.append(name)

    async def _try(
        self, http: httpx.AsyncClient, api: str, name: str, text: str
    ) -> tuple[Answer, str]:
        began = time.monotonic()
        try:
            got = await http.post(
                f"{api}/api/rag/documents",
                files={"file": (name, text.encode())},
                headers={"Idempotency-Key": name},
            )
        except httpx.TransportError as error:
            now = time.monotonic()
            return Answer(now, now - began, api, 0, type(error).__name__), ""
        now = time.monotonic()
        took = now - began
        if got.status_code in (200, 202):
            return Answer(now, took, api, got.status_code), str(got.json()["id"])
        retry = float(got.headers.get("Retry-After", 0))
        what = str(got.json().get("code", got.text[:80]))
        return Answer(now, took, api, got.status_code, what, retry), ""

    # -- what it saw --------------------------------------------------------------------------
    def longest_gap_s(self) -> float:
        """The longest time without one upload taken."""
        taken = sorted(a.at for a in self.answers if a.status in (200, 202))
        return max((b - a for a, b in pairwise(taken)), default=0.0)

    def unkind(self) -> list[Answer]:
        """Answers that are neither 202 (200 of a repeat) nor 503 with a short Retry-After."""
        return [
            a
            for a in self.answers
            if a.status not in (0, 200, 202)
            and not (a.status == 503 and 0 < a.retry_after_s <= LONGEST_RETRY_S)
        ]

    def __str__(self) -> str:
        kinds = Counter(f"{a.status} {a.what}".strip() for a in self.answers)
        return (
            f"{len(self.accepted)} accepted, {len(self.failed)} failed; answers {dict(kinds)}; "
            f"longest {max((a.took_s for a in self.answers), default=0.0):.1f} s; "
            f"longest time without one taken {self.longest_gap_s():.1f} s"
        )
