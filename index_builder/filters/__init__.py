"""Filters on metadata: the language, and which items pass."""
