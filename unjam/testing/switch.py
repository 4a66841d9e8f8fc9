"""Switch: hosts of their own on one machine, each a network namespace with a cable to one bridge.

Root is needed, and iproute2. Nothing of the machine's own network is touched but for one cable of
ours, in the range that is set aside for measurements (198.18.0.0/15, RFC 2544). What a killed run
left behind is removed by the next one that draws the same number.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

NUMBERS = range(1, 255)
OURS = 254
"""The last number of the address that this process has on the switch."""

NOWHERE = "02:00:00:00:00:01"
"""A network card that nobody has: what is sent there is lost without a word."""


def hindrance() -> str:
    """Why no switch can be had here; "": one can."""
    for tool in ("ip", "nsenter", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not here: apt-get install iproute2 util-linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"ujtry{os.getpid()}"
    tried = _ip("netns", "add", name, check=False)
    if tried.returncode == 0:
        tried = _ip("-n", name, "link", "add", "name", "mid", "type", "bridge", check=False)
        _ip("netns", "del", name, check=False)
    return tried.stderr.strip()


@dataclass
class Switch:
    """``with Switch() as switch``; *number* tells it from others at the same time.

    Raises:
        RuntimeError: 254 switches are in use; CalledProcessError: ``ip`` refused something.
    """

    number: int = 0
    _lock: int = -1
    _joined: dict[str, str] = field(default_factory=dict[str, str])

    def __enter__(self) -> Switch:
        for number in NUMBERS:
            lock = os.open(
                Path(tempfile.gettempdir()) / f"unjam-switch-{number}.lock", _LOCK, 0o600
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            self.number, self._lock = number, lock
            break
        else:
            raise RuntimeError("254 switches are in use")
        self._sweep()
        middle, cable = self.space("sw"), f"uj{self.number}me"
        _ip("netns", "add", middle)
        _ip("-n", middle, "link", "add", "name", "mid", "type", "bridge")
        _ip("-n", middle, "link", "set", "dev", "mid", "up")
        _ip("link", "add", "name", cable, "type", "veth", "peer", "name", "me", "netns", middle)
        _ip("-n", middle, "link", "set", "dev", "me", "master", "mid", "up")
        _ip("addr", "add", f"{self.address(OURS)}/24", "dev", cable)
        _ip("link", "set", "dev", cable, "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._sweep()
        os.close(self._lock)

    def _sweep(self) -> None:
        """End every process on the switch, and remove it."""
        begin = f"uj{self.number}"
        _ip("link", "del", f"{begin}me", check=False)
        listed = _ip("netns", "list").stdout.split("\n")
        names = [line.split()[0] for line in listed if line.strip()]
        for name in names:
            if name.startswith(begin) and not name[len(begin)].isdigit():
                for pid in self.processes(name.removeprefix(begin)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                _ip("netns", "del", name, check=False)

    def processes(self, name: str) -> list[int]:
        """Ids of what runs on host *name*."""
        listed = _ip("netns", "pids", self.space(name), check=False).stdout
        return [int(pid) for pid in listed.split()]

    def space(self, name: str) -> str:
        """The namespace of host *name*."""
        return f"uj{self.number}{name}"

    def address(self, last: int) -> str:
        return f"198.18.{self.number}.{last}"

    def join(self, name: str, *lasts: int) -> None:
        """A new host *name* (at most eight letters, the first no digit) with these addresses."""
        inside, middle = self.space(name), self.space("sw")
        _ip("netns", "add", inside)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", inside)
        _ip("link", "add", "name", name, "netns", middle, *cable)
        _ip("-n", middle, "link", "set", "dev", name, "master", "mid", "up")
        _ip("-n", inside, "link", "set", "lo", "up")
        for last in lasts:
            _ip("-n", inside, "addr", "add", f"{self.address(last)}/24", "dev", "eth0")
        _ip("-n", inside, "link", "set", "eth0", "up")

    def inside(self, name: str) -> list[str]:
        """What goes before a command so that it runs on host *name*; it becomes the command."""
        return ["nsenter", f"--net=/run/netns/{self.space(name)}"]

    def cut(self, name: str) -> None:
        """Pull the cable out at the switch: whoever waits for an answer waits on."""
        _ip("-n", self.space("sw"), "link", "set", "dev", name, "down")

    def heal(self, name: str) -> None:
        _ip("-n", self.space("sw"), "link", "set", "dev", name, "up")

    @contextlib.contextmanager
    def blocked(self, name: str, address: str) -> Generator[None]:
        """What host *name* sends to *address* is lost inside the block, and nothing else."""
        entry = (address, "dev", "eth0")
        inside = self.space(name)
        _ip("-n", inside, "neigh", "replace", *entry, "lladdr", NOWHERE, "nud", "permanent")
        try:
            yield
        finally:
            _ip("-n", inside, "neigh", "del", *entry)


_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    if check and done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done
