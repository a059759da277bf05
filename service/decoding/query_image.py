"""One image of a request, from its file to its embedding, wherever that comes from."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.pixels.network_input import NetworkInput

if TYPE_CHECKING:  # It needs torch, which a decode process does without.
    from model.embedder import ImageEmbedding


@dataclass(eq=False)
class QueryImage:
    """An image that waits for the network, or one whose embedding was found in the cache.

    Attributes:
        format: of the content, as the decode policy names it.
        input: what the network is given; None if it was embedded before.
        pixels_sha256: of the decoded pixels (H, W, 3, uint8, row by row), hex; None if it was not
            asked for.
        is_truncated: the file ended early, and was drawn as far as it goes.
        sha256: of the file, hex; the service's own, never one that a decode process names.
        embedding: None until the worker has run the network; it sets this once and for all.
    """

    format: str
    input: NetworkInput | None
    pixels_sha256: str | None = None
    is_truncated: bool = False
    sha256: str = ""
    embedding: "ImageEmbedding | None" = None

    @property
    def embedded(self) -> "ImageEmbedding":
        """Its embedding, once it has one."""
        assert self.embedding is not None  # noqa: S101 - found in a cache, or computed by now.
        return self.embedding

    @property
    def norm(self) -> float:
        return math.sqrt(math.fsum(np.square(self.embedded.vector).tolist()))
