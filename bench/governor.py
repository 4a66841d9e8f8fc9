"""The endpoint's limit, used and not exceeded, by several processes with keys of one group.

    python -m bench.governor [--minute 60] [--minutes 4] [--limit 600] [--processes 2]

Starts the fake endpoint (it enforces --limit requests a minute on the group), a Valkey, and
processes that ask for as much as they may; once with the governor set to the limit, once to twice
as much. Figures: the share of the limit that was used, the share of requests that were refused
(429), over all minutes and without the first one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import redis

from bench.report import table, write_json
from unjam.testing.governor_load import Used, measure
from unjam.testing.openai_process import FakeOpenAI
from unjam.worker.children import spawn
from unjam.worker.embedded import Server, free_port, plan_valkey, until_ready

HEAD = ["governor", "endpoint", "served", "refused", "used %", "429 %", "later: used %", "429 %"]


async def both(options: argparse.Namespace, folder: Path) -> list[Used]:
    """The governor set to the limit, and to twice as much."""
    plan = await plan_valkey(folder, free_port(0))
    child = spawn(plan.name, plan.command, folder / "valkey.log")
    plan.record(child)
    await until_ready(plan, child)
    server = Server(plan, child)
    found: list[Used] = []
    try:
        for rate in (options.limit, 2 * options.limit):
            with redis.Redis.from_url(server.admin_url) as admin, FakeOpenAI() as fake:
                admin.flushall()
                found.append(
                    await measure(
                        fake,
                        server.url,
                        limit=options.limit,
                        rate=rate,
                        minutes=options.minutes,
                        minute_s=options.minute,
                        processes=options.processes,
                    )
                )
    finally:
        await server.stop()
    return found


def row(used: Used) -> list[object]:
    shares = [f(skip) for skip in (0, 1) for f in (used.used_share, used.refused_share)]
    minutes = ["/".join(map(str, counts)) for counts in (used.served, used.refused)]
    return [used.rate, used.limit, *minutes, *[100 * share for share in shares]]


def main() -> None:
    parser = argparse.ArgumentParser(description="share an endpoint's limit")
    parser.add_argument("--minute", type=int, default=60, help="seconds of a minute")
    parser.add_argument("--minutes", type=int, default=4)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(both(options, Path(folder)))
    sys.stdout.write(table(HEAD, [row(used) for used in found]) + "\n")
    write_json("governor", {"minute_s": options.minute, "results": [asdict(u) for u in found]})


if __name__ == "__main__":
    main()
