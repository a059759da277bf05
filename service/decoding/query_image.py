"""One image of a request, from its file to its embedding, wherever that comes from."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from model.pixels.network_input import NetworkInput
from model.pixels.trim import Trim

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
        pixels: those themselves; None if they were not asked for.
        is_truncated: the file ended early, and was drawn as far as it goes.
        sha256: of the file, hex; the service's own, never one that a decode process names.
        embedding: None until the worker has run the network; it sets this once and for all.
        trim: what is left of it without its borders; None if it was not asked for.
        crop: that part as an image of its own; None also where it is the whole picture.
    """

    format: str
    input: NetworkInput | None
    pixels_sha256: str | None = None
    pixels: UInt8[np.ndarray, "H W 3"] | None = None
    is_truncated: bool = False
    sha256: str = ""
    embedding: "ImageEmbedding | None" = None
    trim: Trim | None = None
    crop: "QueryImage | None" = None

    @property
    def embedded(self) -> "ImageEmbedding":
        """Its embedding, once it has one."""
        assert self.embedding is not None  # noqa: S101 - found in a cache, or computed by now.
        return self.embedding

    @property
    def parts(self) -> tuple["QueryImage", ...]:
        """All of it that goes through the network."""
        return (self,) if self.crop is None else (self, self.crop)

    @property
    def norm(self) -> float:
        return math.sqrt(math.fsum(np.square(self.embedded.vector).tolist()))
