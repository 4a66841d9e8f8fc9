"""How fast one Chroma server takes vectors: client, encoding, batch size, text field, writers.

Run ``python -m bench.chroma_wall``; it starts a server of its own in a temporary folder. Every row
is one measurement on a fresh collection: upserts per second, and the server's CPU ms per row.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

ROOT = "/api/v2/tenants/default_tenant/databases/default_database/collections"
WORDS = ("index", "vector", "document", "문서", "검색", "처리", "queue", "대기열", "store", "벡터")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def chroma_server(path: Path) -> Iterator[tuple[str, int]]:
    """A ``chroma run`` child on a free port; gives (url, pid)."""
    port = free_port()
    child = subprocess.Popen(
        [Path(sys.executable).with_name("chroma"), "run", "--path", path, "--host", "127.0.0.1",
         "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "ANONYMIZED_TELEMETRY": "FALSE"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/api/v2/heartbeat").is_success:
                    break
            if time.monotonic() > until:
                raise TimeoutError("chroma run did not come up in 30 s")
            time.sleep(0.05)
        yield url, child.pid
    finally:
        child.kill()
        child.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    client: str  # "http" raw, "chromadb"
    encoding: str  # "base64" or "numpy"
    batch: int
    text: str  # "documents", "metadata", "none"
    writers: int = 1
    sync_threshold: int = 1000
    hnsw_batch: int = 100
    text_chars: int = 1200


def rows(n: int, case: Case) -> tuple[list[str], np.ndarray, list[dict[str, Any]], list[str]]:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((n, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [
        " ".join(WORDS[j] for j in rng.integers(0, len(WORDS), case.text_chars // 5))[
            : case.text_chars
        ]
        for _ in range(n)
    ]
    metas: list[dict[str, Any]] = [
        {"document_id": f"d{i // 4}", "generation": 1, "index": i % 4, "user_id": "u",
         "section": "", "page": 1}
        for i in range(n)
    ]  # fmt: skip
    if case.text == "metadata":
        metas = [m | {"text": t} for m, t in zip(metas, texts, strict=True)]
    return [secrets.token_hex(16) for _ in range(n)], vectors, metas, texts


def body(case: Case, part: slice, data: tuple[Any, ...]) -> bytes:
    ids, vectors, metas, texts = data
    block = vectors[part]
    out: dict[str, Any] = {"ids": ids[part], "metadatas": metas[part]}
    if case.encoding == "base64":
        out["embeddings"] = [base64.b64encode(v.tobytes()).decode() for v in block]
    else:
        out["embeddings"] = block
    if case.text == "documents":
        out["documents"] = texts[part]
    return orjson.dumps(out, option=orjson.OPT_SERIALIZE_NUMPY)


def create(url: str, case: Case) -> tuple[str, str]:
    name = f"wall-{secrets.token_hex(4)}"
    made = httpx.post(
        url + ROOT,
        json={
            "name": name,
            "get_or_create": True,
            "configuration": {
                "hnsw": {
                    "space": "cosine",
                    "sync_threshold": case.sync_threshold,
                    "batch_size": case.hnsw_batch,
                }
            },
        },
    )
    made.raise_for_status()
    return name, made.json()["id"]


async def raw(url: str, case: Case, data: tuple[Any, ...], n: int) -> None:
    _, cid = create(url, case)
    parts = iter([slice(i, i + case.batch) for i in range(0, n, case.batch)])

    async def writer(client: httpx.AsyncClient) -> None:
        for part in parts:
            answer = await client.post(f"{ROOT}/{cid}/upsert", content=body(case, part, data))
            answer.raise_for_status()

    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=headers) as client:
        await asyncio.gather(*(writer(client) for _ in range(case.writers)))


def library(url: str, case: Case, data: tuple[Any, ...], n: int) -> None:
    import chromadb

    name, _ = create(url, case)
    host, port = url.removeprefix("http://").split(":")
    client = chromadb.HttpClient(host, int(port))
    collection = client.get_collection(name, embedding_function=None)
    ids, vectors, metas, texts = data
    for i in range(0, n, case.batch):
        part = slice(i, i + case.batch)
        collection.upsert(
            ids=ids[part],
            embeddings=vectors[part],
            metadatas=metas[part],
            documents=texts[part] if case.text == "documents" else None,
        )


def measure(url: str, pid: int, case: Case, n: int) -> dict[str, Any]:
    data = rows(n, case)
    if case.client == "chromadb":
        library(url, case, rows(8, case), 8)  # import and first connection stay out of it
    before, start = cpu_s(pid), time.perf_counter()
    if case.client == "chromadb":
        library(url, case, data, n)
    else:
        asyncio.run(raw(url, case, data, n))
    wall = time.perf_counter() - start
    return asdict(case) | {
        "rows": n,
        "per_s": round(n / wall),
        "server_cpu_ms": round((cpu_s(pid) - before) / n * 1000, 3),
    }


def cases() -> list[Case]:
    out = [Case("http", "base64", b, "documents") for b in (32, 100, 300, 500)]
    out += [Case("http", "base64", b, "metadata") for b in (32, 100, 300, 500)]
    out += [Case("http", "base64", b, "none") for b in (100, 500)]
    out += [Case("http", "numpy", b, "metadata") for b in (100, 300)]
    out += [Case("chromadb", "base64", b, "documents") for b in (32, 100, 300)]
    out += [Case("http", "base64", 100, "metadata", writers=w) for w in (2, 4)]
    out += [Case("http", "base64", 100, "documents", writers=w) for w in (2, 4)]
    out += [
        Case("http", "base64", 100, "metadata", sync_threshold=s, hnsw_batch=b)
        for s, b in ((5000, 100), (5000, 1000), (50_000, 5000), (300, 100))
    ]
    return out


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--rows", type=int, default=3000)
    ask.add_argument("--out", type=Path, default=Path("bench/out/chroma_wall.json"))
    args = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder, chroma_server(Path(folder)) as (url, pid):
        results = []
        for case in cases():
            result = measure(url, pid, case, args.rows)
            results.append(result)
            print(
                f"{case.client:9}{case.encoding:7} batch {case.batch:4}  {case.text:10} "
                f"writers {case.writers}  sync {case.sync_threshold:6}/{case.hnsw_batch:<5}"
                f"{result['per_s']:6}/s  server {result['server_cpu_ms']:.2f} ms/row",
                flush=True,
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
