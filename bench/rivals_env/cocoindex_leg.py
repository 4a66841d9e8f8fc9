"""CocoIndex: an app that walks the folder, with a target of its own for Chroma (it brings none).

Its embedding function is batched over all files, and limited to the requests in flight that
everybody has; it would have many more. Its state is a local LMDB.
"""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import chromadb
import cocoindex as coco
from cocoindex.connectorkits.fingerprint import fingerprint_object
from cocoindex.connectors import localfs
from cocoindex.ops.text import RecursiveSplitter
from cocoindex.resources.file import FileLike
from leg import arguments, text_of_bytes, timed
from openai import AsyncOpenAI

ARGS = arguments()
OPENAI = AsyncOpenAI(base_url=ARGS.endpoint, api_key="bench", max_retries=2)
COLLECTION = chromadb.HttpClient(
    host=ARGS.chroma_host, port=ARGS.chroma_port
).get_or_create_collection(ARGS.collection, embedding_function=None)
SPLITTER = RecursiveSplitter()
IN_FLIGHT = asyncio.Semaphore(ARGS.in_flight)
BYTES_PER_CHAR = ARGS.bytes_per_char


class Row(NamedTuple):
    text: str
    filename: str
    vector: Any


class Action(NamedTuple):
    id: str
    row: Row | None


class ChromaRows:
    """Target states: one row per chunk."""

    def __init__(self) -> None:
        self._sink = coco.TargetActionSink.from_async_fn(self._apply)
        self._write = asyncio.Lock()  # Chroma has one writer

    async def _apply(self, _: coco.ContextProvider, actions: Sequence[Action]) -> None:
        kept = [(a.id, a.row) for a in actions if a.row is not None]
        gone = [a.id for a in actions if a.row is None]
        async with self._write:
            if kept:
                await asyncio.to_thread(
                    COLLECTION.upsert,
                    ids=[i for i, _ in kept],
                    embeddings=[row.vector for _, row in kept],
                    documents=[row.text for _, row in kept],
                    metadatas=[{"filename": row.filename} for _, row in kept],
                )
            if gone:
                await asyncio.to_thread(COLLECTION.delete, ids=gone)

    def reconcile(
        self,
        key: coco.StableKey,
        desired: Any,
        before: Collection[bytes],
        may_be_missing: bool,
        /,
    ) -> Any:
        if coco.is_non_existence(desired):
            if not before and not may_be_missing:
                return None
            return coco.TargetReconcileOutput(
                action=Action(str(key), None), sink=self._sink, tracking_record=coco.NON_EXISTENCE
            )
        mark = fingerprint_object((desired.text, desired.filename))
        if not may_be_missing and before and all(b == mark for b in before):
            return None
        return coco.TargetReconcileOutput(
            action=Action(str(key), desired), sink=self._sink, tracking_record=mark
        )


ROWS = coco.register_root_target_states_provider("bench/chroma", ChromaRows())


@coco.fn.as_async(batching=True, max_batch_size=ARGS.batch)
async def embed(texts: list[str]) -> list[Any]:
    async with IN_FLIGHT:
        answer = await OPENAI.embeddings.create(model=ARGS.model, input=texts)
    return [item.embedding for item in answer.data]


@coco.fn
async def one_chunk(numbered: tuple[int, str], filename: str) -> None:
    number, text = numbered
    row = Row(text, filename, await embed(text))
    coco.declare_target_state(ROWS.target_state(f"{filename}/{number}", row))


@coco.fn(memo=True)
async def one_file(file: FileLike[str]) -> None:
    name = file.file_path.path.name
    text = text_of_bytes(name, await file.read())
    chunks = SPLITTER.split(
        text,
        chunk_size=round(ARGS.chunk_chars * BYTES_PER_CHAR),
        chunk_overlap=round(ARGS.overlap_chars * BYTES_PER_CHAR),
        language="markdown",
    )
    await coco.map(one_chunk, list(enumerate(c.text for c in chunks)), name)


@coco.fn
async def everything(folder: pathlib.Path) -> None:
    await coco.mount_each(one_file, localfs.walk_dir(folder).items())


def main() -> None:
    with tempfile.TemporaryDirectory() as state:

        @coco.lifespan
        def settings(builder: coco.EnvironmentBuilder) -> Any:
            builder.settings.db_path = pathlib.Path(state) / "coco"
            yield

        app = coco.App(coco.AppConfig(name="bench"), everything, folder=ARGS.folder)
        coco.start_blocking()
        timed(app.update_blocking)
        coco.stop_blocking()


if __name__ == "__main__":
    main()
