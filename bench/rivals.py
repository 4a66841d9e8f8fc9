"""unjam beside its rivals: files per second into one Chroma server.

    python -m bench.rivals --files 1000 --latency-ms 0,100,400 --repeat 3
    python -m bench.rivals --corpus pdf --files 100

Everybody gets the same files, chunk size, OpenAI-compatible endpoint, batch size and number of
requests in flight, and an empty ``chroma run`` server of the same release; what stands in Chroma
afterwards is counted. A rival runs in an environment of its own (``bench/rivals_env/NAME.txt``,
installed on first use into ``bench/out/venv``) and is timed from its first read of a file to the
end of its last write, without its start. unjam is timed from the start of ``unjam add --wait``
as a user runs it to its end, with every document durable, confirmed and searchable; and once more
from the first of single uploads through 16 connections until all are searchable.

A further rival is a NAME.txt and a NAME_leg.py in ``bench/rivals_env`` and a line in RIVALS.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx

from bench.chroma_wall import ROOT, chroma_server, cpu_s
from bench.corpus import KINDS, Corpus, make_corpus
from bench.house import MODEL, clean_env, house, upload_all
from bench.report import OUT, bars, median, table, write_json
from unjam.testing.openai_process import FakeOpenAI

HERE = Path(__file__).parent
RIVALS = {
    "llamaindex": "LlamaIndex (async)",
    "langchain": "LangChain index()",
    "haystack": "Haystack (async)",
    "cocoindex": "CocoIndex",
}
COLLECTION = "rival"
LEG_TIMEOUT_S = 600
CONNECTIONS = 16


@dataclass(frozen=True)
class Terms:
    """The same for everybody."""

    files: int
    corpus: str
    latency_ms: float
    dimension: int
    batch: int
    in_flight: int
    workers: int
    chunk_tokens: int
    overlap_tokens: int
    chars_per_token: float
    bytes_per_char: float

    @property
    def chunk_chars(self) -> int:
        return round(self.chunk_tokens * self.chars_per_token)

    @property
    def overlap_chars(self) -> int:
        return round(self.overlap_tokens * self.chars_per_token)


@dataclass(frozen=True)
class Run:
    """One leg, once. *per_s* is files per second of *wall_s*; *cpu_s* is what its processes took,
    their start and stop included, without endpoint and Chroma."""

    leg: str
    latency_ms: float
    wall_s: float
    per_s: float
    chunks: int
    requests: int
    max_in_flight: int
    cpu_s: float
    chroma_cpu_s: float


@dataclass(frozen=True)
class Bed:
    """What a leg runs against; fresh for each run."""

    terms: Terms
    corpus: Corpus
    endpoint: FakeOpenAI
    chroma_url: str


Leg = Callable[[Bed], float]


# -- rivals ---------------------------------------------------------------------------------
def environment(rival: str) -> Path:
    """The rival's Python, with its pinned packages installed."""
    wanted = HERE / "rivals_env" / f"{rival}.txt"
    home = OUT / "venv" / rival
    stamp, digest = home / "installed", hashlib.sha256(wanted.read_bytes()).hexdigest()
    python = home / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == digest):
        print(f"installing {rival} …", file=sys.stderr, flush=True)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", wanted], check=True)
        stamp.write_text(digest)
    return python


def rival_leg(rival: str) -> Leg:
    python = environment(rival)

    def leg(bed: Bed) -> float:
        terms, chroma = bed.terms, httpx.URL(bed.chroma_url)
        options = {
            "folder": bed.corpus.folder,
            "endpoint": bed.endpoint.url,
            "model": MODEL,
            "chroma-host": chroma.host,
            "chroma-port": chroma.port,
            "collection": COLLECTION,
            "chunk-tokens": terms.chunk_tokens,
            "overlap-tokens": terms.overlap_tokens,
            "chunk-chars": terms.chunk_chars,
            "overlap-chars": terms.overlap_chars,
            "bytes-per-char": terms.bytes_per_char,
            "batch": terms.batch,
            "in-flight": terms.in_flight,
        }
        done = subprocess.run(
            [python, HERE / "rivals_env" / f"{rival}_leg.py"]
            + [f"--{name}={value}" for name, value in options.items()],
            env=clean_env(),
            stdout=subprocess.PIPE,
            timeout=LEG_TIMEOUT_S,
            check=True,
        )
        return float(json.loads(done.stdout.splitlines()[-1])["wall_s"])

    return leg


# -- unjam ----------------------------------------------------------------------------------
def unjam_leg(bed: Bed, *, single: bool = False) -> float:
    """``unjam up`` on an empty data folder, then ``unjam add FOLDER --wait``; or single uploads."""
    terms = bed.terms
    settings = {
        "RAG_CHROMA_URL": bed.chroma_url,
        "RAG_EMBEDDING_BATCH_SIZE": str(terms.batch),
        "RAG_EMBEDDING_CONCURRENCY": str(max(1, terms.in_flight // terms.workers)),
        "RAG_MAX_CHUNK_SIZE": str(terms.chunk_tokens),
        "RAG_CHUNK_OVERLAP": str(terms.overlap_tokens),
    }
    with house(workers=terms.workers, settings=settings, endpoint=bed.endpoint) as ours:
        if not single:
            wall_s = ours.command("add", str(bed.corpus.folder), "--wait").wall_s
            ours.wait_searchable(terms.files, limit_s=1)
            return wall_s
        files = sorted(bed.corpus.folder.iterdir())
        started = time.perf_counter()
        upload_all(ours.url, files, CONNECTIONS)
        ours.wait_searchable(terms.files, LEG_TIMEOUT_S)
        return time.perf_counter() - started


# -- the race -------------------------------------------------------------------------------
def run_leg(name: str, leg: Leg, terms: Terms, corpus: Corpus) -> Run:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        chroma_server(Path(folder) / "chroma") as (chroma_url, pid),
        FakeOpenAI(latency_ms=terms.latency_ms, dimension=terms.dimension, mode="latent") as fake,
    ):
        before = children_cpu_s()
        wall_s = leg(Bed(terms, corpus, fake, chroma_url))
        own_cpu_s = children_cpu_s() - before
        stats = fake.stats()
        return Run(
            leg=name,
            latency_ms=terms.latency_ms,
            wall_s=round(wall_s, 3),
            per_s=round(corpus.files / wall_s, 2),
            chunks=stored_chunks(chroma_url),
            requests=stats["requests"],
            max_in_flight=stats["max_in_flight"],
            cpu_s=round(own_cpu_s, 2),
            chroma_cpu_s=round(cpu_s(pid), 2),
        )


def children_cpu_s() -> float:
    """CPU of all descendants that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def stored_chunks(chroma_url: str) -> int:
    """Rows in all collections of the server."""
    with httpx.Client(base_url=chroma_url, timeout=60) as client:
        found = client.get(ROOT).json()
        return sum(client.get(f"{ROOT}/{c['id']}/count").json() for c in found)


def measures(corpus: Corpus, sample: int = 100) -> tuple[float, float]:
    """Characters per cl100k token and UTF-8 bytes per character over the first files: some rivals
    split by characters, others by bytes."""
    from bpe_openai import get_encoding

    encoding = get_encoding("cl100k_base")
    texts = [_text_of(p)[:2000] for p in sorted(corpus.folder.iterdir())[:sample]]
    characters = sum(map(len, texts))
    tokens = sum(len(encoding.encode(t)) for t in texts)
    return characters / tokens, sum(len(t.encode()) for t in texts) / characters


def _text_of(path: Path) -> str:
    if path.suffix != ".pdf":
        return path.read_text()
    import pypdfium2

    with pypdfium2.PdfDocument(path) as pdf:
        return pdf[0].get_textpage().get_text_bounded()


def summary(runs: list[Run], names: Mapping[str, str]) -> str:
    """One row per leg, fastest first; *to best rival*: files per second against its."""

    def of(leg: str, what: Callable[[Run], float]) -> float:
        return median([what(r) for r in runs if r.leg == leg])

    def per_s(leg: str) -> float:
        return of(leg, lambda r: r.per_s)

    legs = sorted({r.leg for r in runs}, key=per_s, reverse=True)
    base = per_s(next((leg for leg in legs if leg in RIVALS), legs[0]))
    rows = [
        [
            names[leg],
            f"{per_s(leg) / base:.2f}×",
            per_s(leg),
            of(leg, lambda r: r.wall_s),
            int(of(leg, lambda r: r.chunks)),
            of(leg, lambda r: r.chunks / r.wall_s),
            int(of(leg, lambda r: r.requests)),
            int(of(leg, lambda r: r.max_in_flight)),
            of(leg, lambda r: r.cpu_s),
            of(leg, lambda r: r.chroma_cpu_s),
        ]
        for leg in legs
    ]
    head = ["", "to best rival", "files/s", "wall s", "chunks", "chunks/s"]
    return table([*head, "requests", "in flight", "CPU s", "Chroma CPU s"], rows)


def options() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--rivals", default=",".join(RIVALS), help="comma-separated; empty: none")
    ask.add_argument("--no-unjam", action="store_true")
    ask.add_argument("--no-single", action="store_true", help="without single uploads")
    ask.add_argument("--corpus", choices=sorted(KINDS), default="small")
    ask.add_argument("--files", type=int, default=1000)
    ask.add_argument("--repeat", type=int, default=1)
    ask.add_argument("--latency-ms", default="100", help="comma-separated")
    ask.add_argument("--dimension", type=int, default=384)
    ask.add_argument("--batch", type=int, default=32)
    ask.add_argument("--in-flight", type=int, default=6)
    ask.add_argument("--workers", type=int, default=2, help="unjam's")
    ask.add_argument("--chunk-tokens", type=int, default=1024)
    ask.add_argument("--overlap-tokens", type=int, default=128)
    return ask.parse_args()


def main() -> int:
    args = options()
    names = {r: RIVALS[r] for r in args.rivals.split(",") if r}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started is ended
    legs: dict[str, Leg] = {r: rival_leg(r) for r in names}
    if not args.no_unjam:
        legs["unjam"], names["unjam"] = unjam_leg, "unjam add --wait"
        if not args.no_single:
            legs["single"] = partial(unjam_leg, single=True)
            names["single"] = f"unjam, {CONNECTIONS} connections"
    OUT.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder), args.files, args.corpus)
        latencies = [float(x) for x in args.latency_ms.split(",")]
        all_terms = [
            Terms(
                args.files, args.corpus, latency_ms, args.dimension, args.batch, args.in_flight,
                args.workers, args.chunk_tokens, args.overlap_tokens, *measures(corpus),
            )
            for latency_ms in latencies
        ]  # fmt: skip
        for turn in range(args.repeat):  # in turns, so that a change of the machine meets all
            for terms in all_terms:
                for name, leg in legs.items():
                    try:
                        runs.append(run_leg(name, leg, terms, corpus))
                    except (subprocess.SubprocessError, TimeoutError) as error:
                        print(f"{name} failed and is left out: {error}", file=sys.stderr)
                        failed.append(name)
                        continue
                    done = f"{turn + 1}/{args.repeat} {asdict(runs[-1])}"
                    print(done, file=sys.stderr, flush=True)
    for latency_ms in latencies:
        found = [r for r in runs if r.latency_ms == latency_ms]
        print(f"\n{args.files} {args.corpus} files, endpoint {latency_ms:.0f} ms")
        print(summary(found, names))
    facts = {
        "terms": [asdict(t) for t in all_terms],
        "bytes": corpus.bytes,
        "runs": [asdict(r) for r in runs],
    }
    name = "rivals" if args.corpus == "small" else f"rivals-{args.corpus}"
    print(f"\n{write_json(name, facts)}", file=sys.stderr)
    chart = {
        f"{names[r.leg]}, {r.latency_ms:.0f} ms": median(
            [x.per_s for x in runs if (x.leg, x.latency_ms) == (r.leg, r.latency_ms)]
        )
        for r in sorted(runs, key=lambda r: r.latency_ms)
    }
    print(bars(name, f"files per second, {args.files} {args.corpus} files", chart), file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
