"""The HTTP surface: the public API and the operators' part on 8002, the status page on 9181."""
