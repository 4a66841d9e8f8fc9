"""Uploads: one or many, duplicates, both kinds of idempotency, malformed and oversized bodies."""

from __future__ import annotations

import asyncio
import hashlib
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.web import TestHouse, Web, open_house, run_web
from unjam.core.errors import DependencyDown
from unjam.pipeline.intake import IntakeLimits
from unjam.testing.wait import until

BOUNDARY = "xxBOUNDARYxx"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(disposition: str, data: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode("utf-8", "surrogateescape") + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def post(web: Web, content: bytes, headers: dict[str, str] = MULTIPART) -> httpx.Response:
    return await web.http.post("/api/rag/documents", content=content, headers=headers)


def leftovers(house: TestHouse) -> list[Path]:
    return list((house.blobs.root / "tmp").glob("up-*"))


async def nothing_left(house: TestHouse) -> None:
    async def look() -> list[Path]:
        return leftovers(house)

    await until("no leftovers", look, lambda left: not left)


async def test_an_upload_is_answered_with_its_place_and_is_on_disk(web: Web) -> None:
    answer = await web.upload(b"hello", "hello.txt")
    assert answer.status_code == 202
    seen = answer.json()
    assert answer.headers["location"] == f"/api/rag/documents/{seen['id']}"
    assert (seen["state"], seen["outcome"], seen["status"]) == ("received", "created", 202)
    stored = await web.house.blobs.path(hashlib.sha256(b"hello").hexdigest())
    assert stored.read_bytes() == b"hello"
    assert leftovers(web.house) == []


async def test_the_same_bytes_again_are_a_duplicate_and_names_are_kept(web: Web) -> None:
    first = await web.added(b"same", "one.txt", user_id="kim")
    answer = await web.upload(b"same", "two.txt", user_id="kim")
    assert answer.status_code == 200
    assert answer.json()["duplicate_of"] == answer.json()["id"] == first
    assert answer.headers["location"].endswith(first)
    seen = (await web.http.get(f"/api/rag/documents/{first}")).json()
    assert seen["names"] == ["two.txt"]
    other = await web.upload(b"same", "one.txt", user_id="lee")
    assert other.status_code == 202
    assert other.json()["id"] != first


async def test_a_duplicate_costs_no_fsync_but_heals_a_lost_original(web: Web) -> None:
    await web.added(b"same")
    commits: list[int] = []
    commit = web.house.blobs.commit

    async def counted(writers: list) -> None:
        commits.append(len(writers))
        await commit(writers)

    web.house.blobs.commit = counted  # type: ignore[method-assign]
    assert (await web.upload(b"same")).status_code == 200
    assert commits == []
    assert leftovers(web.house) == []
    stored = await web.house.blobs.path(hashlib.sha256(b"same").hexdigest())
    stored.unlink()
    assert (await web.upload(b"same")).status_code == 200
    assert stored.read_bytes() == b"same"


async def test_a_dead_copy_is_retried_in_place(web: Web) -> None:
    document_id = await web.added(b"was locked")
    await web.house.park(document_id)
    answer = await web.upload(b"was locked")
    assert (answer.status_code, answer.json()["outcome"]) == (202, "revived")
    assert answer.json()["id"] == document_id


async def test_a_deleted_copy_is_no_duplicate(web: Web) -> None:
    document_id = await web.added(b"gone")
    await web.http.delete(f"/api/rag/documents/{document_id}")
    assert await web.added(b"gone") != document_id


async def test_a_duplicate_that_vanishes_meanwhile_is_stored_after_all(web: Web) -> None:
    """find_live said yes, then the document was deleted before the ledger was asked."""
    old = await web.added(b"race")
    accept = web.house.ledger.accept

    async def after_a_delete(submissions: list) -> list:
        if not submissions[0].blob_durable:
            await web.house.ledger.delete(old)
        return await accept(submissions)

    web.house.ledger.accept = after_a_delete  # type: ignore[method-assign]
    answer = await web.upload(b"race")
    assert (answer.status_code, answer.json()["outcome"]) == (202, "created")
    assert answer.json()["id"] != old
    assert leftovers(web.house) == []


async def test_two_simultaneous_uploads_of_the_same_bytes_are_one_document(web: Web) -> None:
    for n in range(5):
        data = f"twins {n}".encode()
        answers = await asyncio.gather(*(web.upload(data, f"{i}.txt") for i in range(6)))
        assert len({a.json()["id"] for a in answers}) == 1
        assert sorted(a.status_code for a in answers) == [200] * 5 + [202]
    assert (await web.http.get("/api/rag/ledger")).json()["accepted"] == 5


async def test_an_idempotency_key_answers_the_same_document(web: Web) -> None:
    first = await web.upload(b"one", key="k-1", user_id="kim")
    again = await web.upload(b"one", key="k-1", user_id="kim")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotency-replayed"] == "true"
    conflict = await web.upload(b"two", key="k-1", user_id="kim")
    assert conflict.status_code == 409
    assert conflict.json()["code"] == "idempotency_conflict"
    assert conflict.headers["content-type"] == "application/problem+json"
    assert (await web.upload(b"two", key="k-1", user_id="lee")).status_code == 202
    assert leftovers(web.house) == []


async def test_several_files_share_one_fsync_and_have_their_own_outcomes(web: Web) -> None:
    await web.added(b"known")
    commits: list[int] = []
    commit = web.house.blobs.commit

    async def counted(writers: list) -> None:
        commits.append(len(writers))
        await commit(writers)

    web.house.blobs.commit = counted  # type: ignore[method-assign]
    files = [("file", (f"{n}.txt", data)) for n, data in enumerate([b"new", b"known", b"new"])]
    answer = await web.http.post("/api/rag/documents", files=files)
    assert answer.status_code == 202
    items = answer.json()["items"]
    assert [i["status"] for i in items] == [202, 200, 200]
    assert items[2]["duplicate_of"] == items[0]["id"]
    assert [i["filename"] for i in items] == ["0.txt", "1.txt", "2.txt"]
    assert commits == [2]
    keyed = {"Idempotency-Key": "batch"}
    files = [("file", (f"{n}.txt", f"k{n}".encode())) for n in range(3)]
    one = await web.http.post("/api/rag/documents", files=files, headers=keyed)
    two = await web.http.post("/api/rag/documents", files=files, headers=keyed)
    assert [i["id"] for i in one.json()["items"]] == [i["id"] for i in two.json()["items"]]
    assert {i["outcome"] for i in two.json()["items"]} == {"replayed"}
    files[1] = ("file", ("1.txt", b"other"))
    three = await web.http.post("/api/rag/documents", files=files, headers=keyed)
    assert [i["status"] for i in three.json()["items"]] == [202, 409, 202]
    assert three.json()["items"][1]["code"] == "idempotency_conflict"


async def test_fields_may_come_in_any_order(web: Web) -> None:
    content = body(
        part('name="file"; filename="a.txt"', b"payload"),
        part('name="metadata"', b'{"n": 1}'),
        part('name="user_id"', "김철수".encode()),
    )
    answer = await post(web, content)
    assert answer.status_code == 202, answer.text
    seen = (await web.http.get(answer.headers["location"])).json()
    assert (seen["user_id"], seen["metadata"]) == ("김철수", {"n": 1})


async def test_a_body_that_trickles_in_byte_by_byte(web: Web) -> None:
    content = body(
        part('name="user_id"', b"kim"), part('name="file"; filename="a.txt"', b"pay\r\n--load")
    )

    async def bytes_one_by_one() -> AsyncIterator[bytes]:
        for n in range(len(content)):
            yield content[n : n + 1]

    answer = await web.http.post(
        "/api/rag/documents", content=bytes_one_by_one(), headers=MULTIPART
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["size_bytes"] == len(b"pay\r\n--load")


@pytest.mark.parametrize(
    ("disposition", "shown"),
    [
        ('filename="../../etc/passwd"', "passwd"),
        ('filename="C:\\\\Users\\\\kim\\\\보고서.pdf"', "보고서.pdf"),
        (f'filename="{unicodedata.normalize("NFD", "한글 문서.txt")}"', "한글 문서.txt"),
        ("filename=\"x\"; filename*=UTF-8''%ED%95%9C%EA%B8%80.txt", "한글.txt"),
        (
            'filename="' + "한글.txt".encode("cp949").decode("utf-8", "surrogateescape") + '"',
            "한글.txt",
        ),
        ('filename="a\u202efdp.exe"', "afdp.exe"),
        ('filename="a\x07b.txt"', "ab.txt"),
        ('filename=".."', "document"),
        ('filename=""', "document"),
        ("", "document"),
        ('filename="' + "가" * 300 + '.txt"', "가" * 251 + ".txt"),
    ],
)
async def test_names_are_labels_and_made_safe(web: Web, disposition: str, shown: str) -> None:
    answer = await post(web, body(part(f'name="file"; {disposition}', b"x")))
    assert answer.status_code == 202, answer.text
    assert answer.json()["filename"] == shown


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([], 422, "missing_file"),
        ([part('name="files"; filename="a"', b"x")], 422, "missing_file"),
        ([part('name="file"', b"x"), part('name="metadata"', b"[1]")], 422, "invalid_metadata"),
        ([part('name="file"', b"x"), part('name="metadata"', b"{")], 422, "invalid_metadata"),
        (
            [part('name="file"', b"x"), part('name="metadata"', b'{"a": {"b": 1}}')],
            422,
            "invalid_metadata",
        ),
        (
            [part('name="file"', b"x"), part('name="metadata"', b'{"a": NaN}')],
            422,
            "invalid_metadata",
        ),
        (
            [part('name="file"', b"x"), part('name="metadata"', b'{"a": "\\u0000"}')],
            422,
            "invalid_metadata",
        ),
        (
            [part('name="file"', b"x"), part('name="metadata"', b'{"a": "' + b"x" * 17000 + b'"}')],
            422,
            "invalid_metadata",
        ),
        ([part('name="file"', b"x"), part('name="user_id"', b"a\x00b")], 422, "invalid_label"),
        ([part('name="file"', b"x"), part('name="user_id"', b"x" * 256)], 422, "invalid_label"),
        ([part('name="file"', b"x"), part('name="user_id"', b"\xff\xfe")], 422, "invalid_label"),
    ],
)
async def test_unfit_forms_are_refused_and_leave_nothing(
    web: Web, parts: list[bytes], status: int, code: str
) -> None:
    answer = await post(web, body(*parts))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["hint"]
    assert leftovers(web.house) == []
    assert (await web.http.get("/api/rag/ledger")).json()["accepted"] == 0


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b'{"file": 1}', "application/json", 415, "unsupported_media_type"),
        (b"", "", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 400, "malformed_body"),
        (b"garbage", f"multipart/form-data; boundary={BOUNDARY}", 400, "malformed_body"),
        (
            part('name="file"; filename="a"', b"cut off"),
            f"multipart/form-data; boundary={BOUNDARY}",
            400,
            "malformed_body",
        ),
        (b"x", f"multipart/form-data; boundary={'b' * 300}", 400, "malformed_body"),
    ],
)
async def test_malformed_bodies_are_refused_and_leave_nothing(
    web: Web, content: bytes, content_type: str, status: int, code: str
) -> None:
    answer = await post(web, content, {"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert leftovers(web.house) == []


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Web]:
    """A server that takes at most 1 MiB."""
    house = await open_house(tmp_path / "small", RAG_MAX_UPLOAD_MB=1)
    async for running in run_web(house):
        yield running
    await house.close()


async def test_too_large_is_told_before_the_body_is_sent(small: Web) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small.port)
    head = (
        "POST /api/rag/documents HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        "Content-Length: 3000000000\r\n\r\n"
    )
    writer.write(head.encode())
    await writer.drain()
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert b" 413 " in answer.split(b"\r\n")[0]
    writer.close()


async def test_too_large_without_an_announcement(small: Web) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield part('name="file"; filename="a"', b"")[:-2]
        for _ in range(40):
            yield b"x" * 65_536

    answer = await small.http.post("/api/rag/documents", content=endless(), headers=MULTIPART)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    await nothing_left(small.house)


async def test_too_many_files(web: Web) -> None:
    parts = [part(f'name="file"; filename="{n}"', b"x") for n in range(101)]
    answer = await post(web, body(*parts))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert leftovers(web.house) == []


async def test_a_client_that_hangs_up_leaves_nothing(web: Web) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", web.port)
    start = part('name="file"; filename="a.txt"', b"the beginning" * 50_000)
    head = (
        "POST /api/rag/documents HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        "Content-Length: 1000000\r\n\r\n"
    )
    writer.write(head.encode() + start)
    await writer.drain()

    async def look() -> list[Path]:
        return leftovers(web.house)

    await until("the upload has begun", look)
    writer.close()
    await nothing_left(web.house)
    assert (await web.http.get("/api/rag/ledger")).json()["accepted"] == 0


async def test_backlog_is_a_429_with_retry_after(web: Web) -> None:
    web.house.intake.limits = IntakeLimits(documents=1)
    await web.added(b"one")
    web.house.intake._checked_at = float("-inf")
    answer = await web.upload(b"two")
    assert (answer.status_code, answer.json()["code"]) == (429, "backlog_full")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_full_disk_is_a_429_before_the_body(web: Web) -> None:
    web.house.intake.limits = IntakeLimits(free_bytes=2**60)
    answer = await web.upload(b"one")
    assert (answer.status_code, answer.json()["code"]) == (429, "disk_low")
    assert int(answer.headers["retry-after"]) >= 1


async def test_an_unwritable_ledger_is_a_503_and_nothing_was_accepted(web: Web) -> None:
    async def refuses(submissions: list) -> list:
        raise DependencyDown("disk full", code="ledger_unwritable", retry_after_s=2.5)

    accept = web.house.ledger.accept
    web.house.ledger.accept = refuses  # type: ignore[method-assign]
    answer = await web.upload(b"one")
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unwritable")
    assert answer.headers["retry-after"] == "3"
    assert "Free disk space" in answer.json()["hint"]
    assert leftovers(web.house) == []
    web.house.ledger.accept = accept  # type: ignore[method-assign]
    assert (await web.upload(b"one")).status_code == 202


async def test_a_large_document_goes_to_its_own_lane(web: Web) -> None:
    document_id = await web.added(b"x" * (10 * 1_048_576 + 1), "big.txt")
    seen = (await web.http.get(f"/api/rag/documents/{document_id}")).json()
    assert seen["lane"] == "rag_large_docs"


async def test_an_empty_file_is_accepted_and_accounted_for(web: Web) -> None:
    answer = await web.upload(b"", "empty.txt")
    assert (answer.status_code, answer.json()["size_bytes"]) == (202, 0)
