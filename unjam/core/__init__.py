"""The nouns and rules of the system: standard library only, no I/O."""
