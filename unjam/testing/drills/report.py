"""What a drill saw: a timeline, how long things took, and every promise with what became of it.

Words are in both languages side by side, since the same report is printed in either.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """*at_s*: seconds since the system was up."""

    at_s: float
    en: str
    ko: str


@dataclass(frozen=True, slots=True)
class Promise:
    """*seen*: what was found instead, when it was not held."""

    en: str
    ko: str
    held: bool
    seen: str = ""


@dataclass
class DrillReport:
    """*noticed_s* counts from the fault's beginning, *recovered_s* from its end until every
    document that was accepted so far stood at its right end. None: it never happened."""

    name: str
    entries: list[Entry] = field(default_factory=list[Entry])
    promises: list[Promise] = field(default_factory=list[Promise])
    noticed_s: float | None = None
    noticed_by: str = ""
    recovered_s: float | None = None
    documents: int = 0
    lost: int = 0
    took_s: float = 0.0
    story: str = ""
    """What the checks found broken, in full; empty when nothing was."""

    @property
    def ok(self) -> bool:
        return bool(self.promises) and all(p.held for p in self.promises)

    def broken(self) -> list[Promise]:
        return [p for p in self.promises if not p.held]

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        """In English, for a failed test."""
        lines = [f"drill {self.name}: noticed {self.noticed_s}, recovered {self.recovered_s}"]
        lines += [f"{e.at_s:7.2f} s  {e.en}" for e in self.entries]
        lines += [f"{'held  ' if p.held else 'BROKEN'} {p.en}  {p.seen}" for p in self.promises]
        return "\n".join([*lines, self.story])
