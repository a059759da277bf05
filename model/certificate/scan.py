"""The pair radii that a certificate needs, a block at a time, without those that cannot count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

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


class KthSmallest:
    """The k smallest numbers of each of several rows that arrive in blocks."""

    def __init__(self, k: int, count: int) -> None:
        self._k, self._count, self._width = k, count, 0
        self._parts: list[Float64[np.ndarray, "K B"]] = []
        # Upper bound of the k-th smallest so far, (K,); inf while fewer have come.
        self.limit = np.full(count, np.inf)

    def add(self, block: Float64[np.ndarray, "K B"]) -> None:
        """Take in more columns; what can no longer be among the k smallest is forgotten at times.

        Not at each block: to part k + B numbers for B new ones would cost more than they do.
        """
        self._parts.append(block)
        self._width += block.shape[1]
        if self._width >= self._k + self._k // 2:
            self._settle()

    def kth(self, k: int | None = None) -> Float64[np.ndarray, " K"]:
        """The k-th smallest of each row, (K,); inf where there were fewer.

        Args:
            k: at most the one given at the start, which is the default.
        """
        if not self._parts:
            return self.limit
        smallest = self._settle()
        wanted = self._k if k is None else k
        if smallest.shape[1] < wanted:
            return np.full(self._count, np.inf)
        if wanted == self._k:
            return self.limit
        return np.partition(smallest, wanted - 1, axis=1)[:, wanted - 1]

    def _settle(self) -> Float64[np.ndarray, "K W"]:
        seen = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)
        if seen.shape[1] > self._k:
            seen = np.partition(seen, self._k - 1, axis=1)[:, : self._k]
        if seen.shape[1] == self._k:
            self.limit = seen.max(axis=1)
        self._parts, self._width = [seen], seen.shape[1]
        return seen


@dataclass(frozen=True, eq=False)
class PairBlock:
    """Signed radii of the kept entries over some candidates, (K, B).

    Attributes:
        columns: which candidates.
        radii: inf of an entry over itself, and where a pair was not needed; with slack 0 there.
    """

    columns: Columns
    radii: SignedRadii


class PairScan:
    """Some entries of a ranking against all candidates, a block at a time, best scores first.

    To push entry i out of the top k, k others must come before it; those ahead already count with
    their negative radii, hence the k-th smallest signed one. Once k are known, a block whose bound
    of `tail_radii` lies above them is left out: with the distance through the common centre,
    |f_i - f_j| <= |a_i| + |a_j|, as the farthest. So the numbers are those of all pairs, or lower
    bounds of them where what was left out decides; `rest` says which.

    Attributes:
        lower: the k smallest radii with the slack off, of each entry over all others.
        upper: the same with the slack added.
        rest: lower bound of each one's radius over all that was not compared, (K,): entries unseen
            by the search, and blocks left out. inf where there is nothing.
        rest_gap: lower bound of its lead in score over all that, (K,).
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
        self.rest_gap = self._gap(candidates.ceiling)

    def __iter__(self) -> Iterator[PairBlock]:
        if self._positions.size == 0:
            return
        for columns, kept, block in self._blocks():
            self._check_deadline()
            needed = np.ones(self._positions.size, dtype=np.bool_)
            if np.isfinite(self.upper.limit).any():
                best = float(self._scores.values[columns].max())
                needed = ~self._leave_out(best, self._farthest(kept.squares, block.squares))
            if not needed.any():
                continue
            radii = self._compare(kept, block, columns, needed)
            self.lower.add(radii.lower)
            self.upper.add(radii.upper)
            yield PairBlock(columns, radii)

    def _blocks(self) -> Iterator[tuple[Columns, CentredRows, CentredRows]]:
        """The kept entries and the candidates in blocks, best scores first, around one centre.

        Few candidates are one block around 0, which costs nothing: clusters among them get their
        own centre where they need one.
        """
        vectors, numbers = self._candidates.vectors, self._candidates.rows
        rows, squares = self._scores.rows, self._scores.squared_norms
        count = vectors.shape[0]
        length = rows_of_a_block(max(vectors.shape[1], self._positions.size))
        if rows is not None and count <= length:
            origin = np.zeros(vectors.shape[1])
            block = CentredRows(rows, numbers, origin, rows, squares)
            yield slice(0, count), block.take(self._positions), block
            return
        kept = CentredRows.of(vectors[self._positions], numbers[self._positions])
        order = np.argsort(-self._scores.values, kind="stable")
        for part in slices(count, length):
            columns = order[part]
            # No later block has a better score, so what bounds this one bounds them all.
            if self._leave_out(
                float(self._scores.values[columns[0]]), np.inf, all_or_none=True
            ).all():
                return
            yield (
                columns,
                kept,
                CentredRows.around(kept.centre, vectors[columns], numbers[columns]),
            )

    def _compare(
        self,
        kept: CentredRows,
        block: CentredRows,
        columns: Columns,
        needed: np.ndarray,
    ) -> SignedRadii:
        scores = self._scores.values[columns]
        if needed.all():
            gap = self._kept_scores[:, None] - scores
            return signed_radii(kept, block, gap, norm=self._norm.high)
        some = np.flatnonzero(needed)
        gap = self._kept_scores[some, None] - scores
        found = signed_radii(kept.take(some), block, gap, norm=self._norm.high)
        shape = (needed.size, scores.size)
        radii = SignedRadii(np.full(shape, np.inf), np.zeros(shape))
        radii.value[some], radii.slack[some] = found
        return radii

    def _leave_out(
        self, best: float, farthest: Float64[np.ndarray, " K"] | float, *, all_or_none: bool = False
    ) -> np.ndarray:
        """Which entries need no comparison with rows of such scores and distances, (K,)."""
        none = np.zeros(self._positions.size, dtype=np.bool_)
        if not np.isfinite(self.upper.limit).any():
            return none
        tail = self._tail(best, farthest)
        out = (tail > 0.0) & (tail >= self.upper.limit)
        if all_or_none and not out.all():
            return none
        self.rest[out] = np.minimum(self.rest, tail)[out]
        self.rest_gap[out] = np.minimum(self.rest_gap, self._gap(best))[out]
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

    def _gap(self, unseen_score: float) -> Float64[np.ndarray, " K"]:
        unit = gamma(self._candidates.vectors.shape[1] + 8)
        rounding = 8.0 * unit * (1.0 + self._candidates.norm_deviation) * self._norm.high
        return self._kept_scores - unseen_score - rounding
