"""EML: who, when, about what; the body as text; attachments by name."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.html import html_sections
from unjam.pipeline.formats.text import markdown_sections
from unjam.pipeline.sections import Section

_MAX_BYTES = 256 << 20
_HEADERS = ("Subject", "From", "To", "Cc", "Date")
_KOREAN = {
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
    "ksc5601": "cp949",
    "x-windows-949": "cp949",
}


def eml(path: Path) -> Iterator[Section]:
    if path.stat().st_size > _MAX_BYTES:
        raise DocumentRejected("The mail is larger than 256 MiB.", code="parser_memory")
    raw = path.read_bytes()
    if raw.startswith(b"From "):  # an mbox line is no header
        raw = raw.partition(b"\n")[2]
    try:
        yield from _message(email.message_from_bytes(raw, policy=email.policy.default))
    except RecursionError:  # the standard library's parser recurses once a level
        raise DocumentRejected("Its parts are nested too deeply.", code="corrupt") from None


def _message(message: Message[Any, Any]) -> Iterator[Section]:
    subject = _header(message, "Subject") or "(no subject)"
    lines = [f"{name}: {text}\n" for name in _HEADERS if (text := _header(message, name))]
    yield Section("".join(lines) + "\n", section=subject, kind="heading")
    names: list[str] = []
    for part in _bodies(message, names):
        text = _decoded(part)
        if part.get_content_subtype() == "html":
            for section in html_sections(text):
                yield Section(section.text, None, subject, section.kind, section.header)
        else:
            for section in markdown_sections(iter(text.splitlines(keepends=True))):
                yield Section(section.text, None, subject, section.kind, section.header)
            yield Section("\n\n", section=subject)
    if names:
        yield Section("Attachments: " + ", ".join(names) + "\n\n", section=subject)


def _header(message: Message[Any, Any], name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, LookupError, AttributeError, IndexError, TypeError):
        return ""  # the header parser of the standard library stumbles over some spam


def _bodies(message: Message[Any, Any], names: list[str]) -> Iterator[Message[Any, Any]]:
    """Text parts in order, of alternatives the best one; fills *names* with the attachments'."""
    queue: list[Message[Any, Any]] = [message]
    while queue:
        part = queue.pop(0)
        kind = part.get_content_type()
        name = part.get_filename()
        if part.get_content_disposition() == "attachment" or (
            name and part.get_content_maintype() != "multipart"
        ):
            names.append(" ".join(str(name or kind).split()))
        elif kind == "multipart/alternative":
            queue[:0] = _preferred(_parts(part))
        elif part.is_multipart():
            queue[:0] = _parts(part)
        elif kind in ("text/plain", "text/html"):
            yield part


def _parts(part: Message[Any, Any]) -> list[Message[Any, Any]]:
    payload = part.get_payload()
    return [p for p in payload if isinstance(p, Message)] if isinstance(payload, list) else []


def _preferred(parts: list[Message[Any, Any]]) -> list[Message[Any, Any]]:
    """HTML before plain text: it keeps tables and headings; senders often leave plain empty."""
    for wanted in ("text/html", "multipart/related", "multipart/mixed", "text/plain"):
        for part in parts:
            if part.get_content_type() == wanted:
                return [part]
    return parts[-1:]


def _decoded(part: Message[Any, Any]) -> str:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    charset = (part.get_content_charset() or "utf-8").lower()
    for name in (_KOREAN.get(charset, charset), "utf-8", "cp949"):
        try:
            return raw.decode(name)
        except (LookupError, UnicodeDecodeError):
            continue
    return raw.decode("utf-8", "replace")
