"""Where originals are kept: a folder, or a bucket of S3, as RAG_STORAGE_URL says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unjam.app.house import without_password
from unjam.core.errors import SetupError
from unjam.settings import MIB, Settings
from unjam.stores.blobs import LocalBlobs

if TYPE_CHECKING:
    from unjam.stores.s3_blobs import S3Blobs

BUCKETS = "s3://"


def in_bucket(settings: Settings) -> bool:
    """Whether originals are in a bucket, which every host sees alike."""
    return (settings.storage_url or "").startswith(BUCKETS)


def open_blobs(settings: Settings) -> LocalBlobs | S3Blobs:
    """The store; nothing is asked yet, so ``settle`` it before use.

    Raises:
        SetupError: RAG_STORAGE_URL cannot be used, or the extra for it is not installed.
    """
    if not in_bucket(settings):
        # A ledger of its own has one host: nobody else's workers read this folder.
        one_host = (settings.database_url or "sqlite:").startswith("sqlite:")
        return LocalBlobs(blob_root(settings), journal=one_host)
    from unjam.stores.s3_blobs import S3Blobs
    from unjam.stores.s3_place import S3Place

    return S3Blobs(
        S3Place.parse(settings.storage_url or ""),
        upload_folder(settings),
        cache_bytes=settings.storage_cache_mb * MIB,
    )


async def absent(blobs: S3Blobs, sizes: Mapping[str, int]) -> list[str]:
    """The hashes of *sizes* that the bucket does not hold in this size. Raises DependencyDown."""
    missing: list[str] = []
    for part in range(256):
        begin = f"{part:02x}"
        wanted = [h for h in sizes if h.startswith(begin)]
        held = await blobs.sizes(part) if wanted else {}
        missing += [h for h in wanted if held.get(h) != sizes[h]]
    return missing


def upload_folder(settings: Settings) -> Path:
    """The folder on this host that uploads stream into. Raises SetupError: see open_blobs."""
    if in_bucket(settings):
        return settings.data_dir / "originals"
    return blob_root(settings)


def blob_root(settings: Settings) -> Path:
    """The folder of originals. Raises SetupError: they are not in a folder."""
    url = settings.storage_url
    if url is None:
        return settings.data_dir / "blobs"
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    if "://" in url:
        raise SetupError(
            f"RAG_STORAGE_URL={without_password(url)} is of a kind that is not supported",
            hint="Use a folder that all hosts share: file:///path, a bucket: s3://bucket/prefix, "
            "or leave it empty.",
        )
    return Path(url)
