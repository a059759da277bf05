"""Decoding in processes of their own: an image may end one of them, never the service."""
