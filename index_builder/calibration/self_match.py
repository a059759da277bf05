"""Which pictures of a gallery would not match themselves: those that have close neighbours.

A byte-identical copy of a picture is a query whose direction is the entry's own. Its margin is the
k-th smallest of <e, e - f> / |e - f| over the other entries f; for unit vectors of cosine c that is
(1 - c) / sqrt(2 (1 - c)) = sqrt((1 - c) / 2), and its cosine is 1. These are estimates for people,
from float32 products: no certificate is made of them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

# So many pictures tell the share to half a percent; all of a large gallery would take hours.
MOST_LOOKED_AT = 10_000
_ROWS_PER_PASS = 256


@dataclass(frozen=True)
class SelfMatches:
    """Of all pictures, or MOST_LOOKED_AT evenly spread, those that each operating point misses."""

    pictures: int
    unmatched: dict[str, int]


def self_matches(
    vectors: Float32[np.ndarray, "R D"],
    starts: Int64[np.ndarray, " N1"],
    k: int,
    thresholds: dict[str, float],
    cosine_weight: float = 0.0,
) -> SelfMatches:
    """Count the entries that a copy of themselves would not match.

    Vectors have norm 1 or 0; entry i owns rows starts[i] to starts[i + 1], the whole picture first,
    and there are at least k + 1 entries. Thresholds are on margin + cosine_weight x cosine.
    """
    size = len(starts) - 1
    count = min(size, MOST_LOOKED_AT)
    margins = own_margins(vectors, starts, np.arange(count) * size // count, k)
    # With margin 0 another entry is as near, or there is no direction.
    statistics = np.where(margins > 0.0, margins + cosine_weight, 0.0)
    below = {name: int((statistics < value).sum()) for name, value in thresholds.items()}
    return SelfMatches(count, below)


def own_margins(
    vectors: Float32[np.ndarray, "R D"],
    starts: Int64[np.ndarray, " N1"],
    entries: np.ndarray,
    k: int,
) -> Float64[np.ndarray, " E"]:
    """The margin that each of some entries would have as a query; 0 of one without a direction."""
    margins = np.empty(len(entries))
    for start in range(0, len(entries), _ROWS_PER_PASS):
        part = entries[start : start + _ROWS_PER_PASS]
        own = np.asarray(vectors[starts[part]])
        products = own @ np.asarray(vectors).T
        cosines = np.maximum.reduceat(products, starts[:-1], axis=1).astype(np.float64)
        cosines[np.arange(len(part)), part] = -np.inf
        kth = -np.partition(-cosines, k - 1, axis=1)[:, k - 1]
        found = np.sqrt(np.clip((1.0 - kth) / 2.0, 0.0, 1.0))
        margins[start : start + len(part)] = np.where(own.any(axis=1), found, 0.0)
    return margins
