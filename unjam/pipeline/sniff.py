"""What a file is, by its bytes. The extension only decides among kinds of text.

Light on purpose: standard library only, as the API calls it for every upload.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

HEAD_BYTES = 65_536
"""How much of the file `sniff` wants to see."""

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
EPUB = "application/epub+zip"
HWP = "application/x-hwp"
HWPX = "application/hwp+zip"
EML = "message/rfc822"
HTML = "text/html"
MARKDOWN = "text/markdown"
CSV = "text/csv"
JSON = "application/json"
SOURCE = "text/x-source"
PLAIN = "text/plain"
RTF = "application/rtf"
ODT = "application/vnd.oasis.opendocument.text"
DOC = "application/msword"
XLS = "application/vnd.ms-excel"
PPT = "application/vnd.ms-powerpoint"
ZIP = "application/zip"  # a container whose members are not in the head: the parser looks again
OLE = "application/x-ole-storage"  # likewise
ENCRYPTED = "application/x-encrypted-office"
UNKNOWN = "application/octet-stream"

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
    (b"RIFF", "application/x-riff"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\x7fELF", "application/x-elf"),
    (b"MZ", "application/x-msdownload"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "application/ogg"),
    (b"fLaC", "audio/flac"),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (b"\xca\xfe\xba\xbe", "application/java-vm"),
)

_TEXT_BY_SUFFIX = {
    "md": MARKDOWN, "markdown": MARKDOWN, "mdx": MARKDOWN, "rst": PLAIN, "txt": PLAIN,
    "log": PLAIN, "csv": CSV, "tsv": CSV, "html": HTML, "htm": HTML, "xhtml": HTML,
    "json": JSON, "jsonl": JSON, "ndjson": JSON, "eml": EML,
}  # fmt: skip
_SOURCE_SUFFIXES = frozenset((
    "py", "pyi", "js", "mjs", "cjs", "jsx", "ts", "tsx", "java", "kt", "kts", "scala", "groovy",
    "c", "h", "cc", "cpp", "cxx", "hpp", "hh", "cs", "go", "rs", "rb", "php", "pl", "pm", "lua",
    "r", "jl", "swift", "m", "mm", "dart", "ex", "exs", "erl", "hs", "ml", "fs", "clj", "lisp",
    "vb", "sql", "sh", "bash", "zsh", "fish", "ps1", "bat", "cmd", "yaml", "yml", "toml", "ini",
    "cfg", "conf", "properties", "env", "tf", "hcl", "proto", "graphql", "xml", "xsd", "svg",
    "css", "scss", "less", "vue", "svelte", "tex", "bib", "dockerfile", "makefile", "cmake",
    "gradle", "asm", "s", "v", "vhd", "ipynb", "diff", "patch",
))  # fmt: skip

_HTML = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][a-z0-9]*(\s[^<>]*)?>", re.IGNORECASE)
_JSON = re.compile(r'\s*(\{\s*("|\})|\[\s*([\[{"\]\-\d]|true|false|null))')
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,60}:[ \t]?")
_MARKDOWN = re.compile(r"^(#{1,6} \S|```|\|[-: ]+\|)", re.MULTILINE)
_ORIGIN = frozenset({"from", "received", "return-path", "message-id", "delivered-to"})
_ENVELOPE = frozenset({"date", "subject", "to", "mime-version", "content-type"})


def sniff(head: bytes, filename: str) -> str:
    """The media type of a file that begins with *head* (its first 64 KiB).

    ``application/octet-stream`` and any type that no reader claims mean: unsupported. An empty
    file is ``text/plain``: its reader says that it is empty.
    """
    if not head:
        return PLAIN
    # Some producers put junk before the header; the PDF specification allows 1,024 bytes of it.
    if b"%PDF-" in head[:1024]:
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(head)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _ole_kind(head)
    if head.startswith(b"HWP Document File V3"):
        return "application/x-hwp-v3"
    if head.startswith(b"{\\rtf"):
        return RTF
    if head[4:8] == b"ftyp":
        return "video/mp4"
    text = _as_text(head)
    for magic, kind in _MAGIC:
        if head.startswith(magic) and (text is None or len(magic) > 3):
            return kind
    return UNKNOWN if text is None else _text_kind(text, filename)


def _zip_kind(head: bytes) -> str:
    """By the names in the local file headers that the head holds."""
    if head[30:58].startswith(b"mimetype"):
        rest = head[38:120]
        for needle, kind in (
            (b"application/epub+zip", EPUB),
            (b"application/hwp+zip", HWPX),
            (b"application/vnd.oasis.opendocument.text", ODT),
        ):
            if needle in rest:
                return kind
    for needle, kind in (
        (b"word/document.xml", DOCX),
        (b"ppt/presentation.xml", PPTX),
        (b"xl/workbook.xml", XLSX),
        (b"Contents/section0.xml", HWPX),
        (b"META-INF/container.xml", EPUB),
        (b"word/", DOCX),
        (b"ppt/", PPTX),
        (b"xl/", XLSX),
    ):
        if needle in head:
            return kind
    return ZIP


def _ole_kind(head: bytes) -> str:
    """By the directory's entry names, UTF-16; the directory may lie beyond the head."""
    for name, kind in (
        ("EncryptedPackage", ENCRYPTED),
        ("HwpSummaryInformation", HWP),
        ("BodyText", HWP),
        ("WordDocument", DOC),
        ("PowerPoint Document", PPT),
        ("Workbook", XLS),
    ):
        if name.encode("utf-16-le") in head:
            return kind
    return HWP if b"HWP Document File" in head else OLE


_CONTROLS = bytes(set(range(32)) - {9, 10, 12, 13, 27})


def _as_text(head: bytes) -> str | None:
    """*head* decoded well enough to tell kinds of text apart; None when it is binary."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[: len(head) & ~1].decode("utf-16", "replace")
    if head.startswith(b"\xef\xbb\xbf"):
        return head[3:].decode("utf-8", "replace")
    if b"\x00" in head and (wide := bare_utf16(head)):
        return head[: len(head) & ~1].decode(wide, "replace")
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls * 200 > len(head):  # more than 0.5 %: no text has that
        return None
    for encoding in ("utf-8", "cp949"):
        try:
            return head.decode(encoding)
        except UnicodeDecodeError as error:
            if error.start >= len(head) - 4 and len(head) >= HEAD_BYTES:  # cut by the head's end
                return head[: error.start].decode(encoding)
    return head.decode("latin-1")


def bare_utf16(head: bytes) -> str | None:
    """The byte order of UTF-16 without a mark, or None when it is something else.

    Its spaces and ASCII letters put a NUL into at least one byte of twenty, most of them at odd or
    most at even places (U+AC00 puts some elsewhere), and no control characters come out.
    """
    even, odd = head[0::2].count(0), head[1::2].count(0)
    few, many = sorted((even, odd))
    if many * 20 < len(head) or few * 3 > many:
        return None
    name = "utf-16-be" if even > odd else "utf-16-le"
    text = head[: len(head) & ~1].decode(name, "replace")
    strange = sum(1 for char in text if (char < " " and char not in "\t\n\r\f") or char == "\ufffd")
    return name if strange * 100 <= len(text) else None


def _text_kind(text: str, filename: str) -> str:
    suffix = PurePosixPath(filename.lower()).suffix[1:] or PurePosixPath(filename.lower()).name
    hint = SOURCE if suffix in _SOURCE_SUFFIXES else _TEXT_BY_SUFFIX.get(suffix, "")
    start = text.lstrip("\ufeff \t\r\n")[:4096]
    if hint == SOURCE:
        return SOURCE
    if start.startswith("<") and _HTML.search(start):
        return HTML
    if hint == HTML and _TAG.search(text):
        return HTML
    if hint != MARKDOWN and (_is_mail(start) or hint == EML):
        return EML
    if hint in (JSON, "", PLAIN) and _JSON.match(start):
        return JSON if hint == JSON or start.rstrip().endswith(("}", "]", ",", '"')) else PLAIN
    if hint == CSV:
        return CSV
    if hint in (MARKDOWN, PLAIN):
        return hint
    if start.startswith(("#!", "<?xml")):
        return SOURCE
    if hint == "" and _looks_like_csv(text):
        return CSV
    return MARKDOWN if len(_MARKDOWN.findall(text)) >= 2 else PLAIN


def _is_mail(start: str) -> bool:
    """A block of header lines that names both an origin and an envelope field."""
    if start.startswith("From "):  # an mbox line
        start = start.partition("\n")[2]
    seen: set[str] = set()
    for line in start.splitlines():
        if not line.strip():
            break
        if line[0] in " \t" and seen:
            continue
        if not _HEADER.match(line):
            return False
        seen.add(line.partition(":")[0].lower())
    return bool(seen & _ORIGIN) and bool(seen & _ENVELOPE)


def _looks_like_csv(text: str) -> bool:
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    if len(lines) < 4:
        return False
    return any(
        lines[0].count(mark) >= 2
        and all(line.count(mark) == lines[0].count(mark) for line in lines)
        for mark in ",;\t|"
    )
