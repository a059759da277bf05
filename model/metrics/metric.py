# pyright: basic
# torch's types are loose.
"""What a metric is: something that maps pictures to vectors that are compared by their cosine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from model.errors import MetricError
from model.pixels.resize import resize_operator

Pixels = UInt8[np.ndarray, "_H _W 3"]
"""Upright RGB of any size."""

_PICTURES_PER_PASS = 16


class Metric(ABC):
    """A map from pictures to vectors; their distance is 1 - cosine.

    Attributes:
        name: what tables call it.
        dim: length of a vector.
        input_size: side of the square that it looks at, pixels; None where it reads the picture
            as it comes, which is the way of hashes.
        lipschitz_bound: proved upper bound of the map from the square, in [0, 1], to the vector,
            l2 to l2; None where nothing is proved.
        forward_error: proved upper bound of the l2 distance between the computed vector of a
            square in [0, 1] and its vector in real arithmetic; 0 and without a meaning where
            lipschitz_bound is None.
        output_scales: proved bounds along each coordinate of a vector (`model.certificate.metric`),
            (dim,); None where nothing beyond lipschitz_bound is proved.
    """

    name: str
    dim: int
    input_size: int | None = None
    lipschitz_bound: float | None = None
    forward_error: float = 0.0
    output_scales: Float64[np.ndarray, " D"] | None = None

    @abstractmethod
    def embed(self, pictures: Sequence[Pixels]) -> Float64[np.ndarray, "N D"]:
        """Raw vectors of pictures of any sizes, never normalised.

        Raises:
            MetricError: a picture is no uint8 (H, W, 3).
        """


class DifferentiableMetric(Metric):
    """A metric that has gradients: the way from the square to the vector is torch's."""

    input_size: int

    @abstractmethod
    def network(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Raw vectors of squares in [0, 1], in the arithmetic of x, float64 for certificates."""

    def embed_squares(self, x: Float64[np.ndarray, "N 3 S S"]) -> Float64[np.ndarray, "N D"]:
        """Raw vectors of squares in [0, 1], in float64 and a few at a time."""
        vectors = np.empty((len(x), self.dim))
        for part in _passes(len(x)):
            with torch.inference_mode():
                vectors[part] = self.network(torch.tensor(x[part])).cpu().numpy()
        return vectors

    def embed(self, pictures: Sequence[Pixels]) -> Float64[np.ndarray, "N D"]:
        """Raw vectors of pictures of any sizes: those of their squares."""
        vectors = np.empty((len(pictures), self.dim))
        for part in _passes(len(pictures)):
            vectors[part] = self.embed_squares(squares(pictures[part], self.input_size))
        return vectors


def _passes(count: int) -> list[slice]:
    """So few pictures at a time that their squares need little memory."""
    return [slice(i, i + _PICTURES_PER_PASS) for i in range(0, count, _PICTURES_PER_PASS)]


def squares(pictures: Sequence[Pixels], side: int) -> Float64[np.ndarray, "N 3 S S"]:
    """Pictures of any sizes through the certified resize: the inputs, in [0, 1], of all radii.

    Raises:
        MetricError: a picture is no uint8 (H, W, 3).
    """
    out = np.empty((len(pictures), 3, side, side))
    for place, pixels in zip(out, pictures, strict=True):
        check_pixels(pixels)
        height, width = pixels.shape[:2]
        place[...] = resize_operator(height, width, side).apply(pixels)
    return out


def norms_of(vectors: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, " N"]:
    """Norms of raw vectors, (N,)."""
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors))


def units_of(vectors: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, "N D"]:
    """Vectors over their norms; zero rows stay zero."""
    norms = norms_of(vectors)[:, None]
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0.0)


def unit_rows(vectors: Float64[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Vectors over their norms, in float32, as an index stores them; zero rows stay zero."""
    return units_of(vectors).astype(np.float32)


def first_equal(rows: Float32[np.ndarray, "N D"]) -> Int64[np.ndarray, " N"]:
    """For each row, the lowest number of a row that is equal to it: these tie, and rank by number.

    A matrix product does not promise equal scores of equal rows.
    """
    firsts: dict[bytes, int] = {}
    # Adding 0 makes -0 and 0 the same bytes, as they are the same numbers.
    numbered = enumerate(rows + np.float32(0.0))
    return np.array([firsts.setdefault(row.tobytes(), number) for number, row in numbered])


def check_pixels(pixels: np.ndarray) -> None:
    """Refuse what is no upright 8-bit RGB picture.

    Raises:
        MetricError: it is not uint8, not (H, W, 3), or has no pixels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise MetricError(f"a picture must be uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
