"""The pair radii that a certificate needs, a block at a time, without those that cannot count."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.geometry import Norm
from model.certificate.pairs import (
    Candidates,
    CentredRows,
    Scores,
    SignedRadii,
    keep_on,
    rows_of_a_block,
    signed_radii,
    slices,
    tail_radii,
)
from model.certificate.rounding import gamma

Columns = slice | Int64[np.ndarray, " B"]

# Fewer rows a block are not worth a round, however many entries they are compared with.
_FEWEST = 64

# From so many kept entries, or from this squared norm of the mean of the best candidates, a centre
# of their own is worth its subtraction.
_MANY = 32
_CLOSE = 0.95

# So many of the best candidates, or as many as are kept, say where the middle of them is.
_SAMPLE = 16


class KthSmallest:
    """The k smallest numbers of each of several rows that arrive in blocks."""

    def __init__(self, k: int, count: int) -> None:
        self._k, self._count, self._width = k, count, 0
        self._parts: list[Float64[np.ndarray, "K B"]] = []
        self._is_settled = False
        # Upper bound of the k-th smallest so far, (K,); inf while fewer have come.
        self.limit: Float64[np.ndarray, " K"] | float = np.inf

    def add(self, block: Float64[np.ndarray, "K B"]) -> None:
        """Take in more columns; what can no longer be among the k smallest is forgotten at times.

        Not at each block: to part k + B numbers for B new ones would cost more than they do.
        """
        self._parts.append(block)
        self._width += block.shape[1]
        self._is_settled = False
        if self._width >= self._k + self._k // 2:
            self._settle()

    def kth(self, k: int | None = None) -> Float64[np.ndarray, " K"]:
        """The k-th smallest of each row, (K,); inf where there were fewer.

        Args:
            k: at most the one given at the start, which is the default.
        """
        wanted = self._k if k is None else k
        if self._width < wanted:
            return np.full(self._count, np.inf)
        smallest = self._settle()
        if wanted == smallest.shape[1]:
            return smallest.max(axis=1)
        return np.partition(smallest, wanted - 1, axis=1)[:, wanted - 1]

    def _settle(self) -> Float64[np.ndarray, "K W"]:
        if self._is_settled:
            return self._parts[0]
        seen = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)
        if seen.shape[1] > self._k:
            seen = np.partition(seen, self._k - 1, axis=1)[:, : self._k]
            self.limit = seen[:, -1]
        elif seen.shape[1] == self._k:
            self.limit = seen.max(axis=1)
        self._parts, self._width, self._is_settled = [seen], seen.shape[1], True
        return seen


class PairBlock(NamedTuple):
    """Signed radii of the kept entries over some candidates, (K, B).

    Attributes:
        columns: which candidates.
        radii: inf of an entry over itself, and where a pair was not needed; with slack 0 there.
        lower: the radii with the slack off.
    """

    columns: Columns
    radii: SignedRadii
    lower: Float64[np.ndarray, "K B"]


class PairScan:
    """Some entries of a ranking against all candidates, a block at a time, best scores first.

    To push entry i out of the top k, k others must come before it; those ahead already count with
    their negative radii, hence the k-th smallest signed one. Once k are known, a block whose bound
    of `tail_radii` lies above them is left out: with the distance through the common centre,
    |f_i - f_j| <= |a_i| + |a_j|, as the farthest where rows have a centre. So the numbers are those
    of all pairs, or lower bounds of them where what was left out decides; `rest` says which.

    Attributes:
        lower: the k smallest radii with the slack off, of each entry over all others.
        upper: the same with the slack added.
        rest: lower bound of each one's radius over all that was not compared, (K,): entries unseen
            by the search, and blocks left out. inf where there is nothing.
    """

    def __init__(
        self,
        candidates: Candidates,
        scores: Scores,
        positions: Int64[np.ndarray, " K"],
        *,
        k: int,
        norm: Norm,
        check_deadline: Callable[[], None] = keep_on,
    ) -> None:
        self._candidates, self._scores, self._norm = candidates, scores, norm
        self._positions, self._check_deadline = positions, check_deadline
        self._kept_scores = scores.values[positions]
        self._kept_squares = scores.squared_norms[positions]
        self.lower, self.upper = (KthSmallest(k, positions.size) for _ in range(2))
        self.rest = self._tail(candidates.ceiling, np.inf)
        self._rest_scores: Float64[np.ndarray, " K"] | float = candidates.ceiling

    @property
    def rest_gap(self) -> Float64[np.ndarray, " K"]:
        """Lower bound of each one's lead in score over all that was not compared, (K,)."""
        unit = gamma(self._candidates.vectors.shape[1] + 8)
        rounding = 8.0 * unit * (1.0 + self._candidates.norm_deviation) * self._norm.high
        return self._kept_scores - self._rest_scores - rounding

    def __iter__(self) -> Iterator[PairBlock]:
        if self._positions.size == 0:
            return
        vectors, rows = self._candidates.vectors, self._scores.rows
        length = max(_FEWEST, rows_of_a_block(max(vectors.shape[1], self._positions.size)))
        if rows is not None and len(vectors) <= length:
            # Clusters among few candidates get their own centre where they need one.
            everything = self._around_zero(slice(None), rows)
            self._check_deadline()
            yield self._compare(everything.take(self._positions), everything, slice(None))
            return
        order = np.argsort(-self._scores.values, kind="stable")
        kept, is_central = self._kept_rows(order)
        for part in slices(order.size, length):
            self._check_deadline()
            columns = order[part]
            # No later block has a better score, so what bounds this one bounds them all.
            if self._leave_out(columns, np.inf, all_or_none=True).all():
                return
            if is_central:
                block = self._around_zero(columns, vectors[columns].astype(np.float64))
                yield self._compare(kept, block, columns)
                continue
            block = CentredRows.around(
                kept.centre, vectors[columns], self._candidates.rows[columns]
            )
            left_out = self._leave_out(columns, self._farthest(kept.squares, block.squares))
            if not left_out.all():
                yield self._compare(kept, block, columns, left_out)

    def _around_zero(self, columns: Columns, rows: Float64[np.ndarray, "B D"]) -> CentredRows:
        """Candidates around 0, which costs nothing: their squares are known."""
        origin = np.zeros(rows.shape[1])
        squares = self._scores.squared_norms[columns]
        return CentredRows(rows, self._candidates.rows[columns], origin, rows, squares)

    def _kept_rows(self, order: Int64[np.ndarray, " M"]) -> tuple[CentredRows, bool]:
        """The kept entries around 0, or the mean of the best candidates, and whether it is 0.

        A centre costs each candidate a subtraction; it pays where there are many entries to compare
        it with or leave out, and where near rows need its digits.
        """
        vectors, numbers = self._candidates.vectors, self._candidates.rows
        best = vectors[order[: max(_SAMPLE, self._positions.size)]]
        centre = best.mean(axis=0, dtype=np.float64).astype(np.float32).astype(np.float64)
        if self._positions.size < _MANY and centre @ centre < _CLOSE:
            rows = vectors[self._positions].astype(np.float64)
            return self._around_zero(self._positions, rows), True
        kept = vectors[self._positions]
        return CentredRows.around(centre, kept, numbers[self._positions]), False

    def _compare(
        self,
        kept: CentredRows,
        block: CentredRows,
        columns: Columns,
        left_out: Bool[np.ndarray, " K"] | None = None,
    ) -> PairBlock:
        """Compare the kept entries with a block, but for those that need not be."""
        scores = self._scores.values[columns]
        if left_out is None or not left_out.any():
            gap = self._kept_scores[:, None] - scores
            radii = signed_radii(kept, block, gap, norm=self._norm.high)
        else:
            some = np.flatnonzero(~left_out)
            gap = self._kept_scores[some, None] - scores
            found = signed_radii(kept.take(some), block, gap, norm=self._norm.high)
            shape = (left_out.size, scores.size)
            radii = SignedRadii(np.full(shape, np.inf), np.zeros(shape))
            radii.value[some], radii.slack[some] = found
        lower = radii.lower
        self.lower.add(lower)
        self.upper.add(radii.upper)
        return PairBlock(columns, radii, lower)

    def _leave_out(
        self,
        columns: Int64[np.ndarray, " B"],
        farthest: Float64[np.ndarray, " K"] | float,
        *,
        all_or_none: bool = False,
    ) -> Bool[np.ndarray, " K"]:
        """Which entries need no comparison with these candidates, best first, so far away, (K,)."""
        none = np.zeros(self._positions.size, dtype=np.bool_)
        if not np.isfinite(self.upper.limit).any():
            return none
        best = float(self._scores.values[columns[0]])
        tail = self._tail(best, farthest)
        out = (tail > 0.0) & (tail >= self.upper.limit)
        if all_or_none and not out.all():
            return none
        self.rest = np.where(out, np.minimum(self.rest, tail), self.rest)
        self._rest_scores = np.where(out, np.maximum(self._rest_scores, best), self._rest_scores)
        return out

    def _farthest(
        self, kept: Float64[np.ndarray, " K"], block: Float64[np.ndarray, " B"]
    ) -> Float64[np.ndarray, " K"]:
        """Upper bound of each kept row's distance to any row of a block, through the centre."""
        unit = gamma(self._candidates.vectors.shape[1] + 8)
        return (np.sqrt(kept) + np.sqrt(block.max())) * (1.0 + unit)

    def _tail(
        self, unseen_score: float, farthest: Float64[np.ndarray, " K"] | float
    ) -> Float64[np.ndarray, " K"]:
        return tail_radii(
            self._kept_scores,
            self._kept_squares,
            norm=self._norm,
            unseen_score=unseen_score,
            norm_deviation=self._candidates.norm_deviation,
            dimension=self._candidates.vectors.shape[1],
            farthest=farthest,
        )
