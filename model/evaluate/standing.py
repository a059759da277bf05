"""Where chosen entries stand in whole galleries, and how far each query is from losing them.

A certified search proves as much of one query at a time, from candidates. An evaluation asks
thousands of queries, always about one known entry each, with the whole gallery at hand: the same
radii and the same slack as `model.certificate.pairs`, in large matrix products.

An entry is a picture, and owns as many rows as it has views: it scores by the best, and is before
another while for each row of that some row of its own is ahead.

Radii here are times gain and Lipschitz bound; `model.evaluate.radii` carries them to pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.distances import CentredRows
from model.certificate.geometry import SMALLEST_NORM
from model.certificate.metric import relative_scales
from model.certificate.pairs import Slack, compare
from model.certificate.rounding import gamma
from model.evaluate.embedding import Counting, uncounted
from model.evaluate.radii import Proof
from model.metrics.metric import first_equal, norms_of, unit_rows

_BLOCK_NUMBERS = 1 << 21

# So many of the others are compared in all views first.
_FIRST_LOOK = 64

Entries = Int64[np.ndarray, " Q"]


@dataclass(frozen=True, eq=False)
class Standing:
    """How one chosen entry of each query stands against the whole gallery.

    Attributes:
        ranks: number of entries before it, (Q,): it is in the top k where this is below k.
        similarities: its cosine with the query, (Q,); 0 for a zero query.
        radii: for each k asked for, the radius below which it provably stays in the top k, (Q, K).
            Never positive for one that is not in it; 0 for a zero query; inf where fewer than k
            others could ever come before it.
        margins: for each k, what a verdict compares with its threshold, (Q, K): the distance in
            embedding space to the k-th plane over the norm, whatever the metric's scales; as
            computed, 0 where equal rows decide and for a zero query.
        statistics: margin + weight x cosine as a verdict has it, for each weight asked for,
            (W, Q, K).
    """

    ranks: Entries
    similarities: Float64[np.ndarray, " Q"]
    radii: Float64[np.ndarray, "Q K"]
    margins: Float64[np.ndarray, "Q K"]
    statistics: Float64[np.ndarray, "W Q K"]


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Entries that do not count for a query: those of one group, another for each query.

    Attributes:
        groups: number of each entry's group, (N,).
        of: number of the group that each query does without, (Q,).
    """

    groups: Int64[np.ndarray, " N"]
    of: Entries


class Gallery:
    """The entries of a gallery as the service stores them: unit float32 rows, ties by number.

    Args:
        embeddings: raw embeddings, (N V, D), N >= 1, those of one entry side by side. A zero one
            stays zero and scores 0.
        views: rows of each entry, V.
        counting: shows how many queries were compared.
        proof: of the metric, for radii by its scales with its forward error off; without, they are
            those of an exact embedding that moves alike in all directions.
    """

    def __init__(
        self,
        embeddings: Float64[np.ndarray, "R D"],
        views: int = 1,
        proof: Proof | None = None,
        *,
        counting: Counting = uncounted,
    ) -> None:
        self.vectors, self._views = unit_rows(embeddings), views
        self._counting = counting
        self._rows = self.vectors.astype(np.float64)
        numbers = np.arange(len(self.vectors))
        proof = proof or Proof(1.0, 0.0)
        self._error = proof.forward_error
        scales = relative_scales(proof.lipschitz_bound, proof.output_scales)
        self._centred = CentredRows.of(self.vectors, numbers // views, scales)
        self._first_equal = first_equal(self.vectors)
        self._has_equal = bool((self._first_equal != numbers).any())

    def __len__(self) -> int:
        return len(self.vectors) // self._views

    def nearest(
        self, queries: Float64[np.ndarray, "Q D"], without: Sequence[LeftOut] = ()
    ) -> Entries:
        """The entry that each query finds first, (Q,), among those that count for it."""
        found = np.empty(len(queries), dtype=np.int64)
        for part in self._blocks(len(queries)):
            scores = self._by_entry(self._scores(queries[part])).max(axis=2)
            _leave_out(scores, part, without, -np.inf)
            found[part] = scores.argmax(axis=1)
        return found

    def stand(
        self,
        queries: Float64[np.ndarray, "Q D"],
        chosen: Entries,
        ks: Sequence[int] = (1,),
        without: Sequence[LeftOut] = (),
        cosine_weights: Sequence[float] = (),
    ) -> Standing:
        """How the chosen entry of each query stands against all others that count for it."""

        def of_each_k(lower: Float64[np.ndarray, "B N"]) -> Float64[np.ndarray, "B K"]:
            missing = max(0, max(ks) - lower.shape[1])
            padded = np.pad(lower, ((0, 0), (0, missing)), constant_values=np.inf)
            places = [k - 1 for k in ks]
            return np.partition(padded, places, axis=1)[:, places]

        return self._stand(
            queries,
            chosen,
            of_each_k,
            columns=len(ks),
            without=without,
            cosine_weights=cosine_weights,
        )

    def stand_by_group(
        self,
        queries: Float64[np.ndarray, "Q D"],
        chosen: Entries,
        groups: Int64[np.ndarray, " N"],
        count: int,
        cosine_weights: Sequence[float] = (),
    ) -> Standing:
        """How the chosen entry of each query stands against each group of entries alone.

        Returns:
            As `stand`, with a column for staying before all others of a group; inf for a group
            without others. Ranks are those in the whole gallery.
        """

        def of_each_group(lower: Float64[np.ndarray, "B N"]) -> Float64[np.ndarray, "B G"]:
            least = [lower[:, groups == g].min(axis=1, initial=np.inf) for g in range(count)]
            return np.stack(least, axis=1)

        return self._stand(
            queries, chosen, of_each_group, columns=count, cosine_weights=cosine_weights
        )

    def _stand(
        self,
        queries: Float64[np.ndarray, "Q D"],
        chosen: Entries,
        least: Callable[[np.ndarray], np.ndarray],
        *,
        columns: int,
        without: Sequence[LeftOut] = (),
        cosine_weights: Sequence[float] = (),
    ) -> Standing:
        """Signed radii against all others, (B, N) a block, and so many columns that `least` keeps.

        A zero query, which has no direction, has no radius.
        """
        norms = norms_of(queries)
        is_pointed = norms >= SMALLEST_NORM
        norms = np.where(is_pointed, norms, 1.0)
        ranks, cosines = np.empty(len(queries), dtype=np.int64), np.empty(len(queries))
        radii, margins, *statistics = np.empty((2 + len(cosine_weights), len(queries), columns))
        for part in self._blocks(len(queries)):
            mine = chosen[part]
            scores = self._scores(queries[part])
            best = self._by_entry(scores).max(axis=2)
            own = best[np.arange(len(mine)), mine][:, None]
            before = (best > own) | ((best == own) & (np.arange(len(self)) < mine[:, None]))
            _leave_out(before, part, without, False)
            ranks[part], cosines[part] = before.sum(axis=1), own[:, 0] / norms[part]
            counts = np.ones(best.shape, dtype=np.bool_)
            counts[np.arange(len(mine)), mine] = False  # its own rows never compete
            _leave_out(counts, part, without, False)
            rows = self._rows_of(mine)
            own_scores = np.take_along_axis(scores, rows, axis=1)
            # No number is smaller than that of the best row of its own alone.
            nearest = np.arange(len(mine)), own_scores.argmax(axis=1)
            lows = self._against(
                rows[nearest],
                own_scores[nearest][:, None],
                scores,
                norm=norms[part, None],
                cosine_weights=cosine_weights,
            )
            lows = np.stack([self._by_entry(one).min(axis=2) for one in lows])
            lows[:, ~counts] = np.inf
            for i, number in enumerate(range(part.start, part.stop)):
                found = least(lows[:, i])
                if self._views > 1:
                    found = self._least(
                        lows[:, i],
                        counts[i],
                        least,
                        own=rows[i],
                        scores=scores[i],
                        norm=norms[number],
                        cosine_weights=cosine_weights,
                    )
                radii[number], margins[number] = found[:2]
                for out, one in zip(statistics, found[2:], strict=True):
                    out[number] = one
        for out in (cosines, radii, margins, *statistics):
            out[~is_pointed] = 0.0
        found = np.array(statistics).reshape(len(statistics), *margins.shape)
        return Standing(ranks, np.clip(cosines, -1.0, 1.0), radii, margins, found)

    def _scores(self, queries: Float64[np.ndarray, "B D"]) -> Float64[np.ndarray, "B R"]:
        """Scores of all rows, equal where they are: a matrix product promises no such."""
        scores = queries @ self._rows.T
        return scores[:, self._first_equal] if self._has_equal else scores

    def _least(
        self,
        lows: Float64[np.ndarray, "S N"],
        counts: Bool[np.ndarray, " N"],
        least: Callable[[np.ndarray], np.ndarray],
        *,
        own: Int64[np.ndarray, " V"],
        scores: Float64[np.ndarray, " R"],
        norm: float,
        cosine_weights: Sequence[float],
    ) -> Float64[np.ndarray, "S K"]:
        """Radii, margins and statistics over all own rows of one query's entry.

        The others of the lowest bounds come first: once those that are left cannot have a smaller
        number than what is kept, they are not compared.
        """
        width = _FIRST_LOOK
        while True:
            some, rest = np.flatnonzero(counts), np.full(len(lows), np.inf)
            if width < counts.size:
                some = np.unique(np.argpartition(lows[:2], width, axis=1)[:, :width])
                left = lows.copy()
                left[:, some] = np.inf
                some, rest = some[counts[some]], left.min(axis=1)
            theirs = self._rows_of(some).ravel()
            values = self._against(
                own,
                scores[own][:, None],
                scores[None, theirs],
                norm=norm,
                cosine_weights=cosine_weights,
                second=theirs,
            )
            table = np.full_like(lows, np.inf)
            for out, one in zip(table, values, strict=True):
                out[some] = one.max(axis=0).reshape(-1, self._views).min(axis=1)
            columns = least(table)
            if (columns <= rest[:, None]).all():
                return columns
            width *= 8

    def _against(
        self,
        first: Int64[np.ndarray, " A"],
        own_scores: Float64[np.ndarray, "A 1"],
        scores: Float64[np.ndarray, "_ M"],
        *,
        norm: float | Float64[np.ndarray, "A 1"],
        cosine_weights: Sequence[float],
        second: Int64[np.ndarray, " M"] | None = None,
    ) -> list[Float64[np.ndarray, "A M"]]:
        """Some rows against others, or all: radii, margins, statistics."""
        others = self._centred if second is None else self._centred.take(second)
        pairs = compare(self._centred.take(first), others, np.zeros((first.size, scores.shape[1])))
        gap = pairs.gap  # the infinite ones, of equal rows, stay
        gap += own_scores
        gap -= scores
        sines = pairs.sines(norm)
        weighted = [sines + weight * own_scores / norm for weight in cosine_weights]
        return [pairs.lower(self._slack(norm)), sines, *weighted]

    def _rows_of(self, entries: Int64[np.ndarray, " E"]) -> Int64[np.ndarray, "E V"]:
        return entries[:, None] * self._views + np.arange(self._views)

    def _slack(self, norm: float | Float64[np.ndarray, "A 1"]) -> Slack:
        dimension = self.vectors.shape[1]
        longest = norm * (1.0 + gamma(dimension + 8))
        return Slack.of(longest, dimension=dimension, forward_error=self._error)

    def _by_entry(self, values: Float64[np.ndarray, "B R"]) -> Float64[np.ndarray, "B N V"]:
        return values.reshape(len(values), -1, self._views)

    def _blocks(self, count: int) -> Iterator[slice]:
        """Slices of the queries small enough that a block of scores stays small."""
        rows = max(1, _BLOCK_NUMBERS // len(self.vectors))
        with self._counting("comparing queries", count) as advance:
            for start in range(0, count, rows):
                end = min(start + rows, count)
                yield slice(start, end)
                for _ in range(start, end):
                    advance()


def _leave_out(
    table: np.ndarray, part: slice, without: Sequence[LeftOut], nobody: float | bool
) -> None:
    """Write `nobody` where an entry does not count for a query of this part."""
    for left_out in without:
        table[left_out.groups == left_out.of[part, None]] = nobody
