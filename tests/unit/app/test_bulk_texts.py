"""What a back-fill reads: files, lines and rows, and what it says of those that are unfit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.s3 import S3Server
from unjam.app.bulk import register
from unjam.app.bulk.texts import Columns, Item, Reading, Unfit
from unjam.core.errors import UsageError
from unjam.stores import bulk_source
from unjam.stores.bulk_source import BulkSource, Part


def read(where: str | Path, kind: Any = None, **how: Any) -> list[Item | Unfit]:
    reading = Reading(BulkSource.at(str(where)), **how)
    return [item for part in reading.source.parts(kind) for item in reading.items(part)]


def test_lines_with_what_they_bring_along(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows: list[Any] = [
        {"text": "one", "id": 7, "user_id": "ann", "metadata": {"year": 2026}},
        {"text": "둘", "metadata": '{"k": ["v"]}'},
    ]
    file.write_text("\ufeff" + "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows))
    first, second = read(file, user_id="bob")
    assert first == Item(f"{file}, line 1", "7", b"one", "", "ann", {"year": 2026}, "text/plain")
    assert second == Item(
        f"{file}, line 3", "a.jsonl-3.txt", "둘".encode(), "", "bob", {"k": ["v"]}, "text/plain"
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[1]", "not an object"),
        (b'{"body": "x"}', "field 'text' is absent; there are: body"),
        (b'{"text": 5}', "field 'text' is no text"),
        (b'{"text": "  "}', "field 'text' is empty"),
        (b'{"text": "x", "metadata": [1]}', "metadata must be a JSON object"),
        (b'{"text": "x", "metadata": {"a": {"b": 1}}}', "metadata 'a' must be a scalar"),
        (b'{"text": "x", "user_id": "a\\u0000"}', "user_id must be"),
    ],
)
def test_a_line_that_is_unfit_is_named_and_the_next_goes_on(
    tmp_path: Path, line: bytes, why: str
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    before, unfit, after = read(file)
    assert isinstance(before, Item) and isinstance(after, Item)
    assert isinstance(unfit, Unfit)
    assert unfit.where == f"{file}, line 2" and why in unfit.why


def test_other_names_of_the_fields(tmp_path: Path) -> None:
    file = tmp_path / "a.ndjson"
    file.write_text('{"b": "x", "i": "n1", "u": "ann", "m": {"a": 1}}\n')
    (item,) = read(file, columns=Columns("b", "i", "u", "m"))
    assert isinstance(item, Item)
    assert (item.data, item.filename, item.user_id, item.metadata) == (b"x", "n1", "ann", {"a": 1})


def test_a_folder_is_read_by_endings_and_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_source, "FILES_A_PART", 2)
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.txt", "sub/c.txt", ".hidden", "half.part"):
        (tmp_path / name).write_text(name)
    (tmp_path / "rows.jsonl").write_text('{"text": "row"}\n')
    source = BulkSource.at(str(tmp_path))
    assert list(source.parts()) == [
        Part("files", ("a.txt", "b.txt")),
        Part("jsonl", ("rows.jsonl",)),
        Part("files", ("sub/c.txt",)),
    ]
    assert {p.kind for p in source.parts("files")} == {"files"}
    found = {i.filename: i.data for i in read(tmp_path, "files") if isinstance(i, Item)}
    assert found["sub/c.txt"] == b"sub/c.txt" and found["rows.jsonl"] == b'{"text": "row"}\n'


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        BulkSource.at(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="the source cannot be used"):
        BulkSource.at("s3://bucket/x?colour=red")


def test_rows_of_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="unjam[parquet] is not installed")
    import pyarrow as pa

    table: Any = pa.table(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        {"text": ["one", None], "id": [1, 2], "metadata": [{"a": 1, "b": None}, None]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    item, unfit = read(tmp_path / "a.parquet")
    assert isinstance(item, Item) and isinstance(unfit, Unfit)
    assert (item.data, item.filename, item.metadata) == (b"one", "1", {"a": 1})
    assert unfit.where == f"{tmp_path / 'a.parquet'}, row 2"
    (missing,) = read(tmp_path / "a.parquet", columns=Columns("body"))
    assert isinstance(missing, Unfit)
    assert "no column 'body'; it has id, metadata, text" in missing.why
    (tmp_path / "b.parquet").write_text("no Parquet")
    (broken,) = read(tmp_path / "b.parquet")
    assert isinstance(broken, Unfit) and "b.parquet" in broken.why


def test_groups_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "AT_ONCE", 3)
    monkeypatch.setattr(register, "AT_ONCE_BYTES", 10)
    sizes = [4, 4, 4, 20, 1, 1, 1, 1]
    items = [Item("", str(n), b"x" * n) for n in sizes]
    groups = [
        [len(i.data or b"") for i in group if isinstance(i, Item)]
        for group in register._groups(iter(items))  # pyright: ignore[reportPrivateUsage]
    ]
    assert groups == [[4, 4], [4], [20], [1, 1, 1], [1]]


@pytest.mark.thorough
def test_a_prefix_of_a_bucket(s3_server: S3Server) -> None:
    url = s3_server.url()
    folder = s3_server.objects(url)
    store = bulk_source.S3Place.parse(url).open()
    import obstore

    obstore.put(store, "a/one.txt", b"one")
    obstore.put(store, "rows.jsonl", b'{"text": "x"}\nbad\n{"text": "y"}')
    obstore.put(store, ".hidden", b"no")
    assert folder
    found = read(url)
    texts = {i.filename: i.data for i in found if isinstance(i, Item)}
    assert texts == {"a/one.txt": b"one", "rows.jsonl-1.txt": b"x", "rows.jsonl-3.txt": b"y"}
    (unfit,) = [i for i in found if isinstance(i, Unfit)]
    assert unfit.where == f"{url.partition('?')[0]}/rows.jsonl, line 2"
    # One file of the prefix by itself.
    head, mark, options = url.partition("?")
    assert len(read(f"{head}/rows.jsonl{mark}{options}")) == 3
