"""``unjam verify``: looks over time, the equation, and a canary through the public API."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from unjam.app.house import House, found
from unjam.app.looking import places_of
from unjam.app.services import open_ledger
from unjam.client import Client
from unjam.core.errors import DependencyDown, UnjamError
from unjam.core.ports import Ledger
from unjam.settings import Settings
from unjam.stores.ledger import SqlLedger
from unjam.watchdog.facts import Facts
from unjam.watchdog.snapshot import Looking, Snapshot
from unjam.watchdog.verify import WINDOWS_MIN, Canary, Check, judge, judge_canary, judge_equation

USER = "unjam-canary"
CANARY_S = 90.0
NOW_LOOKS = 3
LOOK_EVERY_S = 2.0


@dataclass(slots=True)
class Verifier:
    """*minute_s*: seconds of a minute (tests have shorter ones). *api_url* "": no canary."""

    look: Looking
    ledger: Ledger
    api_url: str
    token: str | None = None
    minute_s: float = 60.0
    look_every_s: float = LOOK_EVERY_S
    canary_s: float = CANARY_S
    _looks: list[Facts] = field(default_factory=list[Facts])

    async def now(self) -> list[Check]:
        """All windows from what can be known at once: a few looks, and the ledger's figures."""
        canary = asyncio.create_task(self.canary())
        for n in range(NOW_LOOKS):
            if n:
                await asyncio.sleep(self.look_every_s)
            self._looks.append(await self.look.take())
        checks = [c for minutes in WINDOWS_MIN for c in judge(minutes, self._looks)]
        return [*checks, judge_equation(await self._equation()), judge_canary(await canary)]

    async def over_time(
        self, windows: Sequence[int] = WINDOWS_MIN
    ) -> AsyncGenerator[list[Check], None]:
        """The checks of each window when it has passed; the last comes with the equation."""
        began = time.monotonic()
        yield [judge_canary(await self.canary())]
        for minutes in windows:
            while True:
                self._looks.append(await self.look.take())
                left = began + minutes * self.minute_s - time.monotonic()
                if left <= 0:
                    break
                await asyncio.sleep(min(self.look_every_s, left))
            checks = judge(minutes, self._looks)
            if minutes == windows[-1]:
                checks.append(judge_equation(await self._equation()))
            yield checks

    async def _equation(self):
        try:
            return await self.ledger.equation()
        except DependencyDown:
            return None

    async def canary(self) -> Canary:
        """Its token is found by search, and by nobody else: it is labelled, and deleted after."""
        if not self.api_url:
            return Canary(False, 0.0, "no API is known", asked=False)
        try:
            return await asyncio.to_thread(self._canary)
        except DependencyDown as error:
            return Canary(False, 0.0, str(error), asked=error.code != "api_down")
        except UnjamError as error:
            return Canary(False, 0.0, str(error))

    def _canary(self) -> Canary:
        token = f"canary{secrets.token_hex(8)}"
        text = f"unjam canary {token}. This document is deleted at once."
        began = time.monotonic()
        with Client(self.api_url, self.token) as client:
            added = client.add(text.encode(), filename=f"{token}.txt", user_id=USER)
            try:
                ended = client.wait(added.id, timeout_s=self.canary_s)
                if ended.state != "searchable":
                    return Canary(False, 0.0, f"it ended {ended.state}: {ended.reason}")
                hits = client.search(token, k=3, filter={"user_id": USER})
                if not any(token in hit.text for hit in hits):
                    return Canary(False, 0.0, "it is searchable, and search does not find it")
                return Canary(True, time.monotonic() - began)
            finally:
                client.delete(added.id)


async def open_verifier(settings: Settings) -> tuple[Verifier, SqlLedger]:
    """Of the house that is found from here; the ledger is to be closed.

    Raises:
        DependencyDown: ledger_unwritable. SetupError: the ledger cannot be opened.
    """
    settings = found(settings)
    ledger = await open_ledger(settings)
    house = House.read(settings.data_dir)
    token = settings.api_token.get_secret_value() if settings.api_token else None
    look = Snapshot(places_of(settings, ledger, None, dict))
    return Verifier(look, ledger, house.api_url if house else "", token), ledger
