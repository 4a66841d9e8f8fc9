"""Files made to hurt, among healthy ones, through the real API and workers, at default limits.

Every healthy document becomes searchable; every hostile one does, too, or is parked for a reason
that has a name; nothing waits for ever, no worker dies, and the whole system stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import threading
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unjam.core.document import State
from unjam.core.reasons import REASONS
from unjam.settings import MIB
from unjam.testing.drills import DrillReport, Scene
from unjam.testing.drills.scene import clean_environment, scene_of
from unjam.testing.wait import until_ended

pytestmark = pytest.mark.thorough

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
HEALTHY = 80
PEAK_BYTES = 4 * 1024 * MIB
AT_ONCE = 8
DEADLINE_S = 240.0
SAMPLE_S = 0.1

EVERYDAY = {"RAG_MAX_CHUNK_SIZE": "512", "RAG_CHUNK_OVERLAP": "32"}

OURS_ALONE = {"parser_crashed", "errors_exhausted", "kills_its_worker"}
"""Reasons that would mean a reader of ours broke, where a better word exists."""


@dataclass(frozen=True)
class File:
    """*ends*: the only ways it may end; "text" = searchable. Empty: text, or any named reason."""

    name: str
    data: bytes
    ends: tuple[str, ...] = ()


# -- bombs --------------------------------------------------------------------------------------
def package(members: dict[str, bytes], first: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        if first:
            made.writestr(zipfile.ZipInfo("mimetype"), first)
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


MAIN_PART = {
    "docx": ("word/document.xml", b""),
    "pptx": ("ppt/slides/slide1.xml", b""),
    "xlsx": ("xl/worksheets/sheet1.xml", b""),
    "hwpx": ("Contents/section0.xml", b"application/hwp+zip"),
    "epub": ("OEBPS/a.xhtml", b"application/epub+zip"),
    "odt": ("content.xml", b"application/vnd.oasis.opendocument.text"),
}
AROUND = {
    "docx": {"[Content_Types].xml": b"<Types/>"},
    "pptx": {
        "ppt/presentation.xml": b'<p:presentation xmlns:p="p" xmlns:r="r"><p:sldIdLst>'
        b'<p:sldId r:id="rId1"/></p:sldIdLst></p:presentation>',
        "ppt/_rels/presentation.xml.rels": b'<Relationships><Relationship Id="rId1" '
        b'Target="slides/slide1.xml"/></Relationships>',
    },
    "xlsx": {
        "xl/workbook.xml": b'<workbook><sheets><sheet name="S" sheetId="1"/></sheets></workbook>'
    },
    "hwpx": {"Contents/content.hpf": b"<package/>"},
    "epub": {
        "META-INF/container.xml": b'<container><rootfiles><rootfile full-path="OEBPS/c.opf"/>'
        b"</rootfiles></container>",
        "OEBPS/c.opf": b'<package><manifest><item id="a" href="a.xhtml" '
        b'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine>'
        b"</package>",
    },
    "odt": {"META-INF/manifest.xml": b"<manifest/>"},
}


def office(kind: str, body: bytes) -> bytes:
    part, mimetype = MAIN_PART[kind]
    return package({**AROUND[kind], part: body}, mimetype)


def lying(raw: bytes, part: str) -> bytes:
    """The same package, whose directory calls *part* a thousand bytes long."""
    forged = bytearray(raw)
    entry = forged.rfind(part.encode()) - 46
    forged[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    return bytes(forged)


def laughs(depth: int = 12) -> bytes:
    """A billion laughs: ten to the power of *depth* when expanded."""
    steps = "".join(
        f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' if n else '<!ENTITY l0 "lol">'
        for n in range(depth)
    )
    return f'<?xml version="1.0"?><!DOCTYPE d [{steps}]><d><p>&l{depth - 1};</p></d>'.encode()


def quadratic() -> bytes:
    long = "a" * 100_000
    body = "&x;" * 50_000
    return f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x "{long}">]><d><p>{body}</p></d>'.encode()


def pdf_bomb() -> bytes:
    """One page whose content inflates to 400 MiB."""
    stream = zlib.compress(b"(x) Tj " * (400 * MIB // 7), 9)
    parts = [
        b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n",
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n",
        b"4 0 obj<</Length %d/Filter/FlateDecode>>stream\n" % len(stream) + stream,
        b"\nendstream endobj\n",
    ]
    return b"%PDF-1.7\n" + b"".join(parts) + b"trailer<</Root 1 0 R>>\n%%EOF"


def bombs() -> Iterator[File]:
    for kind in MAIN_PART:
        raw = office(kind, b"<d>" + b" " * (300 * MIB) + b"</d>")
        assert len(raw) < MIB
        yield File(f"bomb.{kind}", raw)
        yield File(f"laughs.{kind}", office(kind, laughs()))
        yield File(f"quadratic.{kind}", office(kind, quadratic()))
    docx = office("docx", b"<d>" + b" " * (300 * MIB) + b"</d>")
    yield File("liar.docx", lying(docx, "word/document.xml"), ("decompression_bomb", "corrupt"))
    yield File("laughs.svg", laughs())
    yield File("laughs.html", b"<html><body>" + laughs() + b"</body></html>")
    yield File("bomb.pdf", pdf_bomb())
    many = package({"word/document.xml": b"<w/>", **{f"x{n}": b"" for n in range(20_000)}})
    yield File("many-members.docx", many)


# -- shapes -------------------------------------------------------------------------------------
def nested() -> Iterator[File]:
    deep = "<div>" * 200_000 + "deep inside stands a whole sentence" + "</div>" * 9
    yield File("deep.html", f"<html><body>{deep}".encode(), ("text",))
    yield File("deep.docx", office("docx", b"<w>" * 500_000))
    yield File("deep.json", b"[" * 100_000 + b"]" * 100_000, ("corrupt",))
    yield File("deep.rtf", b"{\\rtf1" + b"{" * 200_000 + b"text" + b"}" * 200_001)
    yield File("deep.md", (">" * 100_000 + " quoted without end\n" + "- " * 50_000).encode())
    mail = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n)
        for n in range(2000)
    )
    yield File("deep.eml", b"From: a@example\r\nSubject: deep\r\nMIME-Version: 1.0\r\n" + mail)


def long_lines() -> Iterator[File]:
    line = "한줄 " * 300_000 + "x" * 3_200_000
    assert len(line.encode()) > 5_000_000
    yield File("line.txt", line.encode(), ("text",))
    yield File("line.md", f"# {line}".encode(), ("text",))
    yield File("line.csv", f"a,b\n{line.replace(' ', ',')}".encode())
    yield File("line.html", f"<html><body><p>{line}</p>".encode(), ("text",))
    yield File("line.json", f'{{"note": "{line}"}}'.encode(), ("text",))


def damaged(chance: random.Random) -> Iterator[File]:
    """Of every supported format: cut in half, cut near its end, with noise inside; and noise."""
    for source in sorted(CORPUS.iterdir()):
        raw, kind = source.read_bytes(), source.suffix
        yield File(f"half-{source.name}", raw[: len(raw) // 2])
        yield File(f"nearly-{source.name}", raw[: len(raw) * 19 // 20])
        noisy = bytearray(raw)
        for _ in range(200):
            noisy[chance.randrange(len(noisy))] = chance.randrange(256)
        yield File(f"noisy-{source.name}", bytes(noisy))
        yield File(f"noise{kind}", raw[:8] + chance.randbytes(50_000))
    for magic, name in (
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "noise.hwp"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument".encode("utf-16-le"), "noise.doc"),
        (b"{\\rtf1", "noise.rtf"),
        (b"", "noise.bin"),
        (b"\x1f\x8b", "noise.gz"),
    ):
        yield File(name, magic + chance.randbytes(50_000))
    yield File("nothing.pdf", b"", ("empty",))
    yield File("nul.txt", b"\0" * 100_000)


NAMES = [
    "가" * 400 + ".txt",
    "n" * 400 + ".txt",
    "../../../../etc/passwd",
    "..\\..\\windows\\system.ini",
    "/etc/shadow.txt",
    unicodedata.normalize("NFC", "보고서-최종.txt"),
    unicodedata.normalize("NFD", "보고서-최종.txt"),
    "ERROR WARNING.txt",
    "a\u202etxt.exe",
    ".",
    " ",
    "-rf.txt",
    "$(reboot).txt",
    "CON.txt",
]


# -- memory -------------------------------------------------------------------------------------
@dataclass
class Weigher:
    """Samples what a process tree holds: PSS, so that shared pages count once."""

    roots: dict[str, int]
    peak_bytes: int = 0
    samples: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Weigher:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, sum(map(pss_bytes, tree(self.roots.values()))))
            self.samples += 1


def tree(roots: object) -> set[int]:
    """*roots* and everything below them."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    todo = list(roots)  # type: ignore[call-overload]
    while todo:
        pid = todo.pop()
        found.add(pid)
        todo += [c for c in children.get(pid, []) if c not in found]
    return found


def pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


# -- the test -----------------------------------------------------------------------------------
async def upload(scene: Scene, file: File, metadata: str = "{}") -> str | None:
    """Its id; None when the API refused it, which must be for a reason with a name."""
    answer = await scene.http.post(
        "/api/rag/documents",
        files=[("file", (file.name, file.data))],
        data={"metadata": metadata, "user_id": file.name[:50] or "nobody"},
    )
    if answer.status_code in (200, 202):
        return answer.json()["id"]
    assert 400 <= answer.status_code < 500, (file.name, answer.status_code, answer.text)
    told = answer.json()
    assert told["code"] and told["hint"], file.name
    return None


async def upload_all(scene: Scene, files: list[File]) -> dict[str, File]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(file: File) -> tuple[str | None, File]:
        async with turn:
            return await upload(scene, file), file

    pairs = await asyncio.gather(*map(one, files))
    return {document_id: file for document_id, file in pairs if document_id is not None}


def ended_well(file: File, state: State, reason: str) -> str:
    """ "" when *file* may end so; else what is wrong."""
    end = "text" if state is State.SEARCHABLE else reason
    if state not in (State.SEARCHABLE, State.DEAD):
        return f"{file.name}: {state} {reason}"
    if state is State.DEAD and (reason not in REASONS or reason in OURS_ALONE):
        return f"{file.name}: parked as {reason!r}"
    if file.ends and end not in file.ends:
        return f"{file.name}: ended as {end}, not {file.ends}"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_healthy_documents_do_not_notice(tmp_path: Path) -> None:
    chance = random.Random(11)
    hostile = [*bombs(), *nested(), *long_lines(), *damaged(chance)]
    hostile += [File(name, f"A plain text called {n}.".encode()) for n, name in enumerate(NAMES)]
    chance.shuffle(hostile)
    report = DrillReport("hostile")
    with clean_environment():
        async with scene_of(report, tmp_path / "data", lambda _: None, EVERYDAY) as scene:
            with Weigher(dict(scene.stack.supervisor.pids())) as weigher:
                half = len(hostile) // 2
                taken = await upload_all(scene, hostile[:half])
                healthy = [await scene.upload(1) for _ in range(HEALTHY)]
                taken |= await upload_all(scene, hostile[half:])
                odd = await odd_metadata(scene)
                ids = [i for some in healthy for i in some]
                ledger = scene.stack.services.ledger
                found = await until_ended(ledger, [*taken, *ids, *odd], deadline_s=DEADLINE_S)
            assert [i for i in ids if found[i].state is not State.SEARCHABLE] == []
            wrong = [
                said
                for i, file in taken.items()
                if (said := ended_well(file, found[i].state, found[i].reason))
            ]
            ends = Counter(d.reason or d.state.value for d in found.values())
            print(f"\n{len(hostile)} hostile, {len(taken)} taken: {dict(ends)}")
            print(f"peak {weigher.peak_bytes / MIB:.0f} MiB in {weigher.samples} samples")
            assert wrong == []
            assert len(taken) > 120
            await each_is_found(scene, ids)
            assert weigher.samples > 20
            assert weigher.peak_bytes < PEAK_BYTES
            restarts = scene.stack.supervisor.restarts()
            assert not any(restarts.values()), restarts
            equation = await ledger.equation()
            assert equation.missing == 0
            assert equation.accepted == equation.searchable + equation.dead


async def odd_metadata(scene: Scene) -> list[str]:
    """Lone surrogates and control characters; taken or refused by name, never a 500."""
    texts = [r'{"note": "\ud800 alone"}', r'{"\udc00": "key"}', r'{"note": "\u0000\u001b[2J"}']
    files = [File(f"odd{n}.txt", f"Odd metadata {n}.".encode()) for n in range(len(texts))]
    ids = [await upload(scene, file, text) for file, text in zip(files, texts, strict=True)]
    kept = [i for i in ids if i is not None]
    for document_id in kept:
        shown = await scene.http.get(f"/api/rag/documents/{document_id}")
        assert shown.status_code == 200
    return kept


async def each_is_found(scene: Scene, ids: list[str]) -> None:
    """By a word that no other document has, first of all hits."""
    for document_id in ids:
        text = scene.expected[document_id]
        asked = {"query": text, "k": 3, "filter": {"document_id": document_id}}
        answer = await scene.http.post("/api/rag/search", json=asked)
        assert answer.status_code == 200, answer.text
        token = text.partition(",")[0].removeprefix("Note ")
        shown = [hit["text"] for hit in answer.json()["hits"]]
        assert any(token in one for one in shown), (document_id, token, shown)
