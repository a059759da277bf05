"""Embeddings of files seen before: in this process, and in a Redis that replicas share."""
