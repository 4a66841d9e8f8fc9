"""The reserve: goes when the disk is full, comes back with the room, and only once."""

from __future__ import annotations

from pathlib import Path

import pytest

from unjam.core.errors import DependencyDown
from unjam.stores.reserve import Reserve

MIB = 1_048_576


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the disk says is free, bytes."""
    now = [100 * MIB]
    monkeypatch.setattr(Reserve, "_free", lambda _: now[0])
    return now


def test_it_takes_its_room(tmp_path: Path, free: list[int]) -> None:
    reserve = Reserve(tmp_path, 2 * MIB)
    assert not reserve.stands
    reserve.restore()
    assert reserve.stands
    facts = reserve.file.stat()
    assert (facts.st_size, facts.st_blocks * 512 >= 2 * MIB) == (2 * MIB, True)
    assert [p.name for p in tmp_path.iterdir()] == ["reserve"]
    reserve.restore()  # idempotent


def test_it_goes_only_on_a_full_disk_and_once(tmp_path: Path, free: list[int]) -> None:
    reserve, other = Reserve(tmp_path, 2 * MIB), Reserve(tmp_path, 2 * MIB)
    reserve.restore()
    assert not reserve.release()  # some other trouble
    free[0] = 4096
    assert reserve.release()
    assert not other.release()
    with pytest.raises(DependencyDown) as caught:
        other.restore()
    assert caught.value.code == "ledger_unwritable"
    assert list(tmp_path.iterdir()) == []
    free[0] = 3 * MIB  # not all that is left is for it
    with pytest.raises(DependencyDown):
        other.restore()
    free[0] = 4 * MIB
    other.restore()
    assert reserve.stands


def test_none_is_wanted(tmp_path: Path, free: list[int]) -> None:
    free[0] = 0
    reserve = Reserve(tmp_path, 0)
    reserve.restore()
    assert reserve.stands and not reserve.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "gone", MIB)
    assert not reserve.release()
    with pytest.raises(DependencyDown):
        reserve.restore()
