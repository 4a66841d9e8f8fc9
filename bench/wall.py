"""How far from the wall: Chroma's one writer by itself, and the whole system on large documents.

    python -m bench.wall [--files 20] [--repeat 3]

The wall: the very requests that the system makes of Chroma (its rows, as many per request as it
puts together at most), encoded beforehand and sent one after the other to an empty server. The
system: ``unjam add --wait`` of files of 2 MB, with an endpoint that answers at once, timed from
its start to the last file being searchable.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import httpx

from bench.chroma_wall import ROOT, chroma_server, cpu_s
from bench.corpus import GIANT_BYTES, make_corpus, text_of
from bench.house import house
from bench.report import median, table, write_json
from unjam.core.chunk import Chunk, chunk_id
from unjam.core.ports import ChunkRow
from unjam.stores.chroma_rows import encode_upsert
from unjam.stores.vectors_chroma import CONFIGURATION, ROWS_PER_REQUEST
from unjam.testing.fake_vectors import latent_vectors

DIMENSION = 384
GOAL = 1 / 1.25
"""The promise: within 25 % of the wall."""


def system(folder: str, latency_ms: float) -> tuple[float, int, dict[str, float]]:
    """Seconds, chunks, CPU seconds by role."""
    with house(latency_ms=latency_ms, dimension=DIMENSION) as ours:
        warm = Path(folder).parent / "warm.txt"
        warm.write_text("So that every process has loaded what it needs.\n")
        ours.command("add", str(warm), "--wait")
        texts, before = ours.fake.stats()["texts"], ours.cpu_s()
        took_s = ours.command("add", folder, "--wait", limit_s=1800).wall_s
        used = {role: s - before.get(role, 0.0) for role, s in ours.cpu_s().items()}
        return took_s, ours.fake.stats()["texts"] - texts, used


def bodies(files: int, chunks: int, rows_each: int) -> list[bytes]:
    """As many chunks of the same texts, encoded as the system encodes them."""
    each = max(1, chunks // files)
    rows: list[ChunkRow] = []
    for number in range(files):
        text = text_of(number, GIANT_BYTES)
        size = len(text) // each + 1
        name = f"0190{number:028x}"
        for index in range(each):
            piece = text[index * size : (index + 1) * size]
            chunk = Chunk(index, piece, 1000, index * size, index * size + len(piece))
            rows.append(ChunkRow(chunk_id(name, 1, index), name, 1, "", chunk, f"{number:06}.txt"))
    out: list[bytes] = []
    for start in range(0, len(rows), rows_each):
        some = rows[start : start + rows_each]
        vectors = latent_vectors([row.id for row in some], DIMENSION)
        out.append(encode_upsert(some, vectors, base64_vectors=True))
    return out


def wall(requests: list[bytes]) -> tuple[float, float]:
    """Seconds and Chroma's CPU seconds for all of them."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        chroma_server(Path(folder)) as (url, pid),
        httpx.Client(base_url=url, timeout=120) as client,
    ):
        made = client.post(ROOT, json={"name": "wall", "configuration": CONFIGURATION})
        made.raise_for_status()
        place = f"{ROOT}/{made.json()['id']}/upsert"
        before, started = cpu_s(pid), time.perf_counter()
        for body in requests:
            answer = client.post(place, content=body, headers={"content-type": "application/json"})
            answer.raise_for_status()
        return time.perf_counter() - started, cpu_s(pid) - before


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--files", type=int, default=20)
    ask.add_argument("--latency-ms", type=float, default=0.0)
    ask.add_argument("--repeat", type=int, default=1)
    options = ask.parse_args()
    ours: list[float] = []
    alone: list[float] = []
    chroma_ms: list[tuple[float, float]] = []
    used: dict[str, float] = {}
    chunks = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "corpus"
        make_corpus(folder, options.files, "large")
        for _ in range(options.repeat):
            took_s, chunks, used = system(str(folder), options.latency_ms)
            ours.append(chunks / took_s)
            requests = bodies(options.files, chunks, ROWS_PER_REQUEST)
            wall_s, cpu = wall(requests)
            alone.append(chunks / wall_s)
            chroma_ms.append((used["Chroma"] / chunks * 1e3, cpu / chunks * 1e3))
            print(f"system {ours[-1]:.0f}/s, wall {alone[-1]:.0f}/s", file=sys.stderr, flush=True)
    share = median([a / b for a, b in zip(ours, alone, strict=True)])
    rows = [
        ["the whole system", f"{share:.2f}×", median(ours), median([a for a, _ in chroma_ms])],
        ["Chroma's one writer alone", "1.00×", median(alone), median([b for _, b in chroma_ms])],
    ]
    print(table(["", "to the wall", "chunks/s", "Chroma CPU ms/chunk"], rows))
    spent = "  ".join(f"{role} {s:.1f}" for role, s in sorted(used.items(), key=lambda x: -x[1]))
    print(f"{chunks:,} chunks; promise: {GOAL:.2f}×; CPU s: {spent}")
    facts = {"options": vars(options), "system": ours, "wall": alone, "chunks": chunks}
    print(write_json("wall", facts), file=sys.stderr)
    return int(share < GOAL)


if __name__ == "__main__":
    sys.exit(main())
