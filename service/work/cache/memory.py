"""The cache inside the process: least recently used files go first, bounded in bytes."""

from collections import OrderedDict
from dataclasses import dataclass

from model.embedder import ImageEmbedding
from model.pixels.trim import Trim

# Five small objects, a key of 64 letters and its place in a dictionary: 0.9 KB as measured.
_BYTES_AROUND = 1024


@dataclass(frozen=True, eq=False)
class CachedEmbedding:
    """What a cache gives back for a file: all that an answer and its certificates take from it.

    Attributes:
        format: of the content, as the decode policy names it.
        embedding: with gain, forward error and size; its vector is never written to again.
        trim: what is left of it without its borders; None of what was not looked at for them.
        crop: the embedding of that part; None also where it is the whole picture.
    """

    format: str
    embedding: ImageEmbedding
    trim: Trim | None = None
    crop: ImageEmbedding | None = None

    @property
    def bytes_held(self) -> int:
        """Memory that it takes, with the key and the objects around it."""
        crop = 0 if self.crop is None else self.crop.vector.nbytes
        return self.embedding.vector.nbytes + crop + _BYTES_AROUND


class MemoryCache:
    """Forgets what was asked about longest ago. Used on the event loop alone.

    Args:
        max_bytes: that all entries may take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, CachedEmbedding] = OrderedDict()
        self.bytes_held = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, sha256: str) -> CachedEmbedding | None:
        """What is known of a file; it is now the one asked about last."""
        found = self._entries.get(sha256)
        if found is not None:
            self._entries.move_to_end(sha256)
        return found

    def put(self, sha256: str, found: CachedEmbedding) -> None:
        """Keep what is known of a file, and forget as many others as that takes."""
        old = self._entries.pop(sha256, None)
        if old is not None:
            self.bytes_held -= old.bytes_held
        self._entries[sha256] = found
        self.bytes_held += found.bytes_held
        while self.bytes_held > self._max_bytes:
            _, gone = self._entries.popitem(last=False)
            self.bytes_held -= gone.bytes_held
