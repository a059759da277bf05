"""r_ij, the signed distance of a query to the change of order of two rows: formula, slack, scan.

"i before j" is a half-space of the query's embedding g, so the signed distance to its boundary is

    r_ij = <g, f_i - f_j> / |f_i - f_j|

in embedding space. This module alone knows that formula, what rounding takes off it, what equal
rows are worth, and the bound for rows that were not compared. `signed_radii` compares all of some
rows with all of others, `radii_of_differences` pairs given one by one; `scan.py` takes a search
through its candidates.

Scores decide ranks, so equal rows must get bit-equal scores wherever they stand: each score is a
product and NumPy's pairwise sum along its own row, never a BLAS call. Distances between rows may
come from BLAS, as their rounding is in the slack.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from model.certificate.geometry import Norm, angles, cosine_error
from model.certificate.rounding import gamma
from model.errors import CertificateError

# Float64 buffers of one block stay in the cache; larger ones triple the cost of a certificate.
_BLOCK_BYTES = 2 << 20

# A squared distance below this share of |a_i|^2 + |a_j|^2, which it is computed from, has lost too
# many digits: it is computed from the rows' difference instead.
GRAM_FROM = 0.5e-4

# Up to so many near rows of one row are compared by differences; more are a cluster.
_FEW_NEAR = 8

# The widest deviation from unit norm for which the slack is proved, and the tail bound with it.
LARGEST_NORM_DEVIATION = 0.1


def keep_on() -> None:
    """The look at the clock of a caller that has none: never gives up."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Gallery entries retrieved for one query, and a bound on all that were not.

    Attributes:
        rows: entry numbers, (M,), each once; equal scores rank by them.
        vectors: the entries' vectors as stored, (M, D); may be the memory map of a whole gallery.
        unseen_score: upper bound in real arithmetic of <g, f> over the entries not in `rows`; -inf
            when there are none.
        size: number of entries in the gallery.
        norm_deviation: bound on | |f| - 1 | over the gallery.
    """

    rows: Int64[np.ndarray, " M"]
    vectors: Float32[np.ndarray, "M D"]
    unseen_score: float
    size: int
    norm_deviation: float

    @property
    def are_all(self) -> bool:
        """Whether no entry is left unseen."""
        return self.rows.size == self.size

    @property
    def ceiling(self) -> float:
        """Upper bound of every unseen entry's score; -inf where none is unseen."""
        return -np.inf if self.are_all else self.unseen_score


class Scores(NamedTuple):
    """Each candidate's score <g, f> and squared norm |f|^2 in float64, both (M,).

    `rows` are the candidates' rows as float64, where they are few; else None.
    """

    values: Float64[np.ndarray, " M"]
    squared_norms: Float64[np.ndarray, " M"]
    rows: Float64[np.ndarray, "M D"] | None = None


class SignedRadii(NamedTuple):
    """Signed radii as computed, and the slack below which each is proved; of one shape."""

    value: Float64[np.ndarray, "..."]
    slack: Float64[np.ndarray, "..."]

    @property
    def lower(self) -> Float64[np.ndarray, "..."]:
        """Below these the order stays, in the program as it runs."""
        return self.value - self.slack

    @property
    def upper(self) -> Float64[np.ndarray, "..."]:
        """Upper bounds of the true signed distances."""
        return self.value + self.slack


def score(
    vectors: Float32[np.ndarray, "M D"],
    query: Float64[np.ndarray, " D"],
    norm_deviation: float,
    check_deadline: Callable[[], None] = keep_on,
) -> Scores:
    """Score every row against the query, row by row.

    Raises:
        CertificateError: a row's norm is not within `norm_deviation` of 1, or not a number.
    """
    count, dimension = vectors.shape
    values, squares = np.empty(count), np.empty(count)
    rows = None
    for part in slices(count, rows_of_a_block(dimension)):
        check_deadline()
        block = vectors[part].astype(np.float64, order="C")
        rows = block if len(block) == count else None
        values[part] = (block * query).sum(axis=1)
        squares[part] = np.einsum("md,md->m", block, block)
    allowed = norm_deviation + gamma(dimension + 8)
    if not np.all(np.abs(np.sqrt(squares) - 1.0) <= allowed):
        raise CertificateError(
            f"gallery vectors must have norms within {norm_deviation} of 1, and some have not"
        )
    return Scores(values, squares, rows)


def rank(
    scores: Float64[np.ndarray, " M"], rows: Int64[np.ndarray, " M"], count: int
) -> Int64[np.ndarray, " K"]:
    """Positions of the `count` highest scores, best first; equal scores by entry number."""
    positions = np.arange(scores.size)
    if 0 < count < scores.size:
        last = np.partition(scores, scores.size - count)[scores.size - count]
        positions = np.flatnonzero(scores >= last)
    order = np.lexsort((rows[positions], -scores[positions]))
    return positions[order[:count]]


class CentredRows(NamedTuple):
    """Rows with a common centre taken off, so that squared distances of near rows keep digits.

    Attributes:
        vectors: the rows as they are, (M, D), float32 values as float32 or float64.
        numbers: their entry numbers, (M,); of two equal rows the lower stays before for good.
        centre: float32 values as float64, (D,); any is sound, one amid the rows is accurate.
        offsets: the rows less the centre, (M, D).
        squares: squared norms of the offsets, (M,).
    """

    vectors: Float[np.ndarray, "M D"]
    numbers: Int64[np.ndarray, " M"]
    centre: Float64[np.ndarray, " D"]
    offsets: Float64[np.ndarray, "M D"]
    squares: Float64[np.ndarray, " M"]

    @classmethod
    def of(
        cls, vectors: Float[np.ndarray, "M D"], numbers: Int64[np.ndarray, " M"]
    ) -> "CentredRows":
        """Rows, at least one, around their mean."""
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls.around(mean.astype(np.float64), vectors, numbers)

    @classmethod
    def around(
        cls,
        centre: Float64[np.ndarray, " D"],
        vectors: Float[np.ndarray, "M D"],
        numbers: Int64[np.ndarray, " M"],
    ) -> "CentredRows":
        """Rows around a centre that others have too."""
        offsets = np.subtract(vectors, centre, dtype=np.float64)
        return cls(vectors, numbers, centre, offsets, np.einsum("md,md->m", offsets, offsets))

    def take(self, positions: Int64[np.ndarray, " K"]) -> "CentredRows":
        """Some of them, around the same centre."""
        vectors = self.vectors[positions]
        offsets = vectors if self.offsets is self.vectors else self.offsets[positions]
        return CentredRows(
            vectors, self.numbers[positions], self.centre, offsets, self.squares[positions]
        )


def signed_radii(
    first: CentredRows,
    second: CentredRows,
    gap: Float64[np.ndarray, "K M"],
    *,
    norm: float | Float64[np.ndarray, "..."],
) -> SignedRadii:
    """r_ij of each row of `first` over each row of `second`, and its slack, (K, M).

    Two rows of one entry number, or equal ones of which the first has the lower number, have inf;
    equal ones the other way round -inf. Squared distances are |a_i|^2 + |a_j|^2 - 2 <a_i, a_j> of
    the offsets a; those that have cancelled too much are formed from differences, in chunks.

    Args:
        first: rows i, (K, D).
        second: rows j, (M, D), around the same centre.
        gap: <g, f_i> - <g, f_j> of scores as the program computes them, (K, M).
        norm: |g|, rounded up; a number, or one a row of `gap`, (K, 1).
    """
    square, spread, is_near = _squares_of_offsets(first, second)
    near, other = np.nonzero(is_near)
    # No more near pairs than that of each row with itself are no cluster.
    if near.size > first.numbers.size:
        _part_clusters(first, second, square, spread, is_near)
        near, other = np.nonzero(is_near)
    exact = np.zeros(near.size)
    differ = first.numbers[near] != second.numbers[other]
    if differ.any():
        exact[differ] = _squares_of_differences(
            first.vectors, second.vectors, near[differ], other[differ]
        )
    equal = exact == 0.0
    # Equal rows are decided below; any positive number will do here.
    square[near, other] = np.where(equal, 1.0, exact)
    spread[near, other] = 0.0
    radii = _with_slack(gap, square, spread, norm=norm, dimension=first.centre.size)
    near, other = near[equal], other[equal]
    # Equal rows score equal at every query, so the lower entry number stays before for good.
    stays = first.numbers[near] <= second.numbers[other]
    radii.value[near, other] = np.where(stays, np.inf, -np.inf)
    return radii


def radii_of_differences(
    gap: Float64[np.ndarray, " P"],
    difference: Float64[np.ndarray, "P D"],
    *,
    norm: float | Float64[np.ndarray, " P"],
) -> SignedRadii:
    """r_ij of pairs given one by one, and its slack, (P,); inf where the rows are equal.

    Args:
        gap: <g, f_i> - <g, f_j>, (P,).
        difference: f_i - f_j, (P, D).
        norm: |g|, rounded up; a number, or one a pair.
    """
    square = np.einsum("pd,pd->p", difference, difference)
    equal = square == 0.0
    square[equal] = 1.0
    radii = _with_slack(gap, square, 0.0, norm=norm, dimension=difference.shape[1])
    radii.value[equal] = np.inf
    return radii


def _with_slack(
    gap: Float64[np.ndarray, "..."],
    square: Float64[np.ndarray, "..."],
    spread: Float64[np.ndarray, "..."] | float,
    *,
    norm: float | Float64[np.ndarray, "..."],
    dimension: int,
) -> SignedRadii:
    """Gap / sqrt(square), and what rounding may take off it.

    With u = gamma(D + 8): 2u |g| is the rounding of the two scores, 4u |g| that of the next
    comparison at a moved query, the rest that of the distance and of the subtraction; all over the
    distance where it is below 1. A distance |a_i|^2 + |a_j|^2 - 2 <a_i, a_j> errs besides by less
    than u (|a_i|^2 + |a_j|^2) / square of itself, and twice that is charged: docs/certificate.md.

    Args:
        gap: differences of scores.
        square: squared distances, > 0; overwritten.
        spread: |a_i|^2 + |a_j|^2 of each square that was computed from them; 0 for the others.
        norm: |g|, rounded up.
        dimension: D.
    """
    unit = gamma(dimension + 8)
    # In place, as fresh memory costs more than the arithmetic.
    slack = np.sqrt(square)
    value = gap / slack
    np.minimum(slack, 1.0, out=slack)
    np.divide(8.0 * unit * norm, slack, out=slack)
    cancelled = np.divide(spread, square)
    cancelled *= np.abs(value, out=square)
    cancelled *= 2.0 * unit
    slack += cancelled
    return SignedRadii(value, slack)


def _squares_of_offsets(
    first: CentredRows, second: CentredRows
) -> tuple[Float64[np.ndarray, "K M"], Float64[np.ndarray, "K M"], Bool[np.ndarray, "K M"]]:
    """|a_i|^2 + |a_j|^2 - 2 <a_i, a_j>, the sum of the first two, and where too much cancelled."""
    square = first.offsets @ second.offsets.T
    square *= -2.0
    square += first.squares[:, None]
    square += second.squares
    spread = first.squares[:, None] + second.squares
    return square, spread, ~(square > GRAM_FROM * spread)


def _part_clusters(
    first: CentredRows,
    second: CentredRows,
    square: Float64[np.ndarray, "K M"],
    spread: Float64[np.ndarray, "K M"],
    is_near: Bool[np.ndarray, "K M"],
) -> None:
    """Compute again, around a centre of their own, the pairs of clusters far from the common one.

    Each round takes the row with the most near pairs and moves the centre onto it: its own pairs
    are then accurate, and so are those among the rows near it, at the price of a small product.
    What is left is a few pairs a row, or equal rows.
    """
    counts = is_near.sum(axis=1)
    while counts.max(initial=0) > _FEW_NEAR:
        centre = int(counts.argmax())
        columns = np.flatnonzero(is_near[centre])
        rows = np.flatnonzero(is_near[:, columns].any(axis=1) & (counts >= 0))
        part = np.ix_(rows, columns)
        middle = first.vectors[centre].astype(np.float64)
        around = CentredRows.around(middle, first.vectors[rows], first.numbers[rows])
        found = _squares_of_offsets(
            around,
            CentredRows.around(middle, second.vectors[columns], second.numbers[columns]),
        )
        square[part], spread[part], is_near[part] = (
            np.where(is_near[part], new, old)
            for new, old in zip(found, (square[part], spread[part], is_near[part]), strict=True)
        )
        # Rows equal to the centre are done with it.
        counts[rows] = np.where(around.squares == 0.0, -1, is_near[rows].sum(axis=1))


def _squares_of_differences(
    first: Float[np.ndarray, "K D"],
    second: Float[np.ndarray, "M D"],
    near: Int64[np.ndarray, " P"],
    other: Int64[np.ndarray, " P"],
) -> Float64[np.ndarray, " P"]:
    """Squared distances of chosen pairs of rows, their differences formed first, in chunks."""
    squares = np.empty(near.size)
    for part in slices(near.size, rows_of_a_block(first.shape[1])):
        difference = np.subtract(first[near[part]], second[other[part]], dtype=np.float64)
        squares[part] = np.einsum("pd,pd->p", difference, difference)
    return squares


def tail_radii(
    scores: Float64[np.ndarray, " K"],
    squared_norms: Float64[np.ndarray, " K"],
    *,
    norm: Norm,
    unseen_score: float,
    norm_deviation: float,
    dimension: int,
    farthest: Float64[np.ndarray, " K"] | float = np.inf,
) -> Float64[np.ndarray, " K"]:
    """Lower bound of the embedding-space radius over all rows that were not compared.

    Two directions at angles t_i and t_j from the query are at most 2 sin((t_i + t_j) / 2) apart,
    and the bound grows with t_j, so the worst such row is one with the highest possible score.
    Norms off 1 widen the angles and add 2 `norm_deviation` to the distance.

    Args:
        scores: scores of the kept entries, (K,).
        squared_norms: their squared norms, (K,).
        norm: norm of the query's embedding, positive.
        unseen_score: upper bound of those rows' scores, in real arithmetic; -inf for none.
        norm_deviation: bound on | |f| - 1 | over the gallery.
        dimension: D.
        farthest: upper bound of the distance from each kept entry to any of those rows, (K,).

    Returns:
        Radii, (K,); 0 where the gap is not proved positive, inf where there are no such rows.
    """
    if unseen_score == -np.inf:
        return np.full(scores.shape, np.inf)
    longest = 1.0 + norm_deviation
    rounding = 8.0 * gamma(dimension + 8) * longest * norm.high
    gap = scores - unseen_score - rounding
    error = cosine_error(dimension)
    widest = longest if unseen_score >= 0.0 else 1.0 - norm_deviation
    unseen_cosine = max(-1.0, unseen_score / (norm.value * widest))
    cosines = scores / (norm.value * np.sqrt(squared_norms))
    angle_sum = angles(1.0 - cosines + error) + angles(np.array([1.0 - unseen_cosine + error]))
    chord = 2.0 * np.sin(np.minimum(angle_sum, np.pi) / 2.0) + 2.0 * norm_deviation + 1e-14
    radii = np.zeros(scores.shape)
    np.divide(gap, np.minimum(chord, farthest), out=radii, where=gap > 0.0)
    return radii * (1.0 - 1e-14)


def rows_of_a_block(numbers: int) -> int:
    """How many rows of so many float64 numbers a block has."""
    return max(1, _BLOCK_BYTES // (8 * max(1, numbers)))


def slices(count: int, length: int) -> Iterator[slice]:
    for start in range(0, count, length):
        yield slice(start, min(start + length, count))
