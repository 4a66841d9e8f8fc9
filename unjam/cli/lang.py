"""English or Korean: ``--lang`` anywhere on the command line, else RAG_LANG, else English."""

from __future__ import annotations

import os
import sys


def _chosen(arguments: list[str]) -> str:
    for n, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--lang" and n + 1 < len(arguments):
            return arguments[n + 1]
        if argument.startswith("--lang="):
            return argument.partition("=")[2]
    return os.environ.get("RAG_LANG", "en")


LANG = "ko" if _chosen(sys.argv[1:])[:2].lower() == "ko" else "en"


def t(en: str, ko: str) -> str:
    """The one of the two that the user reads."""
    return ko if LANG == "ko" else en


def without_lang(arguments: list[str]) -> list[str]:
    """The arguments without ``--lang``, so that it may stand anywhere.

    Raises:
        ValueError: ``--lang`` names another language.
    """
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*kept, argument, *rest]
        if argument == "--lang" or argument.startswith("--lang="):
            value = argument.partition("=")[2] if "=" in argument else next(rest, "")
            if value[:2].lower() not in ("en", "ko"):
                raise ValueError(value)
        else:
            kept.append(argument)
    return kept
