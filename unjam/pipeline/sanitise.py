"""Text is made clean once, before it is chunked, embedded, cached or stored.

NFKC (so that NFD file names, full-width forms and ligatures match what people type), no NUL, no
lone surrogates (neither JSON, SQL nor the tokenizers take them), no control characters but tab
and newline, and one kind of newline.
"""

from __future__ import annotations

import re
import unicodedata

SANITISER_VERSION = 1
"""Part of the embedding fingerprint: raise it whenever `sanitise` gives another result."""

_NEWLINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNWANTED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff\u00ad\u200b\u2060\ud800-\udfff]"
)


def sanitise(text: str) -> str:
    """*text* cleaned; idempotent. Whitespace is otherwise kept as it is.

    Soft hyphens, zero-width spaces and byte order marks go too: they split words that a reader
    sees whole. Zero-width joiners stay, as Indic scripts and emoji need them.
    """
    if not text.isascii() and not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    if _NEWLINES.search(text):
        text = _NEWLINES.sub("\n", text)
    if _UNWANTED.search(text):
        text = _UNWANTED.sub("", text)
        # What stood on both sides of a removed character may compose now.
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
    return text


def safe_cut(text: str, at: int) -> int:
    """The last place ≤ *at* where *text* may be cut without changing what `sanitise` makes of it.

    Never before a combining mark or a conjoining Hangul vowel or final (U+1160–U+11FF), as they
    compose with what stands before them, and never between a carriage return and its newline.
    """
    lowest = max(1, at - 256)
    cut = at
    while cut > lowest and cut < len(text) and not _starts_fresh(text, cut):
        cut -= 1
    return cut if cut > lowest else at


def _starts_fresh(text: str, at: int) -> bool:
    char = text[at]
    if char == "\n" and text[at - 1] == "\r":
        return False
    return not ("\u1160" <= char <= "\u11ff") and unicodedata.combining(char) == 0
