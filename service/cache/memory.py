"""The cache inside the process: the files asked about last, up to a number of bytes."""

from collections import OrderedDict

from service.cache.found import Found


class MemoryCache:
    """Forgets what was asked about longest ago. Used on the event loop alone.

    Args:
        max_bytes: that all entries may take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Found] = OrderedDict()
        self.bytes_held = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, sha256: str) -> Found | None:
        """What is known of a file; it is now the one asked about last."""
        found = self._entries.get(sha256)
        if found is not None:
            self._entries.move_to_end(sha256)
        return found

    def put(self, sha256: str, found: Found) -> None:
        """Keep what is known of a file, and forget as many others as that takes."""
        old = self._entries.pop(sha256, None)
        if old is not None:
            self.bytes_held -= old.bytes_held
        self._entries[sha256] = found
        self.bytes_held += found.bytes_held
        while self.bytes_held > self._max_bytes:
            _, gone = self._entries.popitem(last=False)
            self.bytes_held -= gone.bytes_held
