"""Where the runbook is walked: its own ports, its ``/var/log``, its ``ps`` and ``pkill``.

Where the kernel lets us, all of it happens in namespaces of its own (processes, network, mounts):
the ports are free, ``/var/log`` is a folder of the test, no request leaves, and ``pkill -f "rq
worker"`` meets nobody else's workers. Elsewhere it happens on the machine itself, provided that the
ports are free and nobody else's worker runs; ``/var/log`` is then replaced in the commands.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PORTS = (6379, 8000, 8002, 9181)
TOOLS = ("redis-cli", "curl", "jq", "awk", "grep", "ps", "pkill", "free", "watch")
BIN = Path(sys.executable).parent
LOGS = "/var/log"

INIT = """\
import fcntl, os, signal, socket, struct, subprocess, sys
with socket.socket() as s:  # the loopback of a fresh network namespace is down
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))
subprocess.run(["mount", "--bind", sys.argv[1], "/var/log"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)  # no systemd, no Docker
print("ready", flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:  # orphans are ours
    try:
        os.wait()
    except ChildProcessError:
        signal.sigtimedwait({signal.SIGCHLD}, 0.2)
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def number(self) -> int:
        return int(self.out)


class Ground:
    """Runs shell text; ``sh`` waits for its end, ``screen`` watches what never ends."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.logs = folder / "log"
        self.work = folder / "work"
        for made in (self.home, self.logs, self.work):
            made.mkdir(parents=True)
        self._enter: list[str] = []
        self._init: subprocess.Popen[str] | None = None
        self._sessions: set[int] = set()
        self.env: dict[str, str] = {
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "COLUMNS": "200",
            "LINES": "60",
        }

    @property
    def isolated(self) -> bool:
        return self._init is not None

    def open(self) -> Ground:
        """Raises pytest's skip, with the reason, where it cannot be walked."""
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            pytest.skip(f"the runbook's tools are missing: {', '.join(missing)}")
        if not self._isolate():
            self._check_machine()
        return self

    def _isolate(self) -> bool:
        root = os.geteuid() == 0
        user = [] if root else ["-U", "-r"]
        if shutil.which("unshare") is None or shutil.which("nsenter") is None:
            return False
        python = [sys.executable, "-I", "-c", INIT, str(self.logs)]
        command = ["unshare", *user, "-p", "-f", "-n", "-m", "--mount-proc", "--kill-child"]
        init = subprocess.Popen(
            [*command, *python], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert init.stdout is not None
        if init.stdout.readline().strip() != "ready":
            init.wait(10)
            return False
        inner = str(_children(init.pid)[0])
        same = [] if root else ["-U", "--preserve-credentials"]
        self._enter = ["nsenter", "-t", inner, *same, "-p", "-n", "-m", "--"]
        self._init = init
        return True

    def _check_machine(self) -> None:
        for port in PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    pytest.skip(f"port {port} is taken, and this kernel gives us no other network")
        if subprocess.run(["pgrep", "-f", "rq worker"], capture_output=True).returncode == 0:
            pytest.skip('somebody\'s workers run here, and `pkill -f "rq worker"` would end them')

    def _prepared(self, text: str) -> str:
        return text if self.isolated else text.replace(LOGS, str(self.logs))

    def start(self, text: str, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Begin *text* in a session of its own; its output goes to *log*."""
        with log.open("ab") as out:
            return self._popen(text, out, out, env)

    def _popen(self, text, out, err, env) -> subprocess.Popen:  # type: ignore[no-untyped-def]
        # Through standard input, as at a terminal: in `bash -c` the words "rq worker" would stand
        # in the shell's own arguments, and pkill would end it.
        with tempfile.TemporaryFile() as script:
            script.write(self._prepared(text).encode() + b"\n")
            script.seek(0)
            process = subprocess.Popen(
                [*self._enter, "bash", "-s"],
                stdin=script,
                stdout=out,
                stderr=err,
                env={**self.env, **(env or {})},
                cwd=self.work,
                start_new_session=True,
            )
        self._sessions.add(process.pid)
        return process

    def terminate(self, process: subprocess.Popen) -> int:  # type: ignore[type-arg]
        """SIGTERM to what was ``start``-ed with exec; its exit status."""
        inner = _children(process.pid) if self.isolated else [process.pid]
        for pid in inner:
            os.kill(pid, signal.SIGTERM)
        return process.wait(60)

    def sh(self, text: str, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> Said:
        """Run *text* in bash; what it left in the background runs on."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self._popen(text, out, err, env).wait(timeout_s)
            return Said(code, *(_text(f) for f in (out, err)))

    def screen(self, text: str, pattern: str, deadline_s: float = 20) -> str:
        """Run *text* on a terminal until it shows *pattern*, then end it; what it showed."""
        master, slave = pty.openpty()
        process = self._popen(text, slave, slave, None)
        os.close(slave)
        os.set_blocking(master, False)
        shown, deadline = "", time.monotonic() + deadline_s
        try:
            while not re.search(pattern, shown):
                assert time.monotonic() < deadline, f"{pattern!r} never came: {shown!r}"
                try:
                    shown += os.read(master, 65536).decode(errors="replace")
                except BlockingIOError:
                    time.sleep(0.02)
        finally:
            # nsenter waits for what it started: its group is this one, inside and out.
            os.killpg(process.pid, 9)
            process.wait()
            os.close(master)
        return shown

    def close(self) -> None:
        """Nothing that was started here outlives this."""
        if self._init is not None:
            self._init.kill()  # with --kill-child: and everything in there with it
            self._init.wait()
            assert self._init.stdout is not None
            self._init.stdout.close()
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 20
            for pid in self._left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while self._left() and time.monotonic() < deadline:
                time.sleep(0.1)

    def _left(self) -> list[int]:
        """Living processes of the sessions that began here."""
        found: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] not in "ZX" and int(fields[3]) in self._sessions:
                    found.append(int(stat.parent.name))
        return found


def _children(pid: int) -> list[int]:
    return [int(row) for row in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _text(file) -> str:  # type: ignore[no-untyped-def]
    file.seek(0)
    return file.read().decode(errors="replace").strip()
