"""Counting tokens exactly as the model in use counts them."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Protocol

from unjam.core.errors import SetupError

LOCAL_PREFIX = "passage: "
"""What the local model (E5) wants in front of every passage; it counts like any other text."""

LOCAL_LIMIT = 512
"""Positions of multilingual-e5-small, special tokens included: what is longer is cut silently."""


class TokenCounter(Protocol):
    """Counts a text as the model will see it, with its prefix and special tokens."""

    limit: int  # most tokens the model takes

    def count(self, text: str) -> int: ...


class OpenAICounter:
    """Byte-pair encodings of OpenAI, in Rust, from a file inside the wheel."""

    limit = 8191

    def __init__(self, encoding: str) -> None:
        # The raw binding: the tiktoken-like class around it copies all ranks into Python dicts
        # (0.2 s, 40 MB) and refuses texts of more than 20,000 tokens; this counts any length.
        from bpe_openai import _bindings

        try:
            self._tokenizer = _bindings.tokenizer_for_encoding(encoding)
        except Exception as error:
            raise SetupError(
                f"Unknown OpenAI encoding {encoding!r}: {error}",
                hint=f"Known are {', '.join(_bindings.supported_encodings())}.",
            ) from None

    def count(self, text: str) -> int:
        return self._tokenizer.count(text)


class LocalCounter:
    """The local model's own tokenizer, from the ``tokenizer.json`` in the model cache."""

    limit = LOCAL_LIMIT

    def __init__(self, path: str) -> None:
        # Its thread pool would make the parent of the parsing children multi-threaded.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(path)
        except Exception as error:
            raise SetupError(
                f"The local model's tokenizer cannot be read at {path}: {error}",
                hint="Remove the model folder; it is built again at the next start.",
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(LOCAL_PREFIX + text))


@lru_cache(maxsize=8)
def token_counter(name: str) -> TokenCounter:
    """The counter for ``local:<path of tokenizer.json>`` or ``openai:<encoding>``.

    A bare encoding name ("cl100k_base") is taken as OpenAI's. Raises SetupError.
    """
    kind, colon, rest = name.partition(":")
    if kind == "local" and rest:
        return LocalCounter(rest)
    if kind == "openai" or not colon:
        return OpenAICounter(rest or name)
    raise SetupError(f"Unknown tokenizer {name!r}.", hint="Use local:<path> or openai:<encoding>.")
