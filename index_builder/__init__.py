"""A collection in, a sealed index out; and the reader of that index."""
