"""What only a bucket needs, on a real server: no lock, a far clock, parts, and being away."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fixtures.s3 import S3Server
from tests.fixtures.tls import behind_tls
from unjam.core.errors import DependencyDown, DocumentRejected, SetupError
from unjam.stores.local_copies import IDLE_S, IN_USE_S, LocalCopies
from unjam.stores.s3_blobs import PARTS_LEFT_S, S3Blobs
from unjam.stores.s3_bucket import PART_BYTES
from unjam.stores.s3_leftovers import Leftovers
from unjam.stores.s3_place import S3Place

BOUND = 1 << 30


class Hosts:
    """The same bucket seen from several hosts."""

    def __init__(self, server: S3Server, tmp_path: Path) -> None:
        self.server, self.url, self._tmp, self._count = server, server.url(), tmp_path, 0

    async def open(self, grace_s: float = 0.0) -> S3Blobs:
        self._count += 1
        folder = self._tmp / f"host-{self._count}"
        made = S3Blobs(S3Place.parse(self.url), folder, cache_bytes=BOUND, remove_grace_s=grace_s)
        await made.settle("ledger-1", known=False)
        return made

    def uploads(self, content_hash: str) -> list[Path]:
        folder = self.server.objects(self.url) / content_hash[:2] / content_hash[2:4]
        return sorted((folder / content_hash).glob("*"))


@pytest.fixture
def hosts(s3_server: S3Server, tmp_path: Path) -> Hosts:
    return Hosts(s3_server, tmp_path)


async def put(blobs: S3Blobs, data: bytes) -> str:
    writer = await blobs.create()
    await writer.write(data)
    await blobs.commit([writer])
    return hashlib.sha256(data).hexdigest()


async def test_a_removal_that_lands_late_spares_what_came_meanwhile(hosts: Hosts) -> None:
    """The DELETE is on its way while the same content is uploaded, accepted and read."""
    remover, uploader, reader = [await hosts.open(60.0) for _ in range(3)]
    content_hash = await put(uploader, b"twice")
    hosts.server.age(hosts.uploads(content_hash)[0], 3_600)
    delete = remover._bucket.delete

    async def late(keys: Sequence[str]) -> None:
        await put(uploader, b"twice")
        await delete(keys)
        await delete(keys)  # once more, as a client does that lost the first answer

    remover._bucket.delete = late  # type: ignore[method-assign]
    await remover.remove(content_hash)
    assert len(hosts.uploads(content_hash)) == 1
    assert (await reader.path(content_hash)).read_bytes() == b"twice"


async def test_a_wrong_clock_of_the_host_removes_nothing_early(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = await hosts.open(60.0)
    content_hash = await put(blobs, b"young")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    await blobs.remove(content_hash)
    assert await blobs.stored(int(content_hash[:2], 16), 3_600.0) == {}
    assert await blobs.present([content_hash])


async def test_surplus_uploads_go_and_the_newest_stays(hosts: Hosts) -> None:
    blobs = await hosts.open(60.0)
    for _ in range(3):
        content_hash = await put(blobs, b"again")
    part = int(content_hash[:2], 16)
    for n, upload in enumerate(hosts.uploads(content_hash)[:2]):
        hosts.server.age(upload, 7_200 - n)
    assert await blobs.stored(part, 3_600.0) == {}  # one of its uploads is young
    (left,) = hosts.uploads(content_hash)
    hosts.server.age(left, 7_200)
    assert await blobs.stored(part, 3_600.0) == {content_hash: 5}
    assert hosts.uploads(content_hash) == [left]


@pytest.mark.thorough
async def test_a_large_original_goes_and_comes_in_parts(hosts: Hosts) -> None:
    one, other = await hosts.open(), await hosts.open()
    data = os.urandom(2 * PART_BYTES + 4_321)
    content_hash = await put(one, data)
    assert (await other.path(content_hash)).read_bytes() == data


@pytest.mark.thorough
async def test_bytes_that_are_not_what_their_name_says_are_never_read(hosts: Hosts) -> None:
    one, other = await hosts.open(), await hosts.open()
    content_hash = await put(one, b"whole and right")
    hosts.uploads(content_hash)[0].write_bytes(b"whole and wrong")
    with pytest.raises(DocumentRejected) as caught:
        await other.path(content_hash)
    assert caught.value.code == "original_missing" and "damaged" in caught.value.detail
    await asyncio.sleep(1.1)  # the store's clock has whole seconds, and the newest is read
    await put(one, b"whole and right")
    assert (await other.path(content_hash)).read_bytes() == b"whole and right"


@pytest.mark.thorough
async def test_a_server_that_is_killed_costs_a_wait(hosts: Hosts) -> None:
    blobs, later = await hosts.open(), await hosts.open()
    content_hash = await put(blobs, b"before")
    hosts.server.kill()
    began = time.monotonic()
    writer = await blobs.create()
    await writer.write(b"meanwhile")
    for ask in (blobs.commit([writer]), later.path(content_hash), later.ping()):
        with pytest.raises(DependencyDown) as caught:
            await ask
        assert caught.value.code == "blob_store_down"
        assert "Connection refused" in caught.value.detail
    assert time.monotonic() - began < 10
    assert (await blobs.path(content_hash)).read_bytes() == b"before"  # its own copy
    unsettled = await hosts.open()  # a process that starts meanwhile
    hosts.server.start()
    await blobs.commit([writer])
    assert await unsettled.present([hashlib.sha256(b"meanwhile").hexdigest()])
    await unsettled.ping()


@pytest.mark.thorough
async def test_whose_it_is_is_checked_even_when_it_was_away_at_the_start(
    hosts: Hosts, tmp_path: Path
) -> None:
    await hosts.open()
    hosts.server.kill()
    other = S3Blobs(S3Place.parse(hosts.url), tmp_path / "other", cache_bytes=BOUND)
    await other.settle("ledger-2", known=True)
    hosts.server.start()
    writer = await other.create()
    with pytest.raises(DependencyDown, match="another ledger"):
        await other.commit([writer])
    await writer.abort()


async def test_a_wrong_key_and_a_bucket_that_is_not_there(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = hosts.url.replace("s3://", "s3://no-such-")
    blobs = S3Blobs(S3Place.parse(none), tmp_path / "none", cache_bytes=BOUND)
    await blobs.settle("ledger-1", known=False)
    with pytest.raises(DependencyDown, match="NoSuchBucket"):
        await blobs.ping()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    blobs = S3Blobs(S3Place.parse(hosts.url), tmp_path / "wrong", cache_bytes=BOUND)
    with pytest.raises(DependencyDown, match="403"):
        await blobs.ping()


async def test_parts_whose_upload_never_ended_go(hosts: Hosts) -> None:
    blobs, content_hash = await hosts.open(), "ab" * 32
    begun = Leftovers(blobs.place)
    ours = f"some/prefix/ab/ab/{content_hash}/one"
    foreign = [f"ab/ab/{content_hash}/two", f"other/ab/ab/{content_hash}/three", "some/prefix/x"]
    for key in (ours, *foreign):
        await begun.begin(key)
    assert await blobs.sweep() == 0  # the upload may be under way
    now = blobs._bucket.now

    async def days_later() -> float:
        return await now() + 2 * PARTS_LEFT_S

    blobs._bucket.now = days_later  # type: ignore[method-assign]
    assert await blobs.sweep() == 0  # not before the hour is over
    blobs._parts_due = 0.0
    assert await blobs.sweep() == 1
    left = {one.key for one in await begun.find()}  # this server does not heed the prefix
    assert ours not in left and "some/prefix/x" in left


async def test_a_key_that_may_not_end_uploads_is_no_outage(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = await hosts.open()
    monkeypatch.setattr(blobs._leftovers, "_secret", "wrong")
    assert await blobs.sweep() == 0


async def test_over_tls_with_a_certificate_of_our_own(
    s3_server: S3Server, certificate: Path, tmp_path: Path
) -> None:
    async with behind_tls(s3_server.port, certificate) as port:
        url = s3_server.url().partition("?")[0] + f"?endpoint=https://127.0.0.1:{port}"
        trusting = S3Place.parse(f"{url}&ca={certificate / 'ca.pem'}")
        blobs = S3Blobs(trusting, tmp_path / "tls", cache_bytes=BOUND)
        await blobs.settle("ledger-1", known=False)
        content_hash = await put(blobs, b"over TLS")
        assert await blobs.present([content_hash]) == {content_hash}
        strange = S3Blobs(S3Place.parse(url), tmp_path / "strange", cache_bytes=BOUND)
        with pytest.raises(DependencyDown, match="not trusted, UnknownIssuer") as caught:
            await strange.ping()
        assert caught.value.code == "blob_store_down"


@pytest.mark.parametrize(
    "url", ["s3://", "s3://key:secret@bucket/x", "s3://bucket/x?endpont=http://h", "s3:bucket"]
)
def test_a_url_that_cannot_be_used_says_what_it_should_be(url: str) -> None:
    with pytest.raises(SetupError) as caught:
        S3Place.parse(url, {})
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint and "secret" not in caught.value.detail


def test_what_the_url_leaves_open_comes_from_the_standard_variables() -> None:
    env = {"AWS_ENDPOINT_URL": "https://h:9000", "AWS_DEFAULT_REGION": "ap-northeast-2"}
    place = S3Place.parse("s3://bucket/a/b/", env)
    assert (place.bucket, place.prefix) == ("bucket", "a/b")
    assert (place.endpoint, place.region) == ("https://h:9000", "ap-northeast-2")
    assert S3Place.parse("s3://bucket?endpoint=http://i&region=x", env).endpoint == "http://i"
    assert str(S3Place.parse("s3://bucket", {})) == "s3://bucket"


def test_local_copies_go_when_they_are_idle_or_too_much(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "copies", 25)
    for n, age_s in enumerate((IDLE_S + 1, IN_USE_S + 30, IN_USE_S + 20, IN_USE_S + 10, 0.0)):
        half = copies.half()
        half.write_bytes(b"0123456789")
        file = copies.add(half, str(n))
        os.utime(file, (time.time() - age_s,) * 2)
    copies.tidy(now=True)
    assert sorted(f.name for f in copies.root.iterdir()) == ["3", "4"]
    assert copies.find("3") is not None and copies.find("1") is None
    tight = LocalCopies(tmp_path / "copies", 1)
    tight.tidy(now=True)
    assert len(list(copies.root.iterdir())) == 2  # whoever was given one may be about to open it
