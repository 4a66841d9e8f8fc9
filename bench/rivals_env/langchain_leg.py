"""LangChain: the indexing API.

``index()`` embeds one batch after the other, so the files are shared out among as many threads as
requests may be in flight, each with an ``index()`` of its own over one store.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chromadb
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_openai import OpenAIEmbeddings
from langchain_text_splitters import RecursiveCharacterTextSplitter
from leg import arguments, timed


def main() -> None:
    args = arguments()
    store = Chroma(
        client=chromadb.HttpClient(host=args.chroma_host, port=args.chroma_port),
        collection_name=args.collection,
        embedding_function=OpenAIEmbeddings(
            model=args.model,
            base_url=args.endpoint,
            api_key="bench",
            chunk_size=args.batch,
            check_embedding_ctx_length=False,  # else it fetches a tokenizer
        ),
    )
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=args.chunk_chars, chunk_overlap=args.overlap_chars
    )
    files = sorted(args.folder.iterdir())

    def ingest(share: list[Path]) -> None:
        records = InMemoryRecordManager(namespace=args.collection)
        records.create_schema()
        documents = splitter.split_documents(
            [Document(p.read_text(), metadata={"source": p.name}) for p in share]
        )
        index(
            documents, records, store, cleanup=None, batch_size=args.batch * 4, key_encoder="sha256"
        )

    def work() -> None:
        shares = [files[i :: args.in_flight] for i in range(args.in_flight)]
        with ThreadPoolExecutor(args.in_flight) as pool:
            list(pool.map(ingest, shares))

    timed(work)


if __name__ == "__main__":
    main()
