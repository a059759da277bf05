"""The pair radii that a certificate needs, a block at a time, without those that cannot count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.distances import CentredRows, rows_of_a_block
from model.certificate.geometry import Norm
from model.certificate.items import ItemRows
from model.certificate.kth_smallest import KthSmallest
from model.certificate.pairs import Candidates, Pairs, Scores, Slack, compare, keep_on
from model.certificate.rounding import gamma
from model.certificate.tail import Tail

# Fewer rows a block are not worth a round, however many entries they are compared with.
_FEWEST = 64

# From so many kept entries, or from this squared norm of the mean of the best candidates, a centre
# of their own is worth its subtraction.
_MANY = 32
_CLOSE = 0.95

# So many of the best candidates, or as many as are kept, say where the middle of them is.
_SAMPLE = 16


@dataclass(frozen=True, eq=False)
class PairBlock:
    """Some items against the items of a block of candidates, (K, Q).

    Attributes:
        pairs: the rows compared, (A, B).
        kept: the items whose rows are the first axis of `pairs`.
        columns: the items whose rows are the second.
        is_needed: which of the K items those of `kept` are; None for all.
        own: rank and column of the items that are on both sides.
    """

    pairs: Pairs
    kept: ItemRows
    columns: ItemRows
    is_needed: Bool[np.ndarray, " K"] | None
    own: tuple[Int64[np.ndarray, " O"], Int64[np.ndarray, " O"]]

    @property
    def positions(self) -> Int64[np.ndarray, " Q"]:
        """Of one candidate of each item of the block."""
        return self.columns.first

    def of_items(self, values: Float64[np.ndarray, "A B"]) -> Float64[np.ndarray, "K Q"]:
        """From numbers of pairs of rows to those of pairs of items; may be in place.

        inf of an item over itself, and where no comparison was needed.
        """
        found = self.columns.smallest(self.kept.largest(values))
        if self.is_needed is not None:
            whole = np.full((self.is_needed.size, found.shape[1]), np.inf)
            whole[self.is_needed] = found
            found = whole
        found[self.own] = np.inf
        return found


CannotMatter = Callable[
    [Float64[np.ndarray, " A"], Float64[np.ndarray, " A"]], Bool[np.ndarray, " K"]
]
"""Of which items rows cannot matter over which each kept row has these lower bounds: of its
isotropic radius, and of its lead in score."""


class PairScan:
    """Some items of a ranking against all candidates, a block at a time, best scores first.

    To push item p out of the top k, k others must come before it; those ahead already count with
    their negative radii, hence the k-th smallest signed one. Once k are known, a block whose tail
    bound lies above them is left out: with the distance through the common centre, |f_i - f_j| <=
    |a_i| + |a_j|, as the farthest where rows have a centre. So the numbers are those of all pairs,
    or lower bounds of them where what was left out decides; `rest` says which.

    Attributes:
        lower: the k smallest radii with the slack off, of each item over all others.
        upper: upper bounds of the same.
        isotropic: as `lower`, had the metric no scales.
        kept: the items' rows.
        candidates: as given.
        scores: as given.
        slack: as given.
        scales: as given.
    """

    def __init__(
        self,
        candidates: Candidates,
        scores: Scores,
        top: Int64[np.ndarray, " K"],
        *,
        k: int,
        norm: Norm,
        slack: Slack,
        scales: Float64[np.ndarray, " D"] | None = None,
        check_deadline: Callable[[], None] = keep_on,
    ) -> None:
        """A scan for the items of some candidates, `top`.

        Args:
            candidates: what a search retrieved.
            scores: of each.
            top: one position of each item, (K,).
            k: the largest order statistic that will be asked for.
            norm: of the query, positive.
            slack: what rounding and the forward error take off a pair's radius.
            scales: c of the metric; None where it has none.
            check_deadline: called between blocks of work; raises where nobody waits any more.
        """
        self.candidates, self.scores, self._norm, self.slack = candidates, scores, norm, slack
        self.scales, self._check_deadline = scales, check_deadline
        self._rank_of = np.full(candidates.rows.size, -1)
        self.kept = self._rows_of_items(top)
        rows = self.kept.positions
        self._tail = Tail(
            scores=scores.values[rows],
            squared_norms=scores.squared_norms[rows],
            scaled_reach=self._scaled_reach(rows),
            norm=norm,
            norm_deviation=candidates.norm_deviation,
            dimension=candidates.vectors.shape[1],
            slack=slack,
        )
        count = self.kept.count
        self.lower, self.upper = KthSmallest(k, count), KthSmallest(k, count)
        self.isotropic, self._isotropic_upper = self.lower, self.upper
        if scales is not None:
            self.isotropic, self._isotropic_upper = KthSmallest(k, count), KthSmallest(k, count)
        self._to_next = np.full(max(0, count - 1), np.nan)
        self.rest_of_rows, self._rest = self._tail.bounds(candidates.ceiling)
        self._rest_scores: Float64[np.ndarray, " A"] | float = candidates.ceiling
        # The same of the blocks left out alone: over all of them together some row must stay ahead.
        count = self.kept.positions.size
        self._left_out, self._left_out_isotropic = np.full((2, count), np.inf)
        self._left_out_scores = np.full(count, -np.inf)
        self._also: list[CannotMatter] = []

    @property
    def rest(self) -> Float64[np.ndarray, " K"]:
        """Lower bound of each item's radius over all that was not compared, slack off, (K,).

        These are rows unseen by the search, and blocks left out; inf where there are none.
        """
        return self.kept.largest(self._rest)

    @property
    def rest_isotropic(self) -> Float64[np.ndarray, " K"]:
        """The same had the metric no scales, before the forward error, (K,).

        `rest_of_rows` has it of each row, (A,).
        """
        return self.kept.largest(self.rest_of_rows)

    @property
    def to_next(self) -> Float64[np.ndarray, " J"]:
        """Each item's radius over the one behind it, slack off, (K - 1,); for when all is seen."""
        return np.where(np.isnan(self._to_next), self.rest[:-1], self._to_next)

    @property
    def rest_gap(self) -> Float64[np.ndarray, " A"]:
        """Lower bound of each row's lead in score over all that was not compared, (A,)."""
        return self._lead(self._rest_scores)

    def _lead(self, scores: Float64[np.ndarray, " A"] | float) -> Float64[np.ndarray, " A"]:
        unit = gamma(self.candidates.vectors.shape[1] + 8)
        rounding = 8.0 * unit * (1.0 + self.candidates.norm_deviation) * self._norm.high
        return self._tail.scores - scores - rounding

    def leave_out_only(self, where: "CannotMatter") -> None:
        """Leave a block out for those items only of which `where` says that it cannot matter.

        It is given bounds over that block and all left out before, like `rest_of_rows` and
        `rest_gap`.
        """
        self._also.append(where)

    def __iter__(self) -> Iterator[tuple[PairBlock, Float64[np.ndarray, "K Q"]]]:
        """Blocks, and the radii of pairs of items with the slack off."""
        if self.kept.count == 0:
            return
        vectors, rows = self.candidates.vectors, self.scores.rows
        kept_count = self.kept.positions.size
        if rows is not None and len(vectors) <= rows_of_a_block(kept_count):
            # Clusters among few candidates get their own centre where they need one.
            everything = self._around_zero(None, rows)
            self._check_deadline()
            columns = self._grouped()
            block = everything if columns.starts is None else everything.take(columns.positions)
            yield self._compare(everything.take(self.kept.positions), block, columns)
            return
        length = max(_FEWEST, rows_of_a_block(max(vectors.shape[1], kept_count)))
        order = self._best_first()
        kept, is_central = self._kept_rows(order.positions)
        for part in order.blocks(length):
            self._check_deadline()
            columns = part.positions
            best = float(self.scores.values[columns].max())
            # No later block has a better score, so what bounds this one bounds them all.
            if self._leave_out(best, all_or_none=True).all():
                return
            if is_central:
                block = self._around_zero(columns, vectors[columns].astype(np.float64))
                yield self._compare(kept, block, part)
                continue
            numbers = self.candidates.numbers[columns]
            block = CentredRows.around(kept.centre, vectors[columns], numbers, self.scales)
            left_out = self._leave_out(best, kept, block)
            if not left_out.all():
                yield self._compare(kept, block, part, left_out)

    def _rows_of_items(self, top: Int64[np.ndarray, " K"]) -> ItemRows:
        """All rows of the items that have these, in their order; notes whose each row is."""
        items = self.candidates.items
        if items is None:
            self._rank_of[top] = np.arange(top.size)
            return ItemRows(top, None)
        by_number = np.argsort(items[top])
        place = np.searchsorted(items[top][by_number], items)
        found = by_number[np.minimum(place, top.size - 1)] if top.size else place
        is_kept = items[top][found] == items if top.size else np.zeros(items.size, dtype=np.bool_)
        self._rank_of[is_kept] = found[is_kept]
        rows = np.flatnonzero(is_kept)
        return ItemRows.sorted_by(self._rank_of[rows], rows)

    def _grouped(self) -> ItemRows:
        """All candidates, by item."""
        everything = np.arange(self.candidates.rows.size)
        if self.candidates.items is None:
            return ItemRows(everything, None)
        return ItemRows.sorted_by(self.candidates.items, everything)

    def _best_first(self) -> ItemRows:
        """All candidates by item, those of the best scores first."""
        grouped, scores = self._grouped(), self.scores.values
        if grouped.starts is None:
            return ItemRows(np.argsort(-scores, kind="stable"), None)
        order = np.argsort(-grouped.largest(scores[grouped.positions]), kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        return ItemRows.sorted_by(grouped.spread(rank), grouped.positions)

    def _scaled_reach(self, rows: Int64[np.ndarray, " A"]) -> Float64[np.ndarray, " A"] | None:
        """Upper bound of |c o f_i| + |c o f_j| for these rows i and any row j of the gallery."""
        if self.scales is None:
            return None
        scaled = self.candidates.vectors[rows] * self.scales
        up = 1.0 + 2.0 * self.slack.rounding
        own = np.sqrt(np.einsum("md,md->m", scaled, scaled)) * up
        return (own + min(self.candidates.scaled_norm, self._longest_scaled())) * up

    def _longest_scaled(self) -> float:
        """|c o f| <= max c |f|, and <= |f| as L bounds the whole network."""
        longest = 1.0 + self.candidates.norm_deviation
        return longest * min(1.0, float(self.scales.max())) if self.scales is not None else longest

    def _around_zero(
        self, columns: Int64[np.ndarray, " B"] | None, rows: Float64[np.ndarray, "B D"]
    ) -> CentredRows:
        """Candidates around 0, which costs nothing: their squares are known."""
        numbers, squares = self.candidates.numbers, self.scores.squared_norms
        if columns is not None:
            numbers, squares = numbers[columns], squares[columns]
        return CentredRows.around_zero(rows, numbers, squares, self.scales)

    def _kept_rows(self, order: Int64[np.ndarray, " M"]) -> tuple[CentredRows, bool]:
        """The kept rows around 0, or the mean of the best candidates, and whether it is 0.

        A centre costs each candidate a subtraction; it pays where there are many rows to compare
        it with or leave out, and where near rows need its digits.
        """
        positions = self.kept.positions
        vectors, numbers = self.candidates.vectors, self.candidates.numbers
        best = vectors[order[: max(_SAMPLE, positions.size)]]
        centre = best.mean(axis=0, dtype=np.float64).astype(np.float32).astype(np.float64)
        if positions.size < _MANY and centre @ centre < _CLOSE:
            return self._around_zero(positions, vectors[positions].astype(np.float64)), True
        kept = vectors[positions]
        return CentredRows.around(centre, kept, numbers[positions], self.scales), False

    def _compare(
        self,
        kept: CentredRows,
        rows: CentredRows,
        columns: ItemRows,
        left_out: Bool[np.ndarray, " K"] | None = None,
    ) -> tuple[PairBlock, Float64[np.ndarray, "K Q"]]:
        """Compare the kept items with a block, but for those that need not be."""
        is_needed = None if left_out is None or not left_out.any() else ~left_out
        items = self.kept
        if is_needed is not None:
            kept = kept.take(np.flatnonzero(items.spread(is_needed)))
            items = items.take(is_needed)
        ranks = self._rank_of[columns.first]
        own = np.flatnonzero(ranks >= 0)
        scores = self.scores.values
        gap = scores[items.positions, None] - scores[columns.positions]
        block = PairBlock(compare(kept, rows, gap), items, columns, is_needed, (ranks[own], own))
        lower = block.of_items(block.pairs.lower(self.slack))
        self._look_at_next(lower, *block.own, is_needed)
        self.lower.add(lower)
        self.upper.add(block.of_items(block.pairs.upper(self.slack)))
        if self.scales is not None:
            plain = block.pairs.unscaled
            self.isotropic.add(block.of_items(plain.lower(self.slack)))
            self._isotropic_upper.add(block.of_items(plain.upper(self.slack)))
        return block, lower

    def _look_at_next(
        self,
        lower: Float64[np.ndarray, "K Q"],
        ranks: Int64[np.ndarray, " O"],
        columns: Int64[np.ndarray, " O"],
        is_needed: Bool[np.ndarray, " K"] | None,
    ) -> None:
        """Keep the radii of items over those behind them, of those that were compared."""
        follows = ranks > 0 if is_needed is None else (ranks > 0) & is_needed[ranks - 1]
        before = ranks[follows] - 1
        self._to_next[before] = lower[before, columns[follows]]

    def _leave_out(
        self,
        best: float,
        kept: CentredRows | None = None,
        block: CentredRows | None = None,
        *,
        all_or_none: bool = False,
    ) -> Bool[np.ndarray, " K"]:
        """Which items need no comparison with candidates of at most this score, (K,).

        Args:
            best: the best score among the candidates.
            kept: the items' rows around a centre, for the distance through it; None for none.
            block: the candidates around the same centre.
            all_or_none: whether to leave out all items or none.
        """
        none = np.zeros(self.kept.count, dtype=np.bool_)
        if not np.isfinite(self.upper.limit).any():
            return none
        farthest = scaled = np.inf
        if kept is not None and block is not None:
            farthest = self._farthest(kept.squares, block.squares)
            scaled = self._farthest(kept.scaled_squares, block.scaled_squares)
        isotropic, tail = self._tail.bounds(best, farthest, scaled)
        tail = np.minimum(tail, self._left_out)
        isotropic = np.minimum(isotropic, self._left_out_isotropic)
        scores = np.maximum(best, self._left_out_scores)
        of_items = self.kept.largest(tail)
        out = (of_items > 0.0) & (of_items >= self.upper.limit)
        if self.scales is not None:
            out &= self.kept.largest(isotropic) >= self._isotropic_upper.limit
        for where in self._also:
            out &= where(isotropic, self._lead(scores))
        if all_or_none and not out.all():
            return none
        rows = self.kept.spread(out)
        self._rest = np.where(rows, np.minimum(self._rest, tail), self._rest)
        self.rest_of_rows = np.where(
            rows, np.minimum(self.rest_of_rows, isotropic), self.rest_of_rows
        )
        self._rest_scores = np.where(rows, np.maximum(self._rest_scores, best), self._rest_scores)
        self._left_out = np.where(rows, tail, self._left_out)
        self._left_out_isotropic = np.where(rows, isotropic, self._left_out_isotropic)
        self._left_out_scores = np.where(rows, scores, self._left_out_scores)
        return out

    def _farthest(
        self, kept: Float64[np.ndarray, " A"], block: Float64[np.ndarray, " B"]
    ) -> Float64[np.ndarray, " A"]:
        """Upper bound of each kept row's distance to any row of a block, through the centre."""
        unit = gamma(self.candidates.vectors.shape[1] + 8)
        return (np.sqrt(kept) + np.sqrt(block.max())) * (1.0 + unit)
