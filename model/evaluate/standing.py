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
from jaxtyping import Float64, Int64

from model.certificate.distances import CentredRows
from model.certificate.geometry import SMALLEST_NORM
from model.certificate.metric import relative_scales
from model.certificate.pairs import Pairs, Slack, compare
from model.certificate.rounding import gamma
from model.evaluate.embedding import Counting, uncounted
from model.evaluate.radii import Proof
from model.metrics.metric import first_equal, norms_of, unit_rows

_BLOCK_NUMBERS = 1 << 21

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
            pairs, norm = self._pairs(scores, mine), norms[part, None, None]
            sines = pairs.sines(norm)
            of_own_rows = self._own_scores(scores, mine)[:, :, None] / norm
            for out, values in (
                (radii, pairs.lower(self._slack(norm))),
                (margins, sines),
                *(
                    (out, sines + weight * of_own_rows)
                    for out, weight in zip(statistics, cosine_weights, strict=True)
                ),
            ):
                of_entries = self._by_entry(values.max(axis=1)).min(axis=2)
                # Its own rows never compete.
                of_entries[np.arange(len(mine)), mine] = np.inf
                _leave_out(of_entries, part, without, np.inf)
                out[part] = least(of_entries)
        for out in (cosines, radii, margins, *statistics):
            out[~is_pointed] = 0.0
        found = np.array(statistics).reshape(len(statistics), *margins.shape)
        return Standing(ranks, np.clip(cosines, -1.0, 1.0), radii, margins, found)

    def _scores(self, queries: Float64[np.ndarray, "B D"]) -> Float64[np.ndarray, "B R"]:
        """Scores of all rows, equal where they are: a matrix product promises no such."""
        scores = queries @ self._rows.T
        return scores[:, self._first_equal] if self._has_equal else scores

    def _pairs(self, scores: Float64[np.ndarray, "B R"], chosen: Int64[np.ndarray, " B"]) -> Pairs:
        """The rows of each query's chosen entry against all rows, (B, V, R)."""
        # Many queries are about one entry, whose distances are the dear part.
        entries, of = np.unique(chosen, return_inverse=True)
        rows = entries[:, None] * self._views + np.arange(self._views)
        flat = rows.ravel()
        at_zero = compare(
            self._centred.take(flat), self._centred, np.zeros((flat.size, scores.shape[1]))
        )
        gap, distance, scaled = (part.reshape(*rows.shape, -1)[of] for part in at_zero)
        own = self._own_scores(scores, chosen)
        # The infinite ones, of equal rows, stay.
        gap += own[:, :, None]
        gap -= scores[:, None]
        return Pairs(gap, distance, scaled)

    def _own_scores(
        self, scores: Float64[np.ndarray, "B R"], chosen: Int64[np.ndarray, " B"]
    ) -> Float64[np.ndarray, "B V"]:
        rows = chosen[:, None] * self._views + np.arange(self._views)
        return np.take_along_axis(scores, rows, axis=1)

    def _slack(self, norms: Float64[np.ndarray, "B 1 1"]) -> Slack:
        dimension = self.vectors.shape[1]
        longest = norms * (1.0 + gamma(dimension + 8))
        return Slack.of(longest, dimension=dimension, forward_error=self._error)

    def _by_entry(self, values: Float64[np.ndarray, "B R"]) -> Float64[np.ndarray, "B N V"]:
        return values.reshape(len(values), -1, self._views)

    def _blocks(self, count: int) -> Iterator[slice]:
        """Slices of the queries small enough that a block of scores stays small."""
        rows = max(1, _BLOCK_NUMBERS // (len(self.vectors) * self._views))
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
