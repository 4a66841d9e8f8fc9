"""Texts to vectors: cache, batch, govern, provider (local model or OpenAI-compatible endpoint)."""
