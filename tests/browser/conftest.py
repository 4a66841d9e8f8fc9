"""A real Chromium before a real server with a filled house."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """``tests.browser.filled`` as a process, on ports that stay the same over a restart."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def start(self) -> Served:
        command = [sys.executable, "-m", "tests.browser.filled", str(self.folder)]
        command += [str(self.port), str(self.dashboard_port), *self.options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """One request to the API; its JSON."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as http:
            answer = await http.request(method, path, **more)
            answer.raise_for_status()
            return answer.json()

    def first(self, state: str) -> str:
        """Id of the newest document in *state*."""
        url = f"http://127.0.0.1:{self.port}/api/rag/documents?state={state}&limit=1"
        return httpx.get(url).json()["items"][0]["id"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("filled")).start()
    yield served
    served.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """One that the test may change, stop and start."""
    served = Served(tmp_path / "own").start()
    yield served
    with contextlib.suppress(Exception):
        served.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    async with async_playwright() as player:
        opened = await player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        await opened.close()


@dataclass
class Watched:
    """A page, and what it asked for and complained about."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list[str])
    foreign: list[str] = field(default_factory=list[str])

    def clean(self) -> None:
        assert self.faults == []
        assert self.foreign == []


async def watched(browser: Browser, origin: str, **options: object) -> Watched:
    settings: dict[str, object] = {"locale": "en-US", "viewport": {"width": 1280, "height": 800}}
    context = await browser.new_context(**{**settings, **options})  # type: ignore[arg-type]
    page = await context.new_page()
    seen = Watched(page, origin)
    page.on("console", lambda m: m.type == "error" and seen.faults.append(m.text))
    page.on("pageerror", lambda e: seen.faults.append(str(e)))
    page.on(
        "request",
        lambda r: None if r.url.startswith((origin, "data:")) else seen.foreign.append(r.url),
    )
    return seen
