"""The fake endpoint as a process of its own, with a handle to steer it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from unjam.testing.openai_fake import text_hash


class FakeOpenAI:
    """Starts the fake on a free port; use as a context manager. Calls block for about 1 ms.
    *inside*: what goes before its command line, as ``nsenter``.

    The process ends with ``close``, and also when its parent ends in whatever way.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", inside: Sequence[str] = (), **behaviour: Any
    ) -> None:
        self._start = behaviour
        self._host, self._inside = host, inside
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        """What OPENAI_BASE_URL should be."""

    def __enter__(self) -> FakeOpenAI:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> FakeOpenAI:
        command = [sys.executable, "-m", "unjam.testing.openai_fake", "--exit-on-eof"]
        self._process = subprocess.Popen(
            [*self._inside, *command, "--host", self._host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the fake endpoint did not start (exit {self._process.wait()})")
        if self._start:
            self.control(**self._start)
        return self

    def close(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def control(self, **changes: Any) -> None:
        """Change fields of ``Behaviour``; requests that hang are let go."""
        self._call("POST", "/control", changes)

    def reset(self) -> None:
        """Back to the behaviour it was started with; counts at zero."""
        self._call("POST", "/reset", {})
        if self._start:
            self.control(**self._start)

    def stats(self, *, texts: bool = False) -> dict[str, Any]:
        """Fields of ``Stats``, and ``distinct`` and ``repeated`` embedded texts."""
        return self._call("GET", "/stats?texts" if texts else "/stats", None)

    def times_embedded(self, text: str) -> int:
        """How often a vector of *text* (with its role prefix) was given."""
        return self.stats(texts=True)["per_text"].get(text_hash(text), 0)

    def _call(self, method: str, path: str, body: Any) -> dict[str, Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{path}: {answer}")
        return answer
