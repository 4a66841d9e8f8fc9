"""What containers need of our processes: secrets from files, and a file that shows a live loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from unjam.app.alive import beating
from unjam.core.errors import SetupError
from unjam.settings import Settings
from unjam.testing.wait import until


def settings() -> Settings:
    return Settings()  # type: ignore[call-arg]


def test_a_variable_wins_over_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "RAG_REDIS_URL").write_text("redis://file:6379/5\n")
    (tmp_path / "ADMIN_TOKEN").write_text("of a file\n")
    (tmp_path / "RAG_CHROMA_URL").write_text("\n")
    (tmp_path / "something-else").write_text("x")
    monkeypatch.setenv("RAG_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("RAG_REDIS_URL", "redis://variable:6379/5")
    found = settings()
    assert found.redis_url == "redis://variable:6379/5"
    assert found.admin_token is not None
    assert found.admin_token.get_secret_value() == "of a file"
    assert found.chroma_url is None


def test_files_that_change_place_as_kubernetes_mounts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "..2026_11_23"
    version.mkdir()
    (version / "RAG_API_TOKEN").write_text("token")
    (tmp_path / "..data").symlink_to(version.name)
    (tmp_path / "RAG_API_TOKEN").symlink_to("..data/RAG_API_TOKEN")
    monkeypatch.setenv("RAG_SECRETS_DIR", str(tmp_path))
    token = settings().api_token
    assert token is not None and token.get_secret_value() == "token"


def test_a_folder_that_is_not_there_is_no_folder_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAG_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="RAG_SECRETS_DIR"):
        settings()


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = tmp_path / "RAG_API_TOKEN"
    shut.write_text("token")
    monkeypatch.setenv("RAG_SECRETS_DIR", str(tmp_path))
    # As root everything can be read: ask for what the kernel would answer to somebody else.
    really = os.access
    monkeypatch.setattr(os, "access", lambda p, m: Path(p) != shut and really(p, m))
    with pytest.raises(SetupError, match=r"RAG_API_TOKEN in .* cannot be read"):
        settings()


async def touched(file: Path) -> bool:
    return file.exists() and file.stat().st_mtime > 1


async def test_the_beat_goes_on_with_the_loop_and_ends_with_the_process(tmp_path: Path) -> None:
    file = tmp_path / "run" / "beat"
    async with beating(file, every_s=0.01):
        os.utime(file, (0, 0))
        await until("it is touched", lambda: touched(file), deadline_s=5)
        file.unlink()  # somebody clears /tmp
        await until("it is there again", lambda: touched(file), deadline_s=5)
    assert not file.exists()


async def test_without_a_file_there_is_no_beat() -> None:
    before = len(asyncio.all_tasks())
    async with beating(None):
        assert len(asyncio.all_tasks()) == before


async def test_a_beat_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="RAG_BEAT_FILE"):
        async with beating(tmp_path / "file" / "beat"):
            pass
