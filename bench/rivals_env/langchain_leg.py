"""LangChain: the indexing API.

``OpenAIEmbeddings`` sends one request after the other, so it is wrapped to keep several in flight.
The other way, several ``index()`` calls in threads, halves its speed: Chroma dislikes many writers.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import chromadb
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_openai import OpenAIEmbeddings
from langchain_text_splitters import RecursiveCharacterTextSplitter
from leg import arguments, files, text_of, timed


class InFlight(Embeddings):
    """*inner*, asked for *batch* texts at a time by *width* threads."""

    def __init__(self, inner: Embeddings, batch: int, width: int) -> None:
        self._inner = inner
        self._batch = batch
        self._pool = ThreadPoolExecutor(width)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        parts = [texts[i : i + self._batch] for i in range(0, len(texts), self._batch)]
        vectors = self._pool.map(self._inner.embed_documents, parts)
        return [vector for part in vectors for vector in part]

    def embed_query(self, text: str) -> list[float]:
        return self._inner.embed_query(text)


def main() -> None:
    args = arguments()
    openai = OpenAIEmbeddings(
        model=args.model,
        base_url=args.endpoint,
        api_key="bench",
        chunk_size=args.batch,
        check_embedding_ctx_length=False,  # else it fetches a tokenizer
    )
    store = Chroma(
        client=chromadb.HttpClient(host=args.chroma_host, port=args.chroma_port),
        collection_name=args.collection,
        embedding_function=InFlight(openai, args.batch, args.in_flight),
    )
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=args.chunk_chars, chunk_overlap=args.overlap_chars
    )
    records = InMemoryRecordManager(namespace=args.collection)
    records.create_schema()

    def work() -> None:
        documents = splitter.split_documents(
            [Document(text_of(path), metadata={"source": path.name}) for path in files(args.folder)]
        )
        index(
            documents,
            records,
            store,
            cleanup=None,
            batch_size=args.batch * args.in_flight,
            key_encoder="sha256",
        )

    timed(work)


if __name__ == "__main__":
    main()
