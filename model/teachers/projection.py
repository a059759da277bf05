"""Principal axes of embeddings: fewer numbers a picture, the same on every run."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from model.errors import MetricError


class Projection(NamedTuple):
    """x -> axes (x - mean), a map of norm 1 after a translation.

    Attributes:
        mean: of the embeddings, (D,).
        axes: leading principal directions, orthonormal, (K, D); the largest entry of each, by
            absolute value, is positive, so that their signs are no accident.
        kept: share of the variance along them.
    """

    mean: Float64[np.ndarray, " D"]
    axes: Float64[np.ndarray, "K D"]
    kept: float

    def apply(self, vectors: Float[np.ndarray, "N D"]) -> Float32[np.ndarray, "N K"]:
        """The coordinates of embeddings along the axes."""
        return ((vectors - self.mean) @ self.axes.T).astype(np.float32)


def principal_axes(
    chunks: Callable[[], Iterable[Float[np.ndarray, "N D"]]], count: int
) -> Projection:
    """The leading principal axes of embeddings that need not fit in memory.

    Args:
        chunks: gives the embeddings, some rows at a time, in the same order at each call.
        count: how many axes.

    Raises:
        MetricError: there are fewer embeddings than axes, or fewer numbers in one.
    """
    total, rows = np.zeros(()), 0
    for chunk in chunks():
        total, rows = total + chunk.sum(axis=0, dtype=np.float64), rows + len(chunk)
    if not 1 <= count <= min(total.size, rows):
        raise MetricError(f"{count} axes were wanted of {rows} embeddings of {total.size} numbers")
    mean = total / rows
    scatter = np.zeros((total.size, total.size))
    for chunk in chunks():
        centred = chunk - mean
        scatter += centred.T @ centred
    variances, directions = np.linalg.eigh(scatter)
    axes = directions.T[::-1][:count]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    whole = float(np.clip(variances, 0, None).sum())
    kept = float(np.clip(variances[::-1][:count], 0, None).sum()) / whole if whole else 1.0
    return Projection(mean, axes * np.sign(largest), kept)
