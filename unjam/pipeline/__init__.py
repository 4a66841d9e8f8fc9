"""From bytes to searchable chunks: intake, sniff, parse, chunk, embed, store, and their run."""
