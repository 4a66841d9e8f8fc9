"""What callers send along with their bytes, made safe: names, labels, metadata."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any, cast

from unjam.core.errors import UsageError

MAX_NAME_CHARS = 255
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_KEY_CHARS = 128
MAX_LABEL_CHARS = 255

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DROPPED = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean_filename(raw: str) -> str:
    """A name fit for showing: last path part, NFC (macOS sends NFD), no control characters.

    It is a label and never used as a path. At most 255 characters, the extension kept.
    """
    name = raw.replace("\\", "/").rsplit("/", 1)[-1]
    name = _printable(unicodedata.normalize("NFC", name)).strip()
    if not name.strip("."):
        return "document"
    if len(name) > MAX_NAME_CHARS:
        stem, dot, extension = name.rpartition(".")
        keep = dot + extension if stem and len(extension) <= 16 else ""
        name = name[: MAX_NAME_CHARS - len(keep)] + keep
    return name


def clean_label(raw: str, what: str) -> str:
    """A user id or Idempotency-Key: NFC, trimmed.

    Raises:
        UsageError: too long or unprintable.
    """
    text = unicodedata.normalize("NFC", raw).strip()
    if len(text) > MAX_LABEL_CHARS or _printable(text) != text:
        raise UsageError(
            f"{what} must be at most {MAX_LABEL_CHARS} printable characters", code="invalid_label"
        )
    return text


def parse_metadata(raw: str | bytes) -> dict[str, Any]:
    """The caller's metadata: a JSON object of scalars and lists of scalars, at most 16 KiB.

    Raises:
        UsageError: anything else; the message names the key.
    """
    size = len(raw) if isinstance(raw, bytes) else len(raw.encode("utf-8", "surrogatepass"))
    if size > MAX_METADATA_BYTES:
        raise _bad_metadata(f"metadata is larger than {MAX_METADATA_BYTES} bytes")
    try:
        value = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad_metadata(f"metadata is not JSON: {error}") from None
    return check_metadata(value)


def check_metadata(value: object) -> dict[str, Any]:
    """*value* if it is valid metadata; see :func:`parse_metadata`."""
    if not isinstance(value, dict):
        raise _bad_metadata("metadata must be a JSON object")
    for key, item in cast("dict[Any, Any]", value).items():
        if not isinstance(key, str) or not 0 < len(key) <= MAX_METADATA_KEY_CHARS:
            raise _bad_metadata(f"metadata keys have 1 to {MAX_METADATA_KEY_CHARS} characters")
        values = cast("list[Any]", item) if isinstance(item, list) else [item]
        if not (_is_clean(key) and all(_is_scalar(v) for v in values)):
            raise _bad_metadata(f"metadata {key!a} must be a scalar or a list of scalars")
    return cast("dict[str, Any]", value)


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return _is_clean(value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63  # the vector store's integers
    return isinstance(value, float) and math.isfinite(value)


def _is_clean(text: str) -> bool:
    """No NUL and no lone surrogate: databases refuse them."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _bad_metadata(detail: str) -> UsageError:
    return UsageError(detail, code="invalid_metadata")


def _printable(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) not in _DROPPED and c not in _BIDI)
