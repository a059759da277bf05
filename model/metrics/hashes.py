# pyright: basic
# Neither hash library has types.
"""Perceptual hashes as metrics: bits as -1 and +1, so that cosine = 1 - 2 hamming / bits."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float64
from PIL import Image

from model.cli.libraries import import_foreign
from model.metrics.metric import Metric, Pixels, check_pixels


class HashMetric(Metric):
    """A hash of a picture of any size; it is not even continuous, so nothing is proved of it."""

    def __init__(
        self, name: str, bits: int, compute: Callable[[Pixels], Bool[np.ndarray, " D"]]
    ) -> None:
        self.name, self.dim, self._compute = name, bits, compute

    def embed(self, pictures: Sequence[Pixels]) -> Float64[np.ndarray, "N D"]:
        vectors = np.empty((len(pictures), self.dim))
        for place, pixels in zip(vectors, pictures, strict=True):
            check_pixels(pixels)
            place[...] = np.where(self._compute(np.ascontiguousarray(pixels)), 1.0, -1.0)
        return vectors


def phash() -> HashMetric:
    """The 64-bit DCT hash of the library imagehash.

    Raises:
        DependencyError: imagehash is not installed.
    """
    imagehash = import_foreign("imagehash", "phash", "imagehash", "train")
    return HashMetric("phash", 64, lambda p: imagehash.phash(Image.fromarray(p)).hash.ravel())


def pdq() -> HashMetric:
    """PDQ, the 256-bit hash of the library pdqhash.

    Raises:
        DependencyError: pdqhash is not installed.
    """
    package = "pdqhash, which is compiled at install"
    pdqhash = import_foreign("pdqhash", "pdq", package, "pdq")
    return HashMetric("pdq", 256, lambda p: pdqhash.compute(p)[0].astype(bool))
