"""LlamaIndex: the asynchronous IngestionPipeline, several embedding requests in flight."""

from __future__ import annotations

import asyncio

import chromadb
from leg import arguments, files, text_of, timed
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.vector_stores.chroma import ChromaVectorStore


def main() -> None:
    args = arguments()
    client = chromadb.HttpClient(host=args.chroma_host, port=args.chroma_port)
    collection = client.get_or_create_collection(args.collection, embedding_function=None)
    pipeline = IngestionPipeline(
        transformations=[
            SentenceSplitter(chunk_size=args.chunk_tokens, chunk_overlap=args.overlap_tokens),
            OpenAIEmbedding(
                model_name=args.model,
                api_base=args.endpoint,
                api_key="bench",
                embed_batch_size=args.batch,
                num_workers=args.in_flight,
            ),
        ],
        vector_store=ChromaVectorStore(chroma_collection=collection),
    )

    async def ingest() -> None:
        documents = [
            Document(text=text_of(path), id_=path.name, metadata={"filename": path.name})
            for path in files(args.folder)
        ]
        await pipeline.arun(documents=documents)

    timed(lambda: asyncio.run(ingest()))


if __name__ == "__main__":
    main()
