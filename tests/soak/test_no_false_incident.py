"""Ten minutes without a fault, at rest and at full load: the watchdog must say nothing.

make soak MINUTES=10 ARGS="-k false_incident"
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.up import Up, equation
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.wait import until

SECONDS = float(os.environ.get("MINUTES") or 10) * 60
LEAST, MOST = 150, 300
"""Documents kept in line at full load: three to six times what may be worked on at once."""

PAGE = "The crane on quay {0} was oiled in week {0} of {1}. 부두 {0}의 기중기에 기름을 쳤다. "
USERS = ("kim", "lee", "park", "")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 300)]


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    endpoint = FakeOpenAI().start()
    endpoint.control(latency_ms=100)
    made = Up(tmp_path, endpoint.url).start()
    yield made
    made.kill()
    endpoint.close()


async def send(client: httpx.AsyncClient, up: Up, first: int, count: int) -> None:
    """Notes of 2 KB; each twentieth has 60 KB."""
    user = USERS[first // max(1, count) % len(USERS)]
    files = [
        ("file", (f"{n}.txt", PAGE.format(n, user) * (600 if n % 20 == 0 else 20)))
        for n in range(first, first + count)
    ]
    answer = await client.post(
        f"{up.base}/api/rag/documents", files=files, data={"user_id": user}, timeout=60
    )
    assert answer.status_code in (202, 207), answer.text


async def at_peace(client: httpx.AsyncClient, up: Up, accepted: int) -> None:
    """Everything is searchable, and no incident was ever opened."""
    await until(
        "all searchable",
        lambda: equation(up, client),
        lambda c: c["searchable"] == accepted,
        deadline_s=240,
    )
    assert (await equation(up, client))["missing"] == 0
    token = (up.data_dir / "admin-token").read_text().strip()
    answer = await client.get(
        f"{up.base}/api/rag/admin/incidents", headers={"Authorization": f"Bearer {token}"}
    )
    found: dict[str, Any] = answer.json()
    assert found["items"] == [], found


async def test_no_false_incident_at_rest(up: Up) -> None:
    async with httpx.AsyncClient() as client:
        await up.ready(client)
        added, ends = 0, time.monotonic() + SECONDS
        while time.monotonic() < ends:
            await send(client, up, added, 1)
            added += 1
            await asyncio.sleep(min(15.0, max(0.0, ends - time.monotonic())))
        await at_peace(client, up, added)


async def test_no_false_incident_at_full_load(up: Up) -> None:
    async with httpx.AsyncClient() as client:
        await up.ready(client)
        added, ends = 0, time.monotonic() + SECONDS
        enough: Callable[[dict[str, int]], bool] = lambda c: open_ones(c) < LEAST  # noqa: E731
        while time.monotonic() < ends:
            standing = open_ones(await equation(up, client))
            for _ in range((MOST - standing) // 50):
                await send(client, up, added, 50)
                added += 50
            await until("there is room", lambda: equation(up, client), enough, deadline_s=120)
        print(f"\n{added} documents in {SECONDS:.0f} s")
        await at_peace(client, up, added)


def open_ones(found: dict[str, int]) -> int:
    return found["running"] + found["queued"] + found["waiting"]
