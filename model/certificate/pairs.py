"""r_ij, how far a query must move to change the order of two rows: formula and slack.

"i before j" is a half-space of the query's embedding g. With D = f_i - f_j and c the relative
scales of the metric, g crosses its boundary after a change of the input times gain times L of

    r_ij = <g, D> / |c o D|

at least, and of exactly that where g may move like the head lets it. This module alone knows that
formula, what rounding and the forward error take off it, and what equal rows are worth. `tail.py`
bounds it for rows that were not compared; `scan.py` takes a search through its candidates.

Scores decide ranks, so equal rows must get bit-equal scores wherever they stand: each score is a
product and NumPy's pairwise sum along its own row, never a BLAS call. Distances between rows may
come from BLAS, as their rounding is in the slack.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from model.certificate.distances import (
    GRAM_FROM,
    CentredRows,
    rows_of_a_block,
    slices,
    squared_differences,
    squared_distances,
)
from model.certificate.geometry import SMALLEST_NORM
from model.certificate.rounding import UNIT_ROUNDOFF_64, gamma
from model.errors import CertificateError

# The widest deviation from unit norm for which the slack is proved, and the tail bound with it.
LARGEST_NORM_DEVIATION = 0.1

# Rows of so many blocks are kept as float64: to convert them again would cost as much.
_FEW_BLOCKS = 4


def keep_on() -> None:
    """The look at the clock of a caller that has none: never gives up."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Gallery vectors retrieved for one query, and a bound on all that were not.

    Attributes:
        rows: row numbers, (M,), each once.
        vectors: the rows as stored, (M, D); may be the memory map of a whole gallery.
        unseen_score: upper bound in real arithmetic of <g, f> over the rows not in `rows`; -inf
            when there are none.
        size: number of rows in the gallery.
        norm_deviation: bound on | |f| - 1 | over the gallery.
        items: number of the item that each row is a view of, (M,); None where every row is an item
            of its own, numbered as it is. Equal scores rank by item number.
        item_count: number of items in the gallery; None where it is `size`.
        scaled_norm: bound on |c o f| over the gallery, c the metric's relative scales; or inf.
    """

    rows: Int64[np.ndarray, " M"]
    vectors: Float32[np.ndarray, "M D"]
    unseen_score: float
    size: int
    norm_deviation: float
    items: Int64[np.ndarray, " M"] | None = None
    item_count: int | None = None
    scaled_norm: float = np.inf

    @property
    def are_all(self) -> bool:
        """Whether no row is left unseen."""
        return self.rows.size == self.size

    @property
    def ceiling(self) -> float:
        """Upper bound of every unseen row's score; -inf where none is unseen."""
        return -np.inf if self.are_all else self.unseen_score

    @property
    def numbers(self) -> Int64[np.ndarray, " M"]:
        """The item number of each row."""
        return self.rows if self.items is None else self.items

    @property
    def items_in_gallery(self) -> int:
        return self.size if self.item_count is None else self.item_count

    def with_rows(self, others: "Candidates") -> "Candidates":
        """These and what they lack of others of the same gallery; the unseen only get fewer."""
        new = np.flatnonzero(~np.isin(others.rows, self.rows))
        if new.size == 0:
            return self
        items = None
        if self.items is not None:
            items = np.concatenate((self.items, others.numbers[new]))
        return replace(
            self,
            rows=np.concatenate((self.rows, others.rows[new])),
            vectors=np.concatenate((self.vectors, others.vectors[new])),
            items=items,
        )

    def positions_of(self, items: Int64[np.ndarray, " I"]) -> Int64[np.ndarray, " I"]:
        """The position of one row of each of some items, all of which have one here."""
        order = np.argsort(self.numbers)
        return order[np.searchsorted(self.numbers[order], items)]


class Scores(NamedTuple):
    """Each candidate's score <g, f> and squared norm |f|^2 in float64, both (M,).

    `rows` are the candidates' rows as float64, where they are few, (M, D); else None.
    """

    values: Float64[np.ndarray, " M"]
    squared_norms: Float64[np.ndarray, " M"]
    rows: Float64[np.ndarray, "M D"] | None = None


class Slack(NamedTuple):
    """What rounding and the forward error take off the radius of any pair of one query.

    With g~ the embedding as computed, P = 2 (1 + eta) >= |D|, u = gamma(D + 8) and a change that
    moves the real embedding by t along |c o D|: |g~'| <= rho + 2E + t and <g~', D> >= <g~, D> -
    2E |D| - t |c o D|. The program keeps i before j while <g~', D> > gamma_D |g~'| P, and its
    scores in hand are rounded as well, which costs gamma_D rho P once more. Solved for t:

        r = (gap - 2 u P (rho + E) - (2 E + z) |D|) / (|c o D| + u P).

    z is the norm that counts as zero: while one pair keeps its order, |g~'| stays above it.

    Attributes:
        absolute: 2 u P (rho + E).
        per_distance: 2 E + z.
        divisor: u P.
        rounding: u.
    """

    absolute: float | Float64[np.ndarray, "..."]
    per_distance: float
    divisor: float
    rounding: float

    @classmethod
    def of(
        cls,
        norm: float | Float64[np.ndarray, "..."],
        *,
        dimension: int,
        forward_error: float = 0.0,
        norm_deviation: float = LARGEST_NORM_DEVIATION,
    ) -> "Slack":
        """The slack of queries of this norm, rounded up: one number, or one a row of gaps."""
        unit = gamma(dimension + 8)
        longest = 2.0 * (1.0 + norm_deviation)
        absolute = 2.0 * unit * longest * (norm + forward_error) * _UP
        return cls(
            absolute, (2.0 * forward_error + SMALLEST_NORM) * _UP, unit * longest * _UP, unit
        )


# More than the roundings of a product of five factors.
_UP = 1.0 + 16.0 * UNIT_ROUNDOFF_64


class Pairs(NamedTuple):
    """Some rows i against some rows j, all (K, M).

    Attributes:
        gap: <g, f_i> - <g, f_j> of scores as the program computes them; of equal rows inf, where
            i stays before j for good, or -inf.
        distance: |f_i - f_j|, rounded up; 1 of equal rows.
        scaled: |c o (f_i - f_j)|, rounded up, at most `distance`; 1 of equal rows.
    """

    gap: Float64[np.ndarray, "..."]
    distance: Float64[np.ndarray, "..."]
    scaled: Float64[np.ndarray, "..."]

    def lower(self, slack: Slack) -> Float64[np.ndarray, "..."]:
        """Below these the order stays, in the program as it runs; what is not positive is none."""
        return _less_slack(self.gap, self.distance, self.scaled, slack)

    @property
    def unscaled(self) -> "Pairs":
        """The same pairs had the metric no scales: their radii over |g| are margins."""
        return self._replace(scaled=self.distance)

    def upper(self, slack: Slack) -> Float64[np.ndarray, "..."]:
        """What no comparison of more rows, or with fewer roundings, could prove more than.

        A distance as computed is above the true one by less than 2 / GRAM_FROM roundings.
        """
        radii = self.gap + slack.absolute
        radii /= self.scaled
        radii *= 1.0 + 8.0 / GRAM_FROM * slack.rounding
        radii -= slack.per_distance * (2.0 - _UP)
        return radii

    def sines(self, norm: float | Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        """Margins: the cosine of the angle from g to f_i - f_j; 0 of equal rows."""
        sines = self.gap / self.distance
        sines /= norm
        sines[np.isinf(sines)] = 0.0
        return sines


def _less_slack(
    gap: Float64[np.ndarray, "..."],
    distance: Float64[np.ndarray, "..."],
    divisor: Float64[np.ndarray, "..."],
    slack: Slack,
) -> Float64[np.ndarray, "..."]:
    # In place, as fresh memory costs more than the arithmetic.
    radii = gap - slack.absolute
    buffer = distance * slack.per_distance
    radii -= buffer
    radii /= np.add(divisor, slack.divisor, out=buffer)
    radii *= 2.0 - _UP
    return radii


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
    length = rows_of_a_block(dimension)
    rows = np.empty((count, dimension)) if count <= _FEW_BLOCKS * length else None
    # Buffers, as fresh memory costs more than the arithmetic.
    block, products = np.empty((2, min(count, length), dimension))
    for part in slices(count, length):
        check_deadline()
        size = part.stop - part.start
        block = block[:size] if rows is None else rows[part]
        block[...] = vectors[part]
        np.multiply(block, query, out=products[:size]).sum(axis=1, out=values[part])
        np.einsum("md,md->m", block, block, out=squares[part])
    allowed = norm_deviation + gamma(dimension + 8)
    if count and not np.abs(np.sqrt(squares) - 1.0).max() <= allowed:
        raise CertificateError(
            f"gallery vectors must have norms within {norm_deviation} of 1, and some have not"
        )
    return Scores(values, squares, rows)


def rank(
    scores: Float64[np.ndarray, " M"], numbers: Int64[np.ndarray, " M"], count: int
) -> Int64[np.ndarray, " K"]:
    """Positions of the `count` highest scores, best first; equal scores by number."""
    positions = np.arange(scores.size)
    if 0 < count < scores.size:
        last = np.partition(scores, scores.size - count)[scores.size - count]
        positions = np.flatnonzero(scores >= last)
    order = np.lexsort((numbers[positions], -scores[positions]))
    return positions[order[:count]]


def compare(first: CentredRows, second: CentredRows, gap: Float64[np.ndarray, "K M"]) -> Pairs:
    """Each row of `first` against each row of `second`, (K, M).

    Args:
        first: rows i, (K, D).
        second: rows j, (M, D), around the same centre, with the same scales.
        gap: <g, f_i> - <g, f_j> of scores as the program computes them, (K, M); overwritten.
    """
    squares = squared_distances(first, second)
    near, other = squares.equal
    # Equal rows score equal at every query, so the lower item number stays before for good.
    stays = first.numbers[near] <= second.numbers[other]
    gap[near, other] = np.where(stays, np.inf, -np.inf)
    squares.plain[near, other] = squares.scaled[near, other] = 1.0
    distance = np.sqrt(squares.plain, out=squares.plain)
    distance *= _UP
    if first.scales is None:
        return Pairs(gap, distance, distance)
    scaled = np.sqrt(squares.scaled, out=squares.scaled)
    scaled *= _UP
    return Pairs(gap, distance, np.minimum(scaled, distance, out=scaled))


def compare_pairs(
    gap: Float64[np.ndarray, " P"],
    first: Float64[np.ndarray, "P D"],
    second: Float64[np.ndarray, "P D"],
    scales: Float64[np.ndarray, " D"] | None = None,
    *,
    stays: bool = True,
) -> Pairs:
    """Pairs of rows given one by one, all (P,).

    Args:
        gap: <g, f_i> - <g, f_j>, (P,).
        first: rows i, (P, D).
        second: rows j, (P, D).
        scales: c of the metric; None where it has none.
        stays: whether the first of two equal rows is the one that ranks before.
    """
    squares = squared_differences(first, second, scales)
    equal = squares[0] == 0.0
    plain, scaled = (np.where(equal, 1.0, np.sqrt(square) * _UP) for square in squares)
    forever = np.inf if stays else -np.inf
    return Pairs(np.where(equal, forever, gap), plain, np.minimum(plain, scaled))
