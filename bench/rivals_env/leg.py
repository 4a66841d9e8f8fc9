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
    ask.add_argument("--bytes-per-char", type=float, required=True)
    ask.add_argument("--batch", type=int, required=True)
    ask.add_argument("--in-flight", type=int, required=True)
    return ask.parse_args()


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def text_of(path: Path) -> str:
    return text_of_bytes(path.name, path.read_bytes())


def text_of_bytes(name: str, data: bytes) -> str:
    """Everybody reads PDFs by the same library, the fastest there is."""
    if not name.endswith(".pdf"):
        return data.decode()
    import pypdfium2

    with pypdfium2.PdfDocument(data) as pdf:
        return "\n".join(page.get_textpage().get_text_bounded() for page in pdf)


def timed(work: Callable[[], None]) -> None:
    """Run *work* and print how long it took: imports and connections are made before."""
    started = time.perf_counter()
    work()
    json.dump({"wall_s": time.perf_counter() - started}, sys.stdout)
