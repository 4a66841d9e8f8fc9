"""Each format: what its text is, where it stands, and why a file is refused."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from fpdf import FPDF

from unjam.core.errors import DocumentRejected
from unjam.core.ports import ParseJob
from unjam.core.reasons import REASONS
from unjam.pipeline.parse import parse
from unjam.pipeline.sections import Section
from unjam.pipeline.sniff import HEAD_BYTES, sniff

CORPUS = Path(__file__).parents[3] / "examples" / "corpus"
Read = Callable[[bytes, str], list[Section]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def parse_bytes(content: bytes, name: str) -> list[Section]:
        path = tmp_path / "blob"
        path.write_bytes(content)
        kind = sniff(content[:HEAD_BYTES], name)
        job = ParseJob(path, name, kind, len(content), 256, 32, "openai:cl100k_base", 0, 0, 0, 0)
        return list(parse(job))

    return parse_bytes


def text_of(sections: list[Section]) -> str:
    return "".join(section.text for section in sections)


def refused(read: Read, content: bytes, name: str) -> str:
    with pytest.raises(DocumentRejected) as caught:
        read(content, name)
    assert caught.value.code in REASONS
    return caught.value.code


def saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


def pdf_of(*pages: str) -> bytes:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    for page in pages:
        pdf.add_page()
        pdf.multi_cell(0, 8, page)
    return bytes(pdf.output())


# -- text -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949", "euc-kr"]
)
def test_korean_text_in_every_encoding(read: Read, encoding: str) -> None:
    text = "서버실 점검표 ABC 2026. 문을 열기 전에 온도를 잽니다.\n" * 40
    assert text_of(read(text.encode(encoding), "a.txt")) == text


def test_cp949_letters_beyond_euc_kr_are_read(read: Read) -> None:
    assert "똠방각하 펲시" in text_of(
        read("똠방각하 펲시콜라를 마셨다.\n".encode("cp949"), "a.txt")
    )


def test_text_that_turns_korean_after_a_megabyte(read: Read) -> None:
    text = "plain ascii line\n" * 80_000 + "마지막 줄은 한국어\n"
    assert text_of(read(text.encode("cp949"), "a.txt")).endswith("마지막 줄은 한국어\n")


def test_western_text_does_not_become_hangul(read: Read) -> None:
    text = "Señor Müller trinkt Kaffee in São Paulo, où l'été est déjà passé.\n" * 30
    assert "Müller" in text_of(read(text.encode("cp1252"), "a.txt"))


def test_nfd_and_control_characters_are_cleaned(read: Read) -> None:
    dirty = "가\u0000나 \ufb01x\r\nA\u000cB\u200b!\n" + "clean line\n" * 80
    assert text_of(read(dirty.encode(), "a.txt")).startswith("가나 fix\nA\nB!\nclean")


@pytest.mark.parametrize("name", sorted(p.name for p in CORPUS.iterdir()))
def test_every_file_of_the_corpus_gives_text(read: Read, name: str) -> None:
    sections = read((CORPUS / name).read_bytes(), name)
    text = text_of(sections)
    assert len(text) > 150
    assert "\ufffd" not in text


def test_markdown_structure(read: Read) -> None:
    source = (
        "# A\n\nintro\n\nSub\n---\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n"
        "```py\n# no heading\n```\nend\n"
    )
    sections = read(source.encode(), "a.md")
    assert text_of(sections) == source, "nothing is lost or changed"
    assert [(s.kind, s.section) for s in sections if s.text.strip()] == [
        ("heading", "A"), ("text", "A"), ("heading", "A > Sub"), ("table", "A > Sub"),
        ("code", "A > Sub"), ("text", "A > Sub"),
    ]  # fmt: skip


def test_html_drops_scripts_and_keeps_tables_and_headings(read: Read) -> None:
    page = (
        "<html><head><title>Guide</title><script>var bad=1</script></head><body><nav>menu</nav>"
        "<h1>Water &amp; food</h1><p>Bring <b>two</b>   litres.</p><ul><li>one<li>two</ul>"
        "<table><tr><th>Day<th>Meal<tr><td>Mon<td>Soup</table><pre>x  =  1\ny</pre></body></html>"
    )
    sections = read(page.encode(), "a.html")
    text = text_of(sections)
    assert "bad" not in text
    assert "menu" not in text
    assert "Bring two litres." in text
    assert "Mon | Soup" in text
    assert "x  =  1" in text
    assert "- one" in text
    table = next(s for s in sections if s.kind == "table")
    assert (table.section, table.header) == ("Guide > Water & food", "Day | Meal\n")


def test_html_in_euc_kr_by_its_meta(read: Read) -> None:
    page = '<html><head><meta charset="euc-kr"></head><body><p>안녕하세요 여러분</p></body></html>'
    assert "안녕하세요 여러분" in text_of(read(page.encode("cp949"), "a.html"))


def test_csv_and_json(read: Read) -> None:
    (table,) = read("이름;값\n가;1\n나;2\n".encode("cp949"), "a.csv")
    assert table.text.splitlines()[:2] == ["이름 | 값", "가 | 1"]
    assert table.header == "이름 | 값\n"
    deep = json.dumps({"a": {"b": [1, 2]}, "c": [{"d": "x"}]}).encode()
    assert text_of(read(deep, "a.json")).split("\n")[:2] == ["a.b: 1, 2", "c.d: x"]
    assert "k: 1" in text_of(read(b'{"k": 1}\n{"k": 2}\n', "a.jsonl"))


# -- packages ---------------------------------------------------------------------------------
def test_docx_headings_tables_and_text_boxes_once(read: Read) -> None:
    document = docx.Document()
    document.add_heading("Rules", 1)
    document.add_paragraph("First\trule.")
    table = document.add_table(rows=2, cols=2)
    for row in range(2):
        for column in range(2):
            table.cell(row, column).text = f"r{row}c{column}"
    document.add_heading("Part", 2)
    document.add_paragraph("Last.")
    sections = read(saved(document), "a.docx")
    assert [(s.kind, s.section) for s in sections] == [
        ("heading", "Rules"), ("text", "Rules"), ("table", "Rules"),
        ("heading", "Rules > Part"), ("text", "Rules > Part"),
    ]  # fmt: skip
    assert sections[2].text == "r0c0 | r0c1\nr1c0 | r1c1\n\n"


def test_pptx_slides_are_pages_in_shown_order_with_notes(read: Read) -> None:
    deck = pptx.Presentation()
    for number in (1, 2):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Title {number}"
        slide.placeholders[1].text = f"Body {number}"
        slide.notes_slide.notes_text_frame.text = f"Say {number}"
    order = deck.slides._sldIdLst
    order.append(order[0])  # the first becomes the last
    sections = read(saved(deck), "a.pptx")
    assert [(s.page, s.text.strip()) for s in sections] == [
        (1, "Title 2"), (1, "Body 2"), (1, "Say 2"), (2, "Title 1"), (2, "Body 1"), (2, "Say 1"),
    ]  # fmt: skip


def test_xlsx_sheets_dates_percent_and_gaps(read: Read) -> None:
    import datetime as dt

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "예산"
    sheet.append(["품목", "날짜", "비율"])
    sheet.append(["책상", dt.date(2026, 3, 2), 0.25])
    sheet["C2"].number_format = "0%"
    sheet["E3"] = "far"
    book.create_sheet("Empty")
    book.create_sheet("둘")["A1"] = True
    sections = read(saved(book), "a.xlsx")
    table = next(s for s in sections if s.kind == "table")
    assert table.text == "품목 | 날짜 | 비율\n책상 | 2026-03-02 | 25%\n |  |  |  | far\n\n"
    assert [(s.page, s.section) for s in sections if s.kind == "heading"] == [
        (1, "예산"),
        (3, "둘"),
    ]


def test_eml_headers_body_and_attachments(read: Read) -> None:
    raw = (
        "From: =?ks_c_5601-1987?B?"
        + __import__("base64").b64encode("김하나".encode("cp949")).decode()
        + "?= <kim@example.org>\r\nSubject: Plan\r\nDate: Mon, 2 Mar 2026 10:00:00 +0900\r\n"
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        "Content-Type: multipart/alternative; boundary=c\r\n\r\n"
        "--c\r\nContent-Type: text/plain\r\n\r\n"
        "plain twin\r\n--c\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
        "<p>See you at <b>six</b>.</p>"
        "\r\n--c--\r\n--b\r\nContent-Type: application/pdf\r\n"
        'Content-Disposition: attachment; filename="map.pdf"\r\n\r\nxx\r\n--b--\r\n'
    )
    text = text_of(read(raw.encode(), "a.eml"))
    assert "김하나" in text
    assert "See you at six." in text
    assert "plain twin" not in text
    assert "Attachments: map.pdf" in text


# -- PDF --------------------------------------------------------------------------------------
def test_pdf_pages(read: Read) -> None:
    sections = read(pdf_of("First page speaks.", "Second page answers."), "a.pdf")
    assert [(s.page, s.text.strip()) for s in sections] == [
        (1, "First page speaks."), (2, "Second page answers."),
    ]  # fmt: skip


def image_pdf(pages: int, text_on: int = 0) -> bytes:
    from PIL import Image

    pdf = FPDF()
    for number in range(pages):
        pdf.add_page()
        if number < text_on:
            pdf.set_font("Helvetica", size=12)
            pdf.multi_cell(0, 8, "A page with enough words to be a page of text.")
        else:
            pdf.image(Image.new("RGB", (80, 80), (200, 20, number)), w=100)
    return bytes(pdf.output())


def test_pdf_of_images_needs_ocr_and_says_how_many(read: Read) -> None:
    assert refused(read, image_pdf(3), "a.pdf") == "needs_ocr"
    assert refused(read, image_pdf(5, text_on=1), "a.pdf") == "needs_ocr"
    assert len(read(image_pdf(3, text_on=2), "a.pdf")) == 2, "a picture among pages is no scan"


def test_pdf_encrypted_empty_truncated(read: Read) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=12)
    pdf.multi_cell(0, 8, "secret")
    pdf.set_encryption(owner_password="o", user_password="u")
    assert refused(read, bytes(pdf.output()), "a.pdf") == "encrypted"
    blank = FPDF()
    blank.add_page()
    assert refused(read, bytes(blank.output()), "a.pdf") == "empty"
    whole = pdf_of(*[f"Page {n} of a longer text." for n in range(9)])
    assert refused(read, whole[: len(whole) // 2], "a.pdf") == "corrupt"
    assert refused(read, whole[: len(whole) // 2] + b"\n%%EOF\n", "a.pdf") == "corrupt"


# -- what is refused --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("head", "name", "code"),
    [
        (b"", "a.docx", "empty"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "photo.txt", "unsupported_type"),
        (bytes(range(256)) * 64, "a.txt", "unsupported_type"),
        (b"PK\x05\x06" + bytes(18), "a.zip", "unsupported_type"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a.hwp", "corrupt"),
        (b'{"a": [1, 2, {"b": "cut off', "a.json", "corrupt"),
        (b"...!!!\n---\n", "a.txt", "empty"),
    ],
)
def test_refusals_by_bytes(read: Read, head: bytes, name: str, code: str) -> None:
    assert refused(read, head, name) == code


def test_an_office_file_with_a_password_is_encrypted(read: Read) -> None:
    head = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000) + "EncryptedPackage".encode("utf-16-le")
    )
    assert refused(read, head + bytes(1000), "a.docx") == "encrypted"


def test_a_package_without_words_is_no_success(read: Read) -> None:
    assert refused(read, saved(docx.Document()), "a.docx") == "empty"
    flyer = docx.Document()
    flyer.add_paragraph("SALE")
    assert text_of(read(saved(flyer), "a.docx")).strip() == "SALE"


def test_entities_are_a_bomb(read: Read) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><d>&b;</d>'
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr("word/document.xml", bomb)
    assert refused(read, buffer.getvalue(), "a.docx") == "decompression_bomb"


def test_a_lying_size_in_the_directory_is_corrupt(read: Read) -> None:
    whole = bytearray((CORPUS / "보안-서약-안내.hwpx").read_bytes())
    entry = whole.find(b"PK\x01\x02", whole.rfind(b"Contents/section0.xml") - 60)
    struct.pack_into("<I", whole, entry + 24, 20)  # uncompressed size: 20 bytes
    assert refused(read, bytes(whole), "a.hwpx") in ("corrupt", "empty", "too_little_text")


def test_an_html_shell_is_too_little(read: Read) -> None:
    shell = "<html><body><div id=root>App</div><script>" + "x();" * 8000 + "</script></body></html>"
    assert refused(read, shell.encode(), "a.html") == "too_little_text"
