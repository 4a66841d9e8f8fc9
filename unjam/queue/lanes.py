"""Lanes: their names, which document goes into which, and in which order they are served. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from unjam.core.errors import UsageError

HIGH = "rag_high"
PROCESSING = "rag_processing"
LOW = "rag_low"
LARGE = "rag_large_docs"
BULK = "rag_bulk"
"""What `unjam bulk` takes in; its own workers serve it."""
DEAD = "rag_dlq"

DEFAULT_LANES = (HIGH, PROCESSING, LOW, LARGE)
"""What a worker serves unless told otherwise; ``rag_dlq`` is never served."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_SHORT: Mapping[str, str] = {
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/msword": "doc",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.ms-excel": "xls",
    "application/epub+zip": "epub",
    "application/json": "json",
    "application/x-hwp": "hwp",
    "application/vnd.hancom.hwp": "hwp",
    "application/haansofthwp": "hwp",
    "application/hwp+zip": "hwpx",
    "application/vnd.hancom.hwpx": "hwpx",
    "application/haansofthwpx": "hwpx",
    "message/rfc822": "eml",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "text/csv": "csv",
}


def lane_for(
    size_bytes: int,
    media_type: str,
    *,
    large_bytes: int,
    type_queues: Mapping[str, str] | None = None,
) -> str:
    """The lane of a new document: large ones apart, then by file type, else ``rag_processing``.

    *type_queues* maps short type names (``pdf``) or media types to lanes.
    """
    if size_bytes > large_bytes:
        return LARGE
    if type_queues:
        media = media_type.split(";", 1)[0].strip().lower()
        for name in (media, _SHORT.get(media, ""), media.rpartition("/")[2]):
            if name in type_queues:
                return type_queues[name]
    return PROCESSING


def parse_type_queues(text: str) -> dict[str, str]:
    """``pdf=rag_pdf,docx=rag_office`` → ``{"pdf": "rag_pdf", "docx": "rag_office"}``.

    Raises:
        UsageError: an entry that is not ``type=lane``, a type named twice, a name that no lane
            can have.
    """
    hint = "Write RAG_TYPE_QUEUES as type=lane pairs, e.g. `pdf=rag_pdf,docx=rag_office`."
    lanes: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        kind, equals, lane = (piece.strip() for piece in part.partition("="))
        kind = kind.lower().removeprefix(".")
        if not equals or not kind:
            raise UsageError(f"RAG_TYPE_QUEUES: {part.strip()!r} is not type=lane", hint=hint)
        if kind in lanes:
            raise UsageError(f"RAG_TYPE_QUEUES names {kind!r} twice", hint=hint)
        lanes[kind] = check_lane(lane)
    return lanes


def check_lane(name: str) -> str:
    """*name*, when documents may wait in a lane of that name.

    Raises:
        UsageError: it is no possible name, or ``rag_dlq``.
    """
    if name == DEAD:
        raise UsageError(
            f"{DEAD} holds dead letters; it cannot be a lane",
            hint="Choose another name; `unjam dlq retry` puts dead letters back to work.",
        )
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a lane",
            hint="Use up to 64 letters, digits, `_`, `-` and `.`.",
        )
    return name


def serving_order(lanes: Sequence[str], turn: int) -> list[str]:
    """The order in which take number *turn* (0, 1, 2 …) asks the lanes.

    High, then the rest in turn, then low. Every eighth take begins with low and every other
    fourth with the rest, so nothing starves however full the lanes before it are.
    """
    served = [name for name in dict.fromkeys(lanes) if name != DEAD]
    high = [name for name in served if name == HIGH]
    low = [name for name in served if name == LOW]
    rest = [name for name in served if name not in (HIGH, LOW)]
    if rest:
        # Turns that begin with the rest are 8 apart: by the turn itself they could miss a lane.
        first = (turn // 8 if turn % 4 == 3 else turn) % len(rest)
        rest = rest[first:] + rest[:first]
    if turn % 8 == 7:
        return [*low, *high, *rest]
    if turn % 4 == 3:
        return [*rest, *high, *low]
    return [*high, *rest, *low]
