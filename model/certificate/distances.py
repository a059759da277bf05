"""Distances between rows, plain and scaled by a metric, from matrix products where digits allow.

A squared distance |a_i|^2 + |a_j|^2 - 2 <a_i, a_j> loses digits where rows are near. So rows are
taken around a common centre, clusters around centres of their own, and the few pairs that are left
are formed from differences. Every number is rounded up.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from model.certificate.rounding import gamma

# Float64 buffers of one block stay in the cache; larger ones triple the cost of a certificate.
_BLOCK_BYTES = 2 << 20

# A squared distance below this share of |a_i|^2 + |a_j|^2, which it is computed from, has lost too
# many digits: it is computed from the rows' difference instead.
GRAM_FROM = 0.5e-4

# Up to so many near rows of one row are compared by differences; more are a cluster.
_FEW_NEAR = 8


class CentredRows(NamedTuple):
    """Rows with a common centre taken off, so that squared distances of near rows keep digits.

    Attributes:
        vectors: the rows as they are, (M, D), float32 values as float32 or float64.
        numbers: their item numbers, (M,).
        centre: float32 values as float64, (D,); any is sound, one amid the rows is accurate.
        scales: c of the metric, (D,); None where it has none.
        offsets: a, the rows less the centre, (M, D).
        squares: |a|^2, (M,).
        scaled_squares: |c o a|^2, (M,); `squares` where the metric has no scales.
    """

    vectors: Float[np.ndarray, "M D"]
    numbers: Int64[np.ndarray, " M"]
    centre: Float64[np.ndarray, " D"]
    scales: Float64[np.ndarray, " D"] | None
    offsets: Float64[np.ndarray, "M D"]
    squares: Float64[np.ndarray, " M"]
    scaled_squares: Float64[np.ndarray, " M"]

    @classmethod
    def of(
        cls,
        vectors: Float[np.ndarray, "M D"],
        numbers: Int64[np.ndarray, " M"],
        scales: Float64[np.ndarray, " D"] | None = None,
    ) -> "CentredRows":
        """Rows, at least one, around their mean."""
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls.around(mean.astype(np.float64), vectors, numbers, scales)

    @classmethod
    def around(
        cls,
        centre: Float64[np.ndarray, " D"],
        vectors: Float[np.ndarray, "M D"],
        numbers: Int64[np.ndarray, " M"],
        scales: Float64[np.ndarray, " D"] | None = None,
    ) -> "CentredRows":
        """Rows around a centre that others have too."""
        offsets = np.subtract(vectors, centre, dtype=np.float64)
        squares = _squares(offsets)
        scaled = squares if scales is None else _scaled_squares(offsets, scales)
        return cls(vectors, numbers, centre, scales, offsets, squares, scaled)

    @classmethod
    def around_zero(
        cls,
        vectors: Float64[np.ndarray, "M D"],
        numbers: Int64[np.ndarray, " M"],
        squares: Float64[np.ndarray, " M"],
        scales: Float64[np.ndarray, " D"] | None,
    ) -> "CentredRows":
        """Rows around 0, which costs nothing where their squared norms are known."""
        origin = np.zeros(vectors.shape[1])
        scaled = squares if scales is None else _scaled_squares(vectors, scales)
        return cls(vectors, numbers, origin, scales, vectors, squares, scaled)

    def take(self, positions: Int64[np.ndarray, " K"]) -> "CentredRows":
        """Some of them, around the same centre."""
        offsets, squares = self.offsets[positions], self.squares[positions]
        is_centred = self.offsets is not self.vectors
        return self._replace(
            vectors=self.vectors[positions] if is_centred else offsets,
            numbers=self.numbers[positions],
            offsets=offsets,
            squares=squares,
            scaled_squares=squares if self.scales is None else self.scaled_squares[positions],
        )


class SquaredDistances(NamedTuple):
    """Squares of |f_i - f_j| and |c o (f_i - f_j)|, rounded up, and which are of equal rows.

    Attributes:
        plain: (K, M).
        scaled: (K, M); the same array where the metric has no scales.
        equal: positions of equal rows, as `np.nonzero` has them, and of near rows of one item,
            which nobody compares; the squares there say nothing.
    """

    plain: Float64[np.ndarray, "K M"]
    scaled: Float64[np.ndarray, "K M"]
    equal: tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]


def squared_distances(first: CentredRows, second: CentredRows) -> SquaredDistances:
    """Each row of `first` against each row of `second`, (K, M).

    Both have the same centre and scales.
    """
    squares = _by_products(first, second)
    near, other = np.nonzero(squares.is_near)
    # No more near pairs than that of each row with itself are no cluster.
    if near.size > first.numbers.size:
        _part_clusters(first, second, squares)
        near, other = np.nonzero(squares.is_near)
    is_equal = first.numbers[near] == second.numbers[other]
    pairs = np.flatnonzero(~is_equal)
    for part in slices(pairs.size, rows_of_a_block(first.centre.size)):
        i, j = near[pairs[part]], other[pairs[part]]
        exact, scaled = squared_differences(first.vectors[i], second.vectors[j], first.scales)
        is_equal[pairs[part]] = exact == 0.0
        squares.plain[i, j], squares.scaled[i, j] = exact, scaled
    return SquaredDistances(squares.plain, squares.scaled, (near[is_equal], other[is_equal]))


def squared_differences(
    first: Float[np.ndarray, "P D"],
    second: Float[np.ndarray, "P D"],
    scales: Float64[np.ndarray, " D"] | None,
) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, " P"]]:
    """Squares of |f_i - f_j| and |c o (f_i - f_j)| of pairs, from differences, rounded up."""
    up = 1.0 + 2.0 * gamma(first.shape[1] + 8)
    difference = np.subtract(first, second, dtype=np.float64)
    plain = _squares(difference) * up
    if scales is None:
        return plain, plain
    difference *= scales
    return plain, _squares(difference) * up


def rows_of_a_block(numbers: int) -> int:
    """How many rows of so many float64 numbers a block has."""
    return max(1, _BLOCK_BYTES // (8 * max(1, numbers)))


def slices(count: int, length: int) -> Iterator[slice]:
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))


class _Products(NamedTuple):
    """The squares as matrix products have them, and where too many digits were lost."""

    plain: Float64[np.ndarray, "K M"]
    scaled: Float64[np.ndarray, "K M"]
    is_near: Bool[np.ndarray, "K M"]


def _by_products(first: CentredRows, second: CentredRows) -> _Products:
    plain, is_near = _product_squares(first.offsets, first.squares, second.offsets, second.squares)
    if first.scales is None:
        return _Products(plain, plain, is_near)
    # The scales of both sides on the first, which is the shorter one.
    weighted = first.offsets * (first.scales * first.scales)
    scaled, is_near_scaled = _product_squares(
        weighted, first.scaled_squares, second.offsets, second.scaled_squares
    )
    is_near |= is_near_scaled
    return _Products(plain, scaled, is_near)


def _product_squares(
    first: Float64[np.ndarray, "K D"],
    first_squares: Float64[np.ndarray, " K"],
    second: Float64[np.ndarray, "M D"],
    second_squares: Float64[np.ndarray, " M"],
) -> tuple[Float64[np.ndarray, "K M"], Bool[np.ndarray, "K M"]]:
    """|a_i|^2 + |a_j|^2 - 2 <a_i, a_j> rounded up, and where too much of it has cancelled.

    The products, the sums and the offsets themselves err by less than 2 gamma(D + 8) of the first
    two summands together: docs/certificate.md.
    """
    up = 1.0 + 2.0 * gamma(first.shape[1] + 8)
    squares = (-2.0 * first) @ second.T
    summands = np.add.outer(first_squares * up, second_squares * up)
    squares += summands
    summands *= GRAM_FROM
    return squares, ~(squares > summands)


def _scaled_squares(
    rows: Float64[np.ndarray, "M D"], scales: Float64[np.ndarray, " D"]
) -> Float64[np.ndarray, " M"]:
    squares = np.empty(len(rows))
    length = rows_of_a_block(rows.shape[1])
    buffer = np.empty((min(len(rows), length), rows.shape[1]))
    for part in slices(len(rows), length):
        block = rows[part]
        scaled = np.multiply(block, scales, out=buffer[: len(block)])
        np.einsum("md,md->m", scaled, scaled, out=squares[part])
    return squares


def _part_clusters(first: CentredRows, second: CentredRows, squares: _Products) -> None:
    """Compute again, around a centre of their own, the pairs of clusters far from the common one.

    Each round takes the row with the most near pairs and moves the centre onto it: its own pairs
    are then accurate, and so are those among the rows near it, at the price of a small product.
    What is left is a few pairs a row, or equal rows.
    """
    is_near = squares.is_near
    counts = is_near.sum(axis=1)
    while counts.max(initial=0) > _FEW_NEAR:
        centre = int(counts.argmax())
        columns = np.flatnonzero(is_near[centre])
        rows = np.flatnonzero(is_near[:, columns].any(axis=1) & (counts >= 0))
        part = np.ix_(rows, columns)
        middle = first.vectors[centre].astype(np.float64)
        around, others = (
            CentredRows.around(middle, side.vectors[some], side.numbers[some], first.scales)
            for side, some in ((first, rows), (second, columns))
        )
        was_near = is_near[part]
        for old, new in zip(squares, _by_products(around, others), strict=True):
            old[part] = np.where(was_near, new, old[part])
        # Rows equal to the centre are done with it.
        counts[rows] = np.where(around.squares == 0.0, -1, is_near[rows].sum(axis=1))


def _squares(rows: Float64[np.ndarray, "M D"]) -> Float64[np.ndarray, " M"]:
    return np.einsum("md,md->m", rows, rows)
