"""Which pictures of a gallery would not match themselves: those that have close neighbours.

A byte-identical copy of a picture is a query whose direction is the entry's own. Its margin is the
k-th smallest of <e, e - f> / |e - f| over the other entries f; for unit vectors of cosine c that is
(1 - c) / sqrt(2 (1 - c)) = sqrt((1 - c) / 2). These are estimates for people, from float32
products: no certificate is made of them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

# So many pictures tell the share to half a percent; all of a large gallery would take hours.
MOST_LOOKED_AT = 10_000
_ROWS_PER_PASS = 256


@dataclass(frozen=True)
class SelfMatches:
    """Of all pictures, or MOST_LOOKED_AT evenly spread, those that each operating point misses."""

    pictures: int
    unmatched: dict[str, int]


def self_matches(
    vectors: Float32[np.ndarray, "N D"], k: int, thresholds: dict[str, float]
) -> SelfMatches:
    """Count the entries that a copy of themselves would not match.

    Vectors have norm 1 or 0, and there are at least k + 1; thresholds are on the margin.
    """
    count = min(len(vectors), MOST_LOOKED_AT)
    margins = own_margins(vectors, np.arange(count) * len(vectors) // count, k)
    below = {name: int((margins < value).sum()) for name, value in thresholds.items()}
    return SelfMatches(count, below)


def own_margins(
    vectors: Float32[np.ndarray, "N D"], rows: np.ndarray, k: int
) -> Float64[np.ndarray, " R"]:
    """The margin that each of some entries would have as a query; 0 of one without a direction."""
    margins = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS_PER_PASS):
        part = rows[start : start + _ROWS_PER_PASS]
        own = np.asarray(vectors[part])
        cosines = (own @ np.asarray(vectors).T).astype(np.float64)
        cosines[np.arange(len(part)), part] = -np.inf
        kth = -np.partition(-cosines, k - 1, axis=1)[:, k - 1]
        found = np.sqrt(np.clip((1.0 - kth) / 2.0, 0.0, 1.0))
        margins[start : start + len(part)] = np.where(own.any(axis=1), found, 0.0)
    return margins
