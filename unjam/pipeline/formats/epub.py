"""EPUB: the spine's chapters in reading order, each as HTML."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.html import html_sections
from unjam.pipeline.formats.package import Package, elements
from unjam.pipeline.sections import HeadingPath, Section

_FONT_SCRAMBLING = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def epub(path: Path) -> Iterator[Section]:
    with Package(path) as package:
        _refuse_encrypted(package)
        book = _book(package)
        parts = elements(package, book)
        folder = posixpath.dirname(book)
        manifest = {
            attrs.get("id", ""): posixpath.normpath(
                posixpath.join(folder, unquote(attrs.get("href", "")))
            )
            for tag, attrs in parts
            if tag == "item"
        }
        headings = HeadingPath()
        for tag, attrs in parts:
            part = manifest.get(attrs.get("idref", "")) if tag == "itemref" else None
            if part is not None and part in package:
                text = package.read(part).decode("utf-8", "replace")
                yield from html_sections(text, path=headings)


def _refuse_encrypted(package: Package) -> None:
    """Scrambled fonts are usual and harmless; anything else encrypted is DRM."""
    if "META-INF/encryption.xml" not in package:
        return
    for tag, attrs in elements(package, "META-INF/encryption.xml"):
        if tag == "EncryptionMethod" and attrs.get("Algorithm") not in _FONT_SCRAMBLING:
            raise DocumentRejected("The book is protected by DRM.", code="encrypted")


def _book(package: Package) -> str:
    for tag, attrs in elements(package, "META-INF/container.xml"):
        if tag == "rootfile" and attrs.get("full-path"):
            return attrs["full-path"]
    raise DocumentRejected("The EPUB names no book inside.", code="corrupt")
