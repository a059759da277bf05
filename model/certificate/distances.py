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


class Offsets(NamedTuple):
    """Rows less a centre, (M, D), and their squared norms, (M,)."""

    rows: Float64[np.ndarray, "M D"]
    squares: Float64[np.ndarray, " M"]

    @classmethod
    def of(cls, rows: Float64[np.ndarray, "M D"]) -> "Offsets":
        return cls(rows, _squares(rows))

    def take(self, positions: Int64[np.ndarray, " K"]) -> "Offsets":
        return Offsets(self.rows[positions], self.squares[positions])


class CentredRows(NamedTuple):
    """Rows with a common centre taken off, so that squared distances of near rows keep digits.

    Attributes:
        vectors: the rows as they are, (M, D), float32 values as float32 or float64.
        numbers: their item numbers, (M,).
        centre: float32 values as float64, (D,); any is sound, one amid the rows is accurate.
        scales: c of the metric, (D,); None where it has none.
        plain: the rows less the centre.
        scaled: the same times the scales; `plain` where there are none.
    """

    vectors: Float[np.ndarray, "M D"]
    numbers: Int64[np.ndarray, " M"]
    centre: Float64[np.ndarray, " D"]
    scales: Float64[np.ndarray, " D"] | None
    plain: Offsets
    scaled: Offsets

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
        plain = Offsets.of(np.subtract(vectors, centre, dtype=np.float64))
        return cls(vectors, numbers, centre, scales, plain, _scale(plain, scales))

    @classmethod
    def around_zero(
        cls,
        vectors: Float64[np.ndarray, "M D"],
        numbers: Int64[np.ndarray, " M"],
        squares: Float64[np.ndarray, " M"],
        scales: Float64[np.ndarray, " D"] | None,
    ) -> "CentredRows":
        """Rows around 0, which costs nothing where their squared norms are known."""
        plain = Offsets(vectors, squares)
        origin = np.zeros(vectors.shape[1])
        return cls(vectors, numbers, origin, scales, plain, _scale(plain, scales))

    def take(self, positions: Int64[np.ndarray, " K"]) -> "CentredRows":
        """Some of them, around the same centre."""
        plain = self.plain.take(positions)
        is_centred = self.plain.rows is not self.vectors
        return self._replace(
            vectors=self.vectors[positions] if is_centred else plain.rows,
            numbers=self.numbers[positions],
            plain=plain,
            scaled=plain if self.scales is None else self.scaled.take(positions),
        )


class SquaredDistances(NamedTuple):
    """Squares of |f_i - f_j| and |c o (f_i - f_j)|, rounded up, and which are of equal rows.

    Attributes:
        plain: (K, M).
        scaled: (K, M); the same array where the metric has no scales.
        equal: positions of equal rows, as `np.nonzero` has them; both squares are 0 there.
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
    is_equal = np.zeros(near.size, dtype=np.bool_)
    for part in slices(near.size, rows_of_a_block(first.centre.size)):
        i, j = near[part], other[part]
        exact, scaled = squared_differences(first.vectors[i], second.vectors[j], first.scales)
        is_equal[part] = exact == 0.0
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
    plain, is_near = _product_squares(first.plain, second.plain)
    if first.scales is None:
        return _Products(plain, plain, is_near)
    scaled, is_near_scaled = _product_squares(first.scaled, second.scaled)
    is_near |= is_near_scaled
    return _Products(plain, scaled, is_near)


def _product_squares(
    first: Offsets, second: Offsets
) -> tuple[Float64[np.ndarray, "K M"], Bool[np.ndarray, "K M"]]:
    """|a_i|^2 + |a_j|^2 - 2 <a_i, a_j> rounded up, and where too much of it has cancelled.

    The products, the sums and the offsets themselves err by less than 2 gamma(D + 8) of the first
    two summands together: docs/certificate.md.
    """
    up = 1.0 + 2.0 * gamma(first.rows.shape[1] + 8)
    own, other = first.squares * up, second.squares * up
    squares = (-2.0 * first.rows) @ second.rows.T
    squares += own[:, None]
    squares += other
    return squares, ~(squares > GRAM_FROM * own[:, None] + GRAM_FROM * other)


def _scale(plain: Offsets, scales: Float64[np.ndarray, " D"] | None) -> Offsets:
    return plain if scales is None else Offsets.of(plain.rows * scales)


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
        counts[rows] = np.where(around.plain.squares == 0.0, -1, is_near[rows].sum(axis=1))


def _squares(rows: Float64[np.ndarray, "M D"]) -> Float64[np.ndarray, " M"]:
    return np.einsum("md,md->m", rows, rows)
