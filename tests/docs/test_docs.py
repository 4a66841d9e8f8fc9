"""The documentation is complete in both languages, current, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unjam.core.reasons import REASONS
from unjam.core.tuning import KNOBS
from unjam.observe.alert_table import ALERTS
from unjam.observe.metrics import FAMILIES
from unjam.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in ROOT.glob("*.md")) + sorted(DOCS.rglob("*.md"))
LANGS = ("en", "ko")
HANGUL = re.compile("[가-힣]")


def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def page(lang: str, name: str) -> str:
    return text(f"docs/{lang}/{name}.md")


def test_both_languages_have_the_same_pages() -> None:
    en, ko = (
        {str(p.relative_to(DOCS / lang)) for p in (DOCS / lang).rglob("*.md")} for lang in LANGS
    )
    assert en == ko
    assert len(en) > 10


@pytest.mark.parametrize("path", sorted((DOCS / "ko").rglob("*.md")), ids=lambda p: p.stem)
def test_korean_pages_are_korean(path: Path) -> None:
    assert len(HANGUL.findall(path.read_text("utf-8"))) > 100


@pytest.mark.parametrize("path", sorted((DOCS / "ko").rglob("*.md")), ids=lambda p: p.stem)
def test_both_languages_have_the_same_shape(path: Path) -> None:
    """As many headings, tables' rows, code blocks and list items: neither lags behind."""
    other = DOCS / "en" / path.relative_to(DOCS / "ko")
    for mark in (r"^#+ ", r"^\|", r"^```", r"^(- |\d+\. )"):
        counts = [len(re.findall(mark, p.read_text("utf-8"), re.M)) for p in (path, other)]
        assert counts[0] == counts[1], mark


@pytest.mark.parametrize("script", ["docs.py", "deploy.py", "notices.py"])
def test_generated_pages_are_current(script: str) -> None:
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("lang", LANGS)
def test_everything_that_can_be_set_counted_or_met_is_documented(lang: str) -> None:
    settings = page(lang, "reference/settings")
    for field in Settings.model_fields.values():
        assert f"`{field.alias}`" in settings
    assert all(f"`{name}`" in settings for name in KNOBS)
    assert all(f"`{code}`" in page(lang, "reference/reasons") for code in REASONS)
    assert all(f"`{f.name}`" in page(lang, "reference/metrics") for f in FAMILIES)
    assert all(f"## {a.name}" in page(lang, "reference/alerts") for a in ALERTS)


_CODES = re.compile(r"""\bcode\s*=\s*["']([a-z_]+)["']""")


@pytest.mark.parametrize("lang", LANGS)
def test_every_error_code_in_the_source_is_documented(lang: str) -> None:
    known = page(lang, "reference/errors") + page(lang, "reference/reasons")
    used: dict[str, str] = {}
    for path in sorted((ROOT / "unjam").rglob("*.py")):
        if "testing" not in path.parts:
            used.update(dict.fromkeys(_CODES.findall(path.read_text("utf-8")), str(path)))
    assert len(used) > 20
    assert {code: at for code, at in used.items() if f"`{code}`" not in known} == {}


def test_every_command_is_documented_and_translated() -> None:
    def described(lang: str) -> dict[str, str]:
        sections = re.split(r"^## `unjam ([a-z]+)[^`]*`$", page(lang, "reference/cli"), flags=re.M)
        return dict(zip(sections[1::2], sections[2::2], strict=True))

    en, ko = described("en"), described("ko")
    assert set(en) == set(ko)
    assert {"up", "add", "list", "show", "search", "status", "why", "delete", "worker"} <= set(en)
    assert [name for name in ko if not HANGUL.search(ko[name])] == []


_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(path: Path) -> None:
    for target, _ in _LINK.findall(path.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_the_documents_exist(path: Path) -> None:
    """``make X`` is a target, ``unjam X`` a command that the reference knows."""
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.M))
    commands = set(re.findall(r"^## `unjam ([a-z]+)", page("en", "reference/cli"), re.M))
    body = path.read_text("utf-8")
    blocks = re.findall(r"^```(?:console|bash)\n(.*?)^```", body, re.M | re.S)
    said = "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", body)])
    assert set(re.findall(r"^make ([a-z]+)", said, re.M)) <= targets
    ours = set(re.findall(r"^(?:\S+\| )?(?:\.venv/bin/)?unjam ([a-z]+)\b", said, re.M))
    assert ours - commands <= {"parse"}  # the title of the parsing children


def test_the_readmes_agree() -> None:
    blocks = [re.findall(r"^```(\w*)$", text(name), re.M) for name in ("README.md", "README.ko.md")]
    assert blocks[0] == blocks[1]
    for name in ("README.md", "README.ko.md"):
        assert re.search(r"^make demo$", text(name), re.M)
        assert re.search(r"^make test$", text(name), re.M)


def test_the_runbooks_related_pages_lead_to_both_languages() -> None:
    for path in (
        "architecture/rag-system.md",
        "operations/worker-management.md",
        "operations/performance-tuning.md",
        "operations/redis-operations.md",
    ):
        links = [target for target, _ in _LINK.findall(text(f"docs/{path}"))]
        assert any(link.startswith("../en/") for link in links)
        assert any(link.startswith("../ko/") for link in links)
