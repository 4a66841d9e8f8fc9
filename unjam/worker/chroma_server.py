"""``chroma run`` without its Python half: the command is a Rust function, and importing the rest of
the package takes six times as long as the server needs to answer."""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    import_module("chromadb_rust_bindings").cli(["chroma", "run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
