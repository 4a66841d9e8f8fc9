"""Every command that is printed for a person to type exists, with the options that it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from unjam.cli.main import app
from unjam.core.causes import CAUSES
from unjam.core.codes import PROBLEMS
from unjam.core.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    p
    for folder, ends in (("unjam", ".py"), ("unjam", ".html"), ("docs", ".md"), ("deploy", ""))
    for p in (ROOT / folder).rglob(f"*{ends}")
    if p.is_file() and "__pycache__" not in p.parts
) + sorted(ROOT.glob("README*.md"))
INNER = {"api", "spare", "parse", "dashboard"}
"""Titles of processes and pages, not commands that somebody types with options."""
NAMED = re.compile(r"`unjam ([a-z][^`\n]*)`|<code>unjam ([a-z][^<\n]*)</code>")
STRING = re.compile(r"""["']unjam ([a-z][^"'\n]*)["']""")
"""A whole string: a command, or the beginning of a sentence."""


def complaint(said: str) -> str:
    """What is wrong with ``unjam *said*``; "" : nothing."""
    words = re.split(r"\s+", said.split("|")[0].split("#")[0].split(">")[0].strip())
    here: Any = get_command(app)
    path: list[str] = []
    while hasattr(here, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in here.commands:
            return f"no command {' '.join([*path, name])!r}"
        here, path = here.commands[name], [*path, name]
    known = {o for p in here.params for o in (*p.opts, *p.secondary_opts)}
    known |= {"-h", "--help", "--lang"}
    for word in words:
        option = word.partition("=")[0].rstrip(".,:;)")
        if re.fullmatch(r"--?[a-z][a-z-]*", option) and option not in known:
            return f"{' '.join(path)!r} has no option {option}"
    return ""


def test_the_commands_of_causes_reasons_and_errors() -> None:
    texts = [c.command for c in CAUSES.values()]
    texts += [c.advice for c in CAUSES.values()] + [c.advice_ko for c in CAUSES.values()]
    texts += [r.hint for r in REASONS.values()] + [w.hint for w in PROBLEMS.values()]
    said = [c.removeprefix("unjam ") for c in texts if c.startswith("unjam ")]
    said += [m for text in texts for m in re.findall(r"`unjam ([^`]+)`", text)]
    assert len(said) > 20
    assert {s: complaint(s) for s in said if complaint(s)} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_of_a_file(path: Path) -> None:
    wrong: dict[str, str] = {}
    text = path.read_text("utf-8", errors="replace")
    for said in (next(g for g in m.groups() if g) for m in NAMED.finditer(text)):
        if said.split()[0] not in INNER and complaint(said):
            wrong[said] = complaint(said)
    for said in STRING.findall(text):
        if "has no option" in complaint(said):
            wrong[said] = complaint(said)
    assert wrong == {}
