"""The shapes of actions: a question with the exact number, and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from unjam.web.dashboard.render import Ctx

Fields = Mapping[str, str]
BY = "dashboard"


@dataclass(frozen=True, slots=True)
class Question:
    """*text*: what will happen, to how many; *fields* go back with the confirmation; *back*: the
    page to return to. *possible* False: there is nothing to confirm."""

    title: str
    text: tuple[str, ...]
    confirm: str
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    danger: bool = False
    back: str = "/"
    possible: bool = True
    command: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What happened."""

    text: str
    back: str = "/"


@dataclass(frozen=True, slots=True)
class Action:
    ask: Callable[[Ctx, Fields], Awaitable[Question]]
    do: Callable[[Ctx, Fields], Awaitable[Answer]]
