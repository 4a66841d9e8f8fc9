"""unjam beside LlamaIndex and LangChain: files per second into one Chroma server.

    python -m bench.rivals --files 1000 --latency-ms 100 --repeat 3

Everybody gets the same files, chunk size, OpenAI-compatible endpoint, batch size and number of
requests in flight, and an empty ``chroma run`` server of the same release; what stands in Chroma
afterwards is counted. A rival runs in an environment of its own (``bench/rivals_env/NAME.txt``,
installed on first use into ``bench/out/venv``) and is timed from its first read of a file to the
end of its last write, without its start. unjam is timed from the start of ``unjam add --wait``
as a user runs it to its end, with every document durable, confirmed and searchable.

A further rival is a NAME.txt and a NAME_leg.py in ``bench/rivals_env`` and a line in RIVALS.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from bench.chroma_wall import ROOT, chroma_server, cpu_s, free_port
from bench.corpus import Corpus, make_corpus
from bench.report import OUT, median, table, write_json
from unjam.testing.openai_process import FakeOpenAI

HERE = Path(__file__).parent
RIVALS = {"llamaindex": "LlamaIndex (async)", "langchain": "LangChain index()"}
MODEL = "bench-embedding"
"""Not one of OpenAI's, whose dimensions are known: unjam would refuse another."""
COLLECTION = "rival"
LEG_TIMEOUT_S = 300


@dataclass(frozen=True)
class Terms:
    """The same for everybody."""

    files: int
    latency_ms: float
    dimension: int
    batch: int
    in_flight: int
    workers: int
    chunk_tokens: int
    overlap_tokens: int
    chars_per_token: float

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
    endpoint: str
    chroma_url: str
    folder: Path  # for data of the leg


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


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without anybody's settings."""
    foreign = ("RAG_", "OPENAI_", "SLACK_", "LANGCHAIN_", "LANGSMITH_", "UNJAM_", "CHROMA_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    quiet = {
        "ANONYMIZED_TELEMETRY": "FALSE",
        "LANGSMITH_TRACING": "false",
        "NO_PROXY": "127.0.0.1",
    }
    return {**kept, **quiet, **(extra or {})}


def rival_leg(rival: str) -> Leg:
    python = environment(rival)

    def leg(bed: Bed) -> float:
        terms, chroma = bed.terms, httpx.URL(bed.chroma_url)
        options = {
            "folder": bed.corpus.folder,
            "endpoint": bed.endpoint,
            "model": MODEL,
            "chroma-host": chroma.host,
            "chroma-port": chroma.port,
            "collection": COLLECTION,
            "chunk-tokens": terms.chunk_tokens,
            "overlap-tokens": terms.overlap_tokens,
            "chunk-chars": terms.chunk_chars,
            "overlap-chars": terms.overlap_chars,
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
        return float(json.loads(done.stdout)["wall_s"])

    return leg


# -- unjam ----------------------------------------------------------------------------------
def unjam_leg(bed: Bed) -> float:
    """``unjam up`` on an empty data folder, then ``unjam add FOLDER --wait``."""
    terms, port = bed.terms, free_port()
    env = clean_env(
        {
            "RAG_DATA_DIR": str(bed.folder / "data"),
            "RAG_CHROMA_URL": bed.chroma_url,
            "OPENAI_BASE_URL": bed.endpoint,
            "OPENAI_API_KEY": "bench",
            "RAG_EMBEDDING_MODEL": MODEL,
            "RAG_EMBEDDING_BATCH_SIZE": str(terms.batch),
            "RAG_EMBEDDING_CONCURRENCY": str(max(1, terms.in_flight // terms.workers)),
            "RAG_EMBEDDING_RATE_LIMIT": "1000000",
            "RAG_MAX_CHUNK_SIZE": str(terms.chunk_tokens),
            "RAG_CHUNK_OVERLAP": str(terms.overlap_tokens),
            "UNJAM_URL": f"http://127.0.0.1:{port}",
        }
    )
    program = str(Path(sys.executable).with_name("unjam"))
    up_options = {
        "--workers": terms.workers,
        "--port": port,
        "--dashboard-port": free_port(),
    }
    with (OUT / "unjam-up.log").open("w") as log:
        up = subprocess.Popen(
            [program, "up", *(f"{name}={value}" for name, value in up_options.items())],
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_ready(env["UNJAM_URL"], up)
        started = time.perf_counter()
        subprocess.run(
            [program, "add", str(bed.corpus.folder), "--wait"],
            env=env,
            stdout=subprocess.DEVNULL,
            timeout=LEG_TIMEOUT_S,
            check=True,
        )
        wall_s = time.perf_counter() - started
        check_ledger(env["UNJAM_URL"], terms.files)
        return wall_s
    finally:
        stop(up)


def wait_ready(url: str, up: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and up.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz").is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(f"unjam up did not become ready; see {OUT / 'unjam-up.log'}")


def check_ledger(url: str, files: int) -> None:
    counts = httpx.get(f"{url}/api/rag/ledger").json()
    if counts["searchable"] != files:
        raise RuntimeError(f"not everything is searchable: {counts}")


def stop(up: subprocess.Popen[bytes]) -> None:
    """Ask it to drain; after 30 s end what is left of it."""
    up.send_signal(signal.SIGTERM)
    try:
        up.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()


# -- the race -------------------------------------------------------------------------------
def run_leg(name: str, leg: Leg, terms: Terms, corpus: Corpus) -> Run:
    with (
        tempfile.TemporaryDirectory() as folder,
        chroma_server(Path(folder) / "chroma") as (chroma_url, pid),
        FakeOpenAI(latency_ms=terms.latency_ms, dimension=terms.dimension) as fake,
    ):
        before = children_cpu_s()
        wall_s = leg(Bed(terms, corpus, fake.url, chroma_url, Path(folder)))
        own_cpu_s = children_cpu_s() - before
        stats = fake.stats()
        return Run(
            leg=name,
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


def chars_per_token(corpus: Corpus, sample: int = 200) -> float:
    """Characters per cl100k token over the first files: LangChain splits by characters."""
    from bpe_openai import get_encoding

    encoding = get_encoding("cl100k_base")
    texts = [p.read_text()[:2000] for p in sorted(corpus.folder.iterdir())[:sample]]
    return sum(map(len, texts)) / sum(len(encoding.encode(t)) for t in texts)


def summary(runs: list[Run], names: Mapping[str, str], against: str) -> str:
    def of(leg: str, what: Callable[[Run], float]) -> float:
        return median([what(r) for r in runs if r.leg == leg])

    base = of(against, lambda r: r.per_s)
    legs = sorted({r.leg for r in runs}, key=lambda leg: -of(leg, lambda r: r.per_s))
    rows = [
        [
            names[leg],
            of(leg, lambda r: r.per_s),
            f"{of(leg, lambda r: r.per_s) / base:.2f}×",
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
    head = ["", "files/s", f"to {names[against]}", "wall s", "chunks", "chunks/s"]
    return table([*head, "requests", "in flight", "CPU s", "Chroma CPU s"], rows)


def options() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--rivals", default=",".join(RIVALS), help="comma-separated; empty: none")
    ask.add_argument("--no-unjam", action="store_true")
    ask.add_argument("--files", type=int, default=1000)
    ask.add_argument("--repeat", type=int, default=1)
    ask.add_argument("--latency-ms", type=float, default=100.0)
    ask.add_argument("--dimension", type=int, default=384)
    ask.add_argument("--batch", type=int, default=32)
    ask.add_argument("--in-flight", type=int, default=6)
    ask.add_argument("--workers", type=int, default=2, help="unjam's")
    ask.add_argument("--chunk-tokens", type=int, default=1024)
    ask.add_argument("--overlap-tokens", type=int, default=128)
    return ask.parse_args()


def main() -> None:
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started is ended
    names = {r: RIVALS[r] for r in args.rivals.split(",") if r}
    legs: dict[str, Leg] = {r: rival_leg(r) for r in names}
    if not args.no_unjam:
        legs["unjam"], names["unjam"] = unjam_leg, "unjam"
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder), args.files)
        terms = Terms(
            args.files, args.latency_ms, args.dimension, args.batch, args.in_flight,
            args.workers, args.chunk_tokens, args.overlap_tokens, chars_per_token(corpus),
        )  # fmt: skip
        runs: list[Run] = []
        for turn in range(args.repeat):  # in turns, so that a change of the machine meets all
            for name, leg in legs.items():
                runs.append(run_leg(name, leg, terms, corpus))
                print(f"{turn + 1}/{args.repeat} {asdict(runs[-1])}", file=sys.stderr, flush=True)
    against = next(iter(legs))
    print(summary(runs, names, against))
    facts = {"terms": asdict(terms), "bytes": corpus.bytes, "runs": [asdict(r) for r in runs]}
    print(f"\n{write_json('rivals', facts)}", file=sys.stderr)


if __name__ == "__main__":
    main()
