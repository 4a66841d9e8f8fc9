"""One module per family of files; each turns a path into an iterator of sections."""
