"""Writes `examples/corpus/`: the same bytes each time.

Needs the development dependencies and, for the Korean PDF, Debian's `fonts-nanum`:

    python examples/make_corpus.py
"""

from __future__ import annotations

import csv
import datetime as dt
import html
import io
import json
import logging
import sys
import zipfile
from email.message import EmailMessage
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import docx
import openpyxl
import pptx
from fpdf import FPDF

sys.path.insert(0, str(Path(__file__).parent))
from corpus_source_en import ENGLISH, Block
from corpus_source_ko import KOREAN

FIXED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ZIP_DATE = (2026, 1, 1, 0, 0, 0)
FONTS = Path("/usr/share/fonts/truetype/nanum")


def lines(blocks: list[Block]) -> str:
    """Plain text: paragraphs with a blank line between."""
    return "\n\n".join(text for kind, text in blocks if kind == "p") + "\n"


def write_pdf(path: Path, title: str, blocks: list[Block]) -> None:
    pdf = FPDF()
    pdf.set_creation_date(FIXED)
    pdf.set_title(title)
    pdf.add_font("Nanum", "", str(FONTS / "NanumGothic.ttf"))
    pdf.add_font("Nanum", "B", str(FONTS / "NanumGothicBold.ttf"))
    pdf.set_margin(25)
    pdf.add_page()
    for kind, value in blocks:
        if kind == "page":
            pdf.add_page()
        elif kind in ("h1", "h2"):
            pdf.set_font("Nanum", size=18 if kind == "h1" else 14)
            pdf.multi_cell(0, 10, value, new_x="LMARGIN", new_y="NEXT")
        elif kind == "table":
            pdf.set_font("Nanum", size=11)
            with pdf.table() as table:
                for row in value:
                    table.row(row)
        else:
            pdf.set_font("Nanum", size=11)
            texts = [f"- {item}" for item in value] if kind == "list" else [value]
            for text in texts:
                pdf.multi_cell(0, 7, text, new_x="LMARGIN", new_y="NEXT")
            pdf.ln(3)
    pdf.output(str(path))


def write_docx(path: Path, title: str, blocks: list[Block]) -> None:
    document = docx.Document()
    properties = document.core_properties
    properties.title, properties.author = title, "Haneul Robotics"
    properties.created = properties.modified = FIXED.replace(tzinfo=None)
    for kind, value in blocks:
        if kind in ("h1", "h2"):
            document.add_heading(value, int(kind[1]))
        elif kind == "p":
            document.add_paragraph(value)
        elif kind == "list":
            for item in value:
                document.add_paragraph(item, style="List Bullet")
        elif kind == "table":
            table = document.add_table(rows=len(value), cols=len(value[0]))
            for row, cells in zip(table.rows, value, strict=True):
                for cell, text in zip(row.cells, cells, strict=True):
                    cell.text = text
    document.save(str(path))
    same_dates(path)


def write_pptx(path: Path, title: str, blocks: list[Block]) -> None:
    deck = pptx.Presentation()
    properties = deck.core_properties
    properties.title, properties.author = title, "Haneul Robotics"
    properties.created = properties.modified = FIXED.replace(tzinfo=None)
    slide: Any = None
    for kind, value in blocks:
        if kind == "slide":
            slide = deck.slides.add_slide(deck.slide_layouts[1])
            slide.shapes.title.text = value
        elif kind == "p":
            slide.placeholders[1].text = value
        elif kind == "table":
            size = [pptx.util.Cm(n) for n in (2, 8, 20, 6)]
            table = slide.shapes.add_table(len(value), len(value[0]), *size).table
            for y, row in enumerate(value):
                for x, text in enumerate(row):
                    table.cell(y, x).text = text
    deck.save(str(path))
    same_dates(path)


def write_xlsx(path: Path, title: str, blocks: list[Block]) -> None:
    book = openpyxl.Workbook()
    book.remove(book.active)
    book.properties.title, book.properties.creator = title, "Haneul Robotics"
    book.properties.created = FIXED.replace(tzinfo=None)
    sheet: Any = None
    for kind, value in blocks:
        if kind == "sheet":
            sheet = book.create_sheet(value)
        else:
            for row in value:
                sheet.append([int(cell) if cell.isdigit() else cell for cell in row])
    book.save(str(path))
    same_dates(path)


def same_dates(path: Path) -> None:
    """Zip members carry the time of writing, workbooks the time of saving: make them the same."""
    with zipfile.ZipFile(path) as source:
        members = [(info.filename, source.read(info)) for info in source.infolist()]
    with zipfile.ZipFile(path, "w") as target:
        for name, data in members:
            if name == "docProps/core.xml":
                head, mark, rest = data.partition(b"<dcterms:modified")
                if mark:
                    opening, _, after = rest.partition(b">")
                    _, closing, tail = after.partition(b"</dcterms:modified>")
                    data = head + mark + opening + b">2026-01-01T00:00:00Z" + closing + tail
            add(target, name, data)


def add(target: zipfile.ZipFile, name: str, data: bytes | str, *, stored: bool = False) -> None:
    info = zipfile.ZipInfo(name, ZIP_DATE)
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    target.writestr(info, data)


def html_body(blocks: list[Block]) -> str:
    parts: list[str] = []
    for kind, value in blocks:
        if kind in ("h1", "h2", "p"):
            parts.append(f"<{kind}>{html.escape(value)}</{kind}>")
        elif kind == "table":
            rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in value]
            rows[0] = rows[0].replace("td>", "th>")
            parts.append("<table>" + "".join(f"<tr>{row}</tr>\n" for row in rows) + "</table>")
    return "\n".join(parts)


def write_html(path: Path, title: str, blocks: list[Block]) -> None:
    lang = "ko" if title[0] > "\u1100" else "en"
    path.write_text(
        f'<!doctype html>\n<html lang="{lang}">\n<head><meta charset="utf-8"><title>{title}</title>'
        "<style>body { max-width: 40em }</style></head>\n<body>\n<nav><a href='/'>Home</a></nav>\n"
        f"<main>\n{html_body(blocks)}\n</main>\n<script>console.log('not for readers')</script>\n"
        "</body>\n</html>\n",
        encoding="utf-8",
    )


def write_epub(path: Path, title: str, blocks: list[Block]) -> None:
    chapters: list[list[Block]] = []
    for block in blocks:
        if block[0] == "h1":
            chapters.append([])
        chapters[-1].append(block)
    names = [f"chapter{number}.xhtml" for number in range(1, len(chapters) + 1)]
    items = "".join(
        f'<item id="c{n}" href="{name}" media-type="application/xhtml+xml"/>'
        for n, name in enumerate(names)
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(names)))
    with zipfile.ZipFile(path, "w") as book:
        add(book, "mimetype", "application/epub+zip", stored=True)
        add(
            book,
            "META-INF/container.xml",
            '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        add(
            book,
            "OEBPS/content.opf",
            f'<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">{escape(title)}</dc:identifier><dc:title>{escape(title)}</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>',
        )
        for name, chapter in zip(names, chapters, strict=True):
            add(
                book,
                f"OEBPS/{name}",
                f'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{escape(title)}</title></head><body>{html_body(chapter)}</body></html>',
            )


def write_md(path: Path, title: str, blocks: list[Block]) -> None:
    parts: list[str] = []
    for kind, value in blocks:
        if kind in ("h1", "h2"):
            parts.append("#" * int(kind[1]) + f" {value}")
        elif kind == "code":
            parts.append(f"```sh\n{value}\n```")
        elif kind == "table":
            rows = ["| " + " | ".join(row) + " |" for row in value]
            parts.append("\n".join([rows[0], "|" + " --- |" * len(value[0]), *rows[1:]]))
        else:
            parts.append(value)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_csv(path: Path, blocks: list[Block], encoding: str) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(blocks[0][1])
    path.write_bytes(out.getvalue().encode(encoding))


def write_eml(path: Path, title: str, blocks: list[Block]) -> None:
    values = dict(blocks)
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = title, values["from"], values["to"]
    mail["Date"] = format_datetime(parsedate_to_datetime(values["date"]))
    mail["Message-ID"] = f"<{path.stem.encode().hex()[:24]}@haneul-robotics.example>"
    mail.set_content(lines(blocks), charset="utf-8", cte="base64")
    mail.add_attachment(
        b"%PDF-1.4\n%%EOF\n", maintype="application", subtype="pdf", filename=values["attachment"]
    )
    mail.set_boundary("=-unjam-corpus-=")
    path.write_bytes(mail.as_bytes())


def write_hwpx(path: Path, title: str, blocks: list[Block]) -> None:
    styles = {"h1": 1, "h2": 2}

    def paragraph(text: str, style: int = 0, inner: str = "") -> str:
        body = f"<hp:t>{escape(text)}</hp:t>" if text else ""
        return f'<hp:p paraPrIDRef="0" styleIDRef="{style}"><hp:run charPrIDRef="0">{body}{inner}</hp:run></hp:p>'

    parts: list[str] = []
    for kind, value in blocks:
        if kind == "list":
            parts.extend(paragraph(f"- {item}") for item in value)
        elif kind == "table":
            rows = "".join(
                "<hp:tr>"
                + "".join(
                    f"<hp:tc><hp:subList>{paragraph(cell)}</hp:subList></hp:tc>" for cell in row
                )
                + "</hp:tr>"
                for row in value
            )
            parts.append(
                paragraph(
                    "",
                    inner=f'<hp:tbl rowCnt="{len(value)}" colCnt="{len(value[0])}">{rows}</hp:tbl>',
                )
            )
        else:
            parts.append(paragraph(value, styles.get(kind, 0)))
    space = 'xmlns:hp="http://www.hancom.co.kr/hwpml/2011/paragraph" xmlns:hs="http://www.hancom.co.kr/hwpml/2011/section" xmlns:hh="http://www.hancom.co.kr/hwpml/2011/head"'
    declaration = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    with zipfile.ZipFile(path, "w") as book:
        add(book, "mimetype", "application/hwp+zip", stored=True)
        add(
            book,
            "version.xml",
            f'{declaration}<hv:HCFVersion xmlns:hv="http://www.hancom.co.kr/hwpml/2011/version" targetApplication="WORDPROCESSOR" major="5" minor="1" micro="0" buildNumber="1"/>',
        )
        add(
            book,
            "Contents/content.hpf",
            f'{declaration}<opf:package xmlns:opf="http://www.idpf.org/2007/opf/"><opf:metadata><opf:title>{escape(title)}</opf:title></opf:metadata><opf:manifest><opf:item id="header" href="Contents/header.xml" media-type="application/xml"/><opf:item id="section0" href="Contents/section0.xml" media-type="application/xml"/></opf:manifest><opf:spine><opf:itemref idref="section0"/></opf:spine></opf:package>',
        )
        add(
            book,
            "Contents/header.xml",
            f'{declaration}<hh:head {space}><hh:refList><hh:styles><hh:style id="0" type="PARA" name="바탕글" engName="Normal"/><hh:style id="1" type="PARA" name="개요 1" engName="Outline 1"/><hh:style id="2" type="PARA" name="개요 2" engName="Outline 2"/></hh:styles></hh:refList></hh:head>',
        )
        add(
            book, "Contents/section0.xml", f"{declaration}<hs:sec {space}>{''.join(parts)}</hs:sec>"
        )


def write(folder: Path, name: str, title: str, blocks: list[Block]) -> Path:
    kind = name.rpartition(".")[2]
    path = folder / (name.removesuffix("16").removesuffix("949"))
    if kind in ("txt", "txt16", "txt949"):
        encoding = {"txt": "utf-8", "txt16": "utf-16", "txt949": "cp949"}[kind]
        path.write_bytes(lines(blocks).replace("\n", "\r\n").encode(encoding))
    elif kind in ("csv", "csv949"):
        write_csv(path, blocks, "cp949" if kind == "csv949" else "utf-8")
    elif kind == "json":
        path.write_text(json.dumps(blocks[0][1], ensure_ascii=False, indent=2) + "\n", "utf-8")
    elif kind == "py":
        path.write_text(blocks[0][1], "utf-8")
    else:
        writers = {
            "pdf": write_pdf, "docx": write_docx, "pptx": write_pptx, "xlsx": write_xlsx,
            "html": write_html, "epub": write_epub, "md": write_md, "eml": write_eml,
            "hwpx": write_hwpx,
        }  # fmt: skip
        writers[kind](path, title, blocks)
    return path


def main(folder: Path) -> None:
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for name, (title, blocks) in {**ENGLISH, **KOREAN}.items():
        path = write(folder, name, title, blocks)
        total += path.stat().st_size
        print(f"{path.stat().st_size:>8,}  {path.name}")
    print(f"{total:>8,}  bytes in all")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "corpus")
