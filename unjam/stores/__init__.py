"""What is kept: the ledger (SQL), the originals (blobs), chunks and vectors (Chroma)."""
