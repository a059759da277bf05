"""One image of a request, from its file to its embedding, wherever that comes from."""

from dataclasses import dataclass

from model.embedder import ImageEmbedding
from model.pixels.network_input import NetworkInput


@dataclass(eq=False)
class QueryImage:
    """An image that waits for the network, or one whose embedding was found in the cache.

    Attributes:
        sha256: of the file, hex.
        format: of the content, as the decode policy names it.
        input: what the network is given; None if it was embedded before.
        embedding: None until the worker has run the network; it sets this once and for all.
        pixels_sha256: of the decoded pixels, hex; None if it was not asked for.
        is_truncated: the file ended early, and was drawn as far as it goes.
    """

    sha256: str
    format: str
    input: NetworkInput | None
    embedding: ImageEmbedding | None = None
    pixels_sha256: str | None = None
    is_truncated: bool = False
