"""multilingual-e5-small on this machine's processor, through ONNX Runtime.

One thread of its own per process, one text at a time: the wall is integer arithmetic, so batches
gain 4 % at 200 tokens, while alone no text is padded and a vector is a function of its text.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from unjam.core.errors import DependencyDown, DocumentRejected, SetupError
from unjam.core.ports import Vectors
from unjam.embedding.fingerprint import LOCAL_DIMENSION, LOCAL_MAX_TOKENS
from unjam.embedding.model_build import ModelFiles, ensure_model
from unjam.embedding.model_weights import Q4_BLOCK, unpack_q4

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

_SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""ONNX Runtime 1.32 fuses Add + LayerNormalization into an operator that it computes without
vector instructions: 9.7 instead of 2.1 ms of each 200-token text."""


@dataclass(frozen=True, slots=True)
class Model:
    session: InferenceSession
    tokenizer: Tokenizer
    words: NDArray[Any]
    positions: Vectors


class LocalProvider:
    """Provider over the local model; it is built, then loaded, at the first call.

    Raises:
        DocumentRejected: (embedding_refused) a text has more than 512 tokens; nothing is ever cut.
        DependencyDown: (embedding_down) the model can neither be found nor built.
    """

    def __init__(self, locate: Callable[[], ModelFiles] = ensure_model) -> None:
        self._locate = locate
        self._model: Model | None = None
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="unjam-embed")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._embed, tuple(texts))

    async def warm_up(self) -> None:
        """Load the model now, so that the first text does not wait for it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._loaded)

    async def close(self) -> None:
        self._closing.set()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
        self._model = None

    def _loaded(self) -> Model:
        if self._model is None:
            try:
                self._model = load(self._locate())
            except (SetupError, OSError) as error:
                raise DependencyDown(
                    f"The local model cannot be loaded: {error}",
                    code="embedding_down",
                    hint=getattr(error, "hint", ""),
                    retry_after_s=15.0,
                ) from error
        return self._model

    def _embed(self, texts: tuple[str, ...]) -> Vectors:
        model = self._loaded()
        vectors = np.empty((len(texts), LOCAL_DIMENSION), np.float32)
        for row, text in enumerate(texts):
            if self._closing.is_set():
                raise DependencyDown("The local model is closing", code="embedding_down")
            vectors[row] = _embed_one(model, text)
        return vectors


def load(files: ModelFiles) -> Model:
    """Open a finished build; the word table is mapped, so processes share it."""
    from tokenizers import Tokenizer

    words = np.memmap(files.words, dtype=Q4_BLOCK, mode="r")
    return Model(
        session=open_session(files.onnx),
        tokenizer=Tokenizer.from_file(str(files.tokenizer)),
        words=words.reshape(-1, LOCAL_DIMENSION // 32),
        positions=np.load(files.positions),
    )


def open_session(path: str | os.PathLike[str]) -> InferenceSession:
    """ONNX Runtime with one thread that does not spin, and without its slow fusions."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Lengths differ from text to text: a memory plan per shape would only grow.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        os.fspath(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=_SLOW_FUSIONS,
    )


def embed_tokens(model: Model, ids: Sequence[int]) -> Vectors:
    """The vector of one text, shape (384,), from its token ids."""
    states = unpack_q4(model.words[np.asarray(ids)])
    states += model.positions[: len(ids)]
    outputs = cast("list[Vectors]", model.session.run(["emb"], {"x": states[None]}))
    return outputs[0][0]


def _embed_one(model: Model, text: str) -> Vectors:
    ids = model.tokenizer.encode(text).ids
    if len(ids) > LOCAL_MAX_TOKENS:
        raise DocumentRejected(
            f"A text of {len(ids)} tokens exceeds the local model's {LOCAL_MAX_TOKENS}",
            code="embedding_refused",
        )
    return embed_tokens(model, ids)
