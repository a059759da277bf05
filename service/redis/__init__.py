"""Redis, optional and never trusted: one link, one failure policy."""
