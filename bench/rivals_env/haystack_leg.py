"""Haystack: the asynchronous Pipeline, as many runs of it at a time as requests may be in flight.

One run embeds its batches one after the other, and the Chroma store writes a request per chunk;
many runs side by side make the best of both.
"""

from __future__ import annotations

import asyncio
import logging

from haystack import Document, Pipeline
from haystack.components.embedders import OpenAIDocumentEmbedder
from haystack.components.preprocessors import RecursiveDocumentSplitter
from haystack.components.writers import DocumentWriter
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret
from haystack_integrations.document_stores.chroma import ChromaDocumentStore
from leg import arguments, files, text_of, timed

FILES_A_RUN = 25
SEPARATORS = ["\n\n", "\n", ". ", " "]
"""Its own but for "sentence", which wants a model from the network."""


def main() -> None:
    args = arguments()
    logging.getLogger("haystack_integrations").setLevel(logging.ERROR)  # a warning per chunk
    store = ChromaDocumentStore(
        collection_name=args.collection,
        host=args.chroma_host,
        port=args.chroma_port,
        distance_function="cosine",
    )

    def pipeline() -> Pipeline:
        made = Pipeline()
        made.add_component(
            "split",
            RecursiveDocumentSplitter(
                split_length=args.chunk_chars,
                split_overlap=args.overlap_chars,
                split_unit="char",
                separators=SEPARATORS,
            ),
        )
        made.add_component(
            "embed",
            OpenAIDocumentEmbedder(
                api_key=Secret.from_token("bench"),
                model=args.model,
                api_base_url=args.endpoint,
                batch_size=args.batch,
                progress_bar=False,
            ),
        )
        made.add_component("write", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
        made.connect("split", "embed")
        made.connect("embed", "write")
        return made

    async def ingest() -> None:
        await store.count_documents_async()  # makes the collection, which all runs would do at once
        paths = files(args.folder)
        parts = iter([paths[i : i + FILES_A_RUN] for i in range(0, len(paths), FILES_A_RUN)])

        async def runner() -> None:
            mine = pipeline()
            for part in parts:
                documents = [Document(content=text_of(p), meta={"name": p.name}) for p in part]
                await mine.run_async({"split": {"documents": documents}})

        await asyncio.gather(*(runner() for _ in range(args.in_flight)))

    timed(lambda: asyncio.run(ingest()))


if __name__ == "__main__":
    main()
