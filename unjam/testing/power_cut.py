"""A disk whose power can be cut: what a file system had handed to it by then, and nothing else.

An ext4 in a file, mounted through a loop device. Its copy while it is mounted is what a machine
finds that lost its power at that moment: bytes nobody synced are not in it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SIZE_MB = 64
OWN_COMMIT_S = 300
"""ext4 syncs by itself after so long: not while a test looks."""


class CannotMount(Exception):
    """This machine lets nobody mount a file."""


@dataclass
class PowerCutDisk:
    folder: Path
    _image: Path
    _stack: ExitStack

    def cut(self) -> PowerCutDisk:
        """The disk as it is found after a power cut at this moment; this one stays in use."""
        number = len(list(self._image.parent.glob("*.img")))
        image = self._image.parent / f"{number}.img"
        shutil.copyfile(self._image, image)
        found = self._stack.enter_context(_mounted(image, self._image.parent / f"after-{number}"))
        return PowerCutDisk(found, image, self._stack)


@contextmanager
def power_cut_disk(folder: Path) -> Generator[PowerCutDisk]:
    """A disk mounted below *folder*, while the block lasts. Raises CannotMount."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "0.img"
    with image.open("wb") as file:
        file.truncate(SIZE_MB * 1_048_576)
    with ExitStack() as stack:
        _call("mkfs.ext4", "-q", str(image))
        mount = stack.enter_context(_mounted(image, folder / "disk"))
        yield PowerCutDisk(mount, image, stack)


@contextmanager
def _mounted(image: Path, folder: Path) -> Generator[Path]:
    folder.mkdir()
    _call("mount", "-o", f"loop,commit={OWN_COMMIT_S}", str(image), str(folder))
    try:
        yield folder
    finally:
        _call("umount", "-l", str(folder))


def _call(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        with suppress(AttributeError):
            error.add_note(str(getattr(error, "stderr", b"")))
        raise CannotMount(f"{' '.join(command[:1])}: {error}") from error
