"""Korean PDFs of any length, for tests and benchmarks, without a font file."""

from __future__ import annotations


def korean_pdf(pages: int) -> bytes:
    """A PDF of so many pages, twelve lines each; page *n* says ``n쪽`` in every line.

    Its font is one that the viewer brings (nothing embedded); pdfium reads it by its CMap.
    """
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    add(b"")  # 1: catalog, 2: pages
    add(b"")
    descriptor = add(
        b"<< /Type /FontDescriptor /FontName /HYSMyeongJo-Medium /Flags 6 /ItalicAngle 0"
        b" /Ascent 880 /Descent -120 /CapHeight 880 /StemV 93 /FontBBox [0 -200 1000 900] >>"
    )
    child = add(
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /HYSMyeongJo-Medium /CIDSystemInfo"
        b" << /Registry (Adobe) /Ordering (Korea1) /Supplement 1 >> /DW 1000"
        b" /FontDescriptor %d 0 R >>" % descriptor
    )
    font = add(
        b"<< /Type /Font /Subtype /Type0 /BaseFont /HYSMyeongJo-Medium /Encoding /UniKS-UTF16-H"
        b" /DescendantFonts [%d 0 R] >>" % child
    )
    kids: list[int] = []
    for number in range(1, pages + 1):
        shown = b""
        for line in range(12):
            text = f"{number}쪽 {line}째 줄은 창고의 재고와 운송 계획을 설명합니다."
            hexed = text.encode("utf-16-be").hex().encode()
            shown += b"BT /F 11 Tf 60 %d Td <%s> Tj ET\n" % (780 - 20 * line, hexed)
        content = add(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(shown), shown))
        kids.append(
            add(
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
                b" /Resources << /Font << /F %d 0 R >> >> >>" % (content, font)
            )
        )
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    refs = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, refs)
    out = b"%PDF-1.5\n"
    places: list[int] = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\n"
        b"startxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table, len(objects) + 1, len(out))
    )
