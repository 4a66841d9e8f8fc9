"""Chunks per second of the local model with one and with two processes.

    python -m bench.local_model [--seconds 8] [--tokens 200]

Each process is what a worker has: one thread, its own copy of the encoder, texts of different
length around ``--tokens`` (±25 %), half of them Korean. Prints one line per number of processes and
the time to load; chunks per processor-second tell the machine's share apart when others use it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import time

from unjam.embedding.local import LocalProvider
from unjam.embedding.model_build import ensure_model

ENGLISH = (
    "The reconciler looks at every document that should move and does not, finds out which of "
    "its dependencies is away, and puts it back to work as soon as that one answers again. "
)
KOREAN = (
    "대기열이 멈추면 감시 프로세스가 원인을 먼저 찾고, 임베딩 서버와 벡터 저장소의 상태를 확인한 다음 "
    "안전한 조치만 실행하며, 결과를 검증하지 못하면 담당자에게 알린다. "
)


def make_texts(tokens: int, count: int = 64) -> list[str]:
    """*count* texts of *tokens* ± 25 %, half of them Korean, none equal to another."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(ensure_model().tokenizer))
    rng = random.Random(7)  # the same texts in every run
    texts: list[str] = []
    for i in range(count):
        words = (KOREAN if i % 2 else ENGLISH).split()
        wanted = rng.randint(tokens * 3 // 4, tokens * 5 // 4)
        text = "passage:"
        while len(tokenizer.encode(text).ids) < wanted:
            text += " " + " ".join(rng.sample(words, 3))
        texts.append(text)
    return texts


def work(texts: list[str], seconds: float, gate, results) -> None:
    async def run() -> tuple[int, float, float]:
        provider = LocalProvider()
        await provider.warm_up()
        await provider.embed(texts[:2])
        gate.wait()
        done, cpu, start = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() - start < seconds:
            batch = texts[done % len(texts) :][:16]
            await provider.embed(batch)
            done += len(batch)
        wall = time.perf_counter() - start
        cpu = time.process_time() - cpu
        await provider.close()
        return done, wall, cpu

    results.put(asyncio.run(run()))


def measure(processes: int, texts: list[str], seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(processes), context.Queue()
    running = [
        context.Process(target=work, args=(texts, seconds, gate, results)) for _ in range(processes)
    ]
    for process in running:
        process.start()
    answers = [results.get(timeout=seconds + 60) for _ in running]
    for process in running:
        process.join()
    rate = sum(done / wall for done, wall, _ in answers)
    per_core = sum(done for done, _, _ in answers) / sum(cpu for _, _, cpu in answers)
    print(f"{processes} process(es): {rate:5.1f} chunks/s, {per_core:5.1f} per processor-second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    start = time.perf_counter()
    asyncio.run(LocalProvider().warm_up())
    print(f"load: {time.perf_counter() - start:.2f} s")
    texts = make_texts(options.tokens)
    for processes in (1, 2):
        measure(processes, texts, options.seconds)


if __name__ == "__main__":
    main()
