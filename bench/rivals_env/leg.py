"""What every rival's leg shares. Standard library only: it runs in the rival's own environment."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser()
    ask.add_argument("--folder", type=Path, required=True)
    ask.add_argument("--endpoint", required=True)
    ask.add_argument("--model", required=True)
    ask.add_argument("--chroma-host", required=True)
    ask.add_argument("--chroma-port", type=int, required=True)
    ask.add_argument("--collection", required=True)
    ask.add_argument("--chunk-tokens", type=int, required=True)
    ask.add_argument("--overlap-tokens", type=int, required=True)
    ask.add_argument("--chunk-chars", type=int, required=True)
    ask.add_argument("--overlap-chars", type=int, required=True)
    ask.add_argument("--batch", type=int, required=True)
    ask.add_argument("--in-flight", type=int, required=True)
    return ask.parse_args()


def timed(work: Callable[[], None]) -> None:
    """Run *work* and print how long it took: imports and connections are made before."""
    started = time.perf_counter()
    work()
    json.dump({"wall_s": time.perf_counter() - started}, sys.stdout)
