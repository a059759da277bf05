"""How far a query is from each pair's change of order: scores, signed radii, and the tail bound.

"i before j" is a half-space of the query's embedding g, so the signed distance to its boundary is

    r_ij = <g, f_i - f_j> / |f_i - f_j|

in embedding space. What this module returns has been lowered by a slack that covers the rounding
of r_ij itself and that of the next comparison the program makes at a moved query.

Scores decide ranks, so equal rows must get bit-equal scores wherever they stand: each score is a
product and NumPy's pairwise sum along its own row, never a BLAS call. Distances between rows may
come from BLAS, as their rounding is in the slack.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Integer

from model.certificate.rounding import gamma
from model.certificate.similarity import Norm, angles, cosine_error
from model.errors import CertificateError

# Float64 buffers of one block stay in the cache; larger ones triple the cost of a certificate.
_BLOCK_BYTES = 2 << 20

# Below this squared distance, |f_i|^2 + |f_j|^2 - 2 <f_i, f_j> has cancelled too many digits.
_GRAM_FROM = 1e-4

# The widest deviation from unit norm for which the tail bound is proved monotone.
LARGEST_NORM_DEVIATION = 0.1


class Float64Rows:
    """Float32 rows seen as float64, a block at a time; few rows are converted once and kept.

    Args:
        vectors: rows as stored, (M, D); may be the memory map of a whole gallery.
    """

    def __init__(self, vectors: Float32[np.ndarray, "M D"]) -> None:
        self._vectors = vectors
        count, dimension = vectors.shape
        self.dimension = dimension
        self.block_rows = max(1, _BLOCK_BYTES // (8 * max(1, dimension)))
        self._kept = vectors.astype(np.float64, order="C") if count <= self.block_rows else None

    def blocks(self) -> Iterator[tuple[int, Float64[np.ndarray, "B D"]]]:
        """Each block's first position and its rows, in order."""
        if self._kept is not None:
            yield 0, self._kept
            return
        for start in range(0, self._vectors.shape[0], self.block_rows):
            yield (
                start,
                self._vectors[start : start + self.block_rows].astype(np.float64, order="C"),
            )

    def take(self, positions: Integer[np.ndarray, " K"]) -> Float64[np.ndarray, "K D"]:
        """The rows at these positions."""
        source = self._vectors if self._kept is None else self._kept
        return source[positions].astype(np.float64, copy=False)


@dataclass(frozen=True, eq=False)
class Scores:
    """Each candidate's score <g, f> and squared norm |f|^2 in float64, both (M,)."""

    values: Float64[np.ndarray, " M"]
    squared_norms: Float64[np.ndarray, " M"]


@dataclass(frozen=True, eq=False)
class PairRadii:
    """Signed embedding-space radii of the kept entries against the candidates, slack off.

    Attributes:
        membership: k-th smallest over all other candidates, (K,); inf where there are fewer.
        membership_above: the same with the slack added: the truth lies between the two.
        outside: smallest over the candidates that are not kept, (K,); inf where there are none.
        first: smallest of the first kept entry over all others; inf where there are none.
        consecutive: each kept entry against the next one, (K - 1,).
    """

    membership: Float64[np.ndarray, " K"]
    membership_above: Float64[np.ndarray, " K"]
    outside: Float64[np.ndarray, " K"]
    first: float
    consecutive: Float64[np.ndarray, " J"]


def score(rows: Float64Rows, query: Float64[np.ndarray, " D"], norm_deviation: float) -> Scores:
    """Score every row against the query, row by row.

    Raises:
        CertificateError: a row's norm is not within `norm_deviation` of 1, or not a number.
    """
    values: list[Float64[np.ndarray, " B"]] = [np.zeros(0)]
    squares: list[Float64[np.ndarray, " B"]] = [np.zeros(0)]
    for _, block in rows.blocks():
        values.append((block * query).sum(axis=1))
        squares.append(np.einsum("md,md->m", block, block))
    scores = Scores(np.concatenate(values), np.concatenate(squares))
    allowed = norm_deviation + gamma(rows.dimension + 8)
    if not np.all(np.abs(np.sqrt(scores.squared_norms) - 1.0) <= allowed):
        raise CertificateError(
            f"gallery vectors must have norms within {norm_deviation} of 1, and some have not"
        )
    return scores


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


def least(radii: Float64[np.ndarray, " K"]) -> float:
    """The smallest of some radii; inf of none."""
    return float(radii.min(initial=np.inf))


def with_slack(
    gap: Float64[np.ndarray, "..."],
    square: Float64[np.ndarray, "..."],
    gram: Bool[np.ndarray, "..."] | bool,
    *,
    norm: float | Float64[np.ndarray, "..."],
    dimension: int,
) -> tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
    """Signed radii gap / sqrt(square), and the slack to take off each.

    With u = gamma(D + 8): 2u |g| is the rounding of the two scores, 4u |g| that of the next
    comparison at a moved query, the rest that of the distance and of the subtraction; all over the
    distance where it is below 1. A distance from the Gram form adds its own cancellation.
    """
    unit = gamma(dimension + 8)
    distance = np.sqrt(square)
    radii = gap / distance
    cancellation = np.where(gram, 4.0 * unit * np.abs(radii) / square, 0.0)
    return radii, 8.0 * unit * norm / np.minimum(distance, 1.0) + cancellation


class Kept:
    """The kept entries, ready to be compared with blocks of candidates."""

    def __init__(
        self,
        rows: Float64Rows,
        scores: Scores,
        entries: Int64[np.ndarray, " M"],
        positions: Int64[np.ndarray, " K"],
        norm: float,
    ) -> None:
        self._rows, self._scores, self._entries = rows, scores, entries
        self._positions, self._norm = positions, norm
        self._vectors = rows.take(positions)
        self._kept_scores = scores.values[positions][:, None]
        self._kept_squares = scores.squared_norms[positions][:, None]

    def _difference_squares(
        self,
        block: Float64[np.ndarray, "B D"],
        kept: Int64[np.ndarray, " P"],
        other: Int64[np.ndarray, " P"],
    ) -> Float64[np.ndarray, " P"]:
        """Squared distances of pairs of kept and block positions, differences formed first."""
        squares = np.empty(kept.size)
        for start in range(0, kept.size, self._rows.block_rows):
            part = slice(start, start + self._rows.block_rows)
            difference = self._vectors[kept[part]] - block[other[part]]
            squares[part] = np.einsum("pd,pd->p", difference, difference)
        return squares

    def against(
        self, start: int, block: Float64[np.ndarray, "B D"]
    ) -> tuple[Float64[np.ndarray, "K B"], Float64[np.ndarray, "K B"]]:
        """Signed radii of each kept entry over each candidate of a block, and their slack.

        The radius over itself is inf.
        """
        part = slice(start, start + block.shape[0])
        gap = self._kept_scores - self._scores.values[part]
        square = self._vectors @ block.T
        square *= -2.0
        square += self._kept_squares
        square += self._scores.squared_norms[part]
        gram = square >= _GRAM_FROM
        kept, other = np.nonzero(~gram)
        near_squares = self._difference_squares(block, kept, other)
        equal = near_squares == 0.0
        # Equal rows and the entry itself are decided below; any positive number will do here.
        square[kept, other] = np.where(equal, 1.0, near_squares)
        radii, slack = with_slack(
            gap, square, gram, norm=self._norm, dimension=self._rows.dimension
        )
        kept, other = kept[equal], other[equal]
        own, others = self._entries[self._positions[kept]], self._entries[other + start]
        # Equal rows score equal at every query, so the lower entry number stays before for good.
        radii[kept, other] = np.where(own <= others, np.inf, -np.inf)
        return radii, slack

    def consecutive(self) -> Float64[np.ndarray, " J"]:
        """Signed radii of each kept entry over the next one, slack off."""
        difference = self._vectors[:-1] - self._vectors[1:]
        square = np.einsum("jd,jd->j", difference, difference)
        equal = square == 0.0
        gap = -np.diff(self._kept_scores[:, 0])
        square[equal] = 1.0
        radii, slack = with_slack(
            gap, square, False, norm=self._norm, dimension=self._rows.dimension
        )
        radii[equal] = np.inf
        return radii - slack


class KthSmallest:
    """The k-th smallest number of each of several rows that arrive in blocks."""

    def __init__(self, k: int, count: int) -> None:
        self._k = k
        self._smallest = np.empty((count, 0))

    def add(self, block: Float64[np.ndarray, "K B"]) -> None:
        """Take in more columns, and forget what can no longer be among the k smallest."""
        if self._smallest.shape[1] > 0:
            block = np.concatenate((self._smallest, block), axis=1)
        if block.shape[1] > self._k:
            block = np.partition(block, self._k - 1, axis=1)[:, : self._k]
        self._smallest = block

    def result(self) -> Float64[np.ndarray, " K"]:
        """The k-th smallest of each row, (K,); inf where there were fewer."""
        count, seen = self._smallest.shape
        return np.full(count, np.inf) if seen < self._k else self._smallest.max(axis=1)


def pair_radii(
    rows: Float64Rows,
    scores: Scores,
    entries: Int64[np.ndarray, " M"],
    positions: Int64[np.ndarray, " K"],
    *,
    k: int,
    norm: float,
) -> PairRadii:
    """Compare the kept entries with every candidate, a block at a time.

    To push entry i out of the top k, k others must come before it; those ahead already count with
    their negative radii, hence the k-th smallest signed one.

    Args:
        rows: the candidates' rows.
        scores: their scores.
        entries: their entry numbers, (M,), which break ties.
        positions: the kept entries in rank order, (K,), K <= k.
        k: the number of results asked for.
        norm: norm of the query's embedding, rounded up.
    """
    count = positions.size
    if count == 0:
        return PairRadii(np.zeros(0), np.zeros(0), np.zeros(0), np.inf, np.zeros(0))
    kept = Kept(rows, scores, entries, positions, norm)
    is_kept = np.zeros(entries.size, dtype=np.bool_)
    is_kept[positions] = True
    below, above = KthSmallest(k, count), KthSmallest(k, count)
    outside, first = np.full(count, np.inf), np.inf
    for start, block in rows.blocks():
        radii, slack = kept.against(start, block)
        above.add(radii + slack)
        radii -= slack
        below.add(radii)
        first = min(first, float(radii[0].min()))
        others = np.where(is_kept[start : start + block.shape[0]], np.inf, radii)
        outside = np.minimum(outside, others.min(axis=1))
    return PairRadii(below.result(), above.result(), outside, first, kept.consecutive())


def tail_radii(
    scores: Float64[np.ndarray, " K"],
    squared_norms: Float64[np.ndarray, " K"],
    *,
    norm: Norm,
    unseen_score: float,
    norm_deviation: float,
    dimension: int,
) -> Float64[np.ndarray, " K"]:
    """Lower bound of the embedding-space radius over all entries that were not retrieved.

    Two directions at angles t_i and t_j from the query are at most 2 sin((t_i + t_j) / 2) apart,
    and the bound grows with t_j, so the worst unseen entry is one with the highest unseen score.
    Norms off 1 widen the angles and add 2 `norm_deviation` to the distance.

    Args:
        scores: scores of the kept entries, (K,).
        squared_norms: their squared norms, (K,).
        norm: norm of the query's embedding, positive.
        unseen_score: upper bound of every unseen entry's score, in real arithmetic; -inf for none.
        norm_deviation: bound on | |f| - 1 | over the gallery.
        dimension: D.

    Returns:
        Radii, (K,); 0 where the gap is not proved positive, inf where nothing is unseen.
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
    chord = 2.0 * np.sin(np.minimum(angle_sum, np.pi) / 2.0) + 2.0 * norm_deviation
    return np.where(gap > 0.0, gap / (chord + 1e-14), 0.0) * (1.0 - 1e-14)
