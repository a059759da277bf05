"""What a cache gives back for a file: all that an answer and its certificates take from it."""

from dataclasses import dataclass

from model.embedder import ImageEmbedding


@dataclass(frozen=True, eq=False)
class Found:
    """An embedded file.

    Attributes:
        format: of the content, as the decode policy names it.
        embedding: with gain, forward error and size; its vector is never written to again.
    """

    format: str
    embedding: ImageEmbedding

    @property
    def bytes_held(self) -> int:
        """Memory that it takes, with the key and the objects around it."""
        return self.embedding.vector.nbytes + _BYTES_AROUND


# Five small objects, a key of 64 letters and its place in a dictionary: 0.9 KB as measured.
_BYTES_AROUND = 1024
