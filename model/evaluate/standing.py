"""Where chosen entries stand in whole galleries, and how far each query is from losing them.

A certified search proves as much of one query at a time, from candidates. An evaluation asks
thousands of queries, always about one known entry each, with the whole gallery at hand: the same
radii and the same slack as `model.certificate.pairs`, in large matrix products.

Radii here are of the embedding space; `model.evaluate.radii` carries them to pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.distances import CentredRows
from model.certificate.pairs import Slack, compare
from model.metrics.metric import first_equal, norms_of, unit_rows

_BLOCK_NUMBERS = 1 << 21

Entries = Int64[np.ndarray, " Q"]


@dataclass(frozen=True, eq=False)
class Standing:
    """How one chosen entry of each query stands against the whole gallery.

    Attributes:
        ranks: number of entries before it, (Q,): it is in the top k where this is below k.
        similarities: its cosine with the query, (Q,); 0 for a zero query.
        radii: for each k asked for, the embedding-space radius below which it provably stays in
            the top k, (Q, K). Never positive for one that is not in it; 0 for a zero query; inf
            where fewer than k others could ever come before it.
    """

    ranks: Entries
    similarities: Float64[np.ndarray, " Q"]
    radii: Float64[np.ndarray, "Q K"]


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
        embeddings: raw embeddings, (N, D), N >= 1. A zero one stays zero and scores 0.
    """

    def __init__(self, embeddings: Float64[np.ndarray, "N D"]) -> None:
        self.vectors = unit_rows(embeddings)
        self._rows = self.vectors.astype(np.float64)
        self._centred = CentredRows.of(self.vectors, np.arange(len(self.vectors)))
        self._first_equal = first_equal(self.vectors)
        self._has_equal = bool((self._first_equal != np.arange(len(self.vectors))).any())

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(
        self, queries: Float64[np.ndarray, "Q D"], without: Sequence[LeftOut] = ()
    ) -> Entries:
        """The entry that each query finds first, (Q,), among those that count for it."""
        found = np.empty(len(queries), dtype=np.int64)
        for part in self._blocks(len(queries)):
            scores = self._scores(queries[part])
            _leave_out(scores, part, without, -np.inf)
            found[part] = scores.argmax(axis=1)
        return found

    def stand(
        self,
        queries: Float64[np.ndarray, "Q D"],
        chosen: Entries,
        ks: Sequence[int] = (1,),
        without: Sequence[LeftOut] = (),
    ) -> Standing:
        """How the chosen entry of each query stands against all others that count for it."""

        def of_each_k(lower: Float64[np.ndarray, "B N"]) -> Float64[np.ndarray, "B K"]:
            missing = max(0, max(ks) - lower.shape[1])
            padded = np.pad(lower, ((0, 0), (0, missing)), constant_values=np.inf)
            places = [k - 1 for k in ks]
            return np.partition(padded, places, axis=1)[:, places]

        return self._stand(queries, chosen, without, of_each_k, len(ks))

    def stand_by_group(
        self,
        queries: Float64[np.ndarray, "Q D"],
        chosen: Entries,
        groups: Int64[np.ndarray, " N"],
        count: int,
    ) -> Standing:
        """How the chosen entry of each query stands against each group of entries alone.

        Returns:
            As `stand`, with a column of radii of staying before all others of a group; inf for a
            group without others. Ranks are those in the whole gallery.
        """

        def of_each_group(lower: Float64[np.ndarray, "B N"]) -> Float64[np.ndarray, "B G"]:
            least = [lower[:, groups == g].min(axis=1, initial=np.inf) for g in range(count)]
            return np.stack(least, axis=1)

        return self._stand(queries, chosen, (), of_each_group, count)

    def _stand(
        self,
        queries: Float64[np.ndarray, "Q D"],
        chosen: Entries,
        without: Sequence[LeftOut],
        least: Callable[[np.ndarray], np.ndarray],
        columns: int,
    ) -> Standing:
        """Signed radii against all others, (B, N) a block, and so many columns that `least` keeps.

        A zero query, which has no direction, has no radius.
        """
        norms = norms_of(queries)
        ranks = np.empty(len(queries), dtype=np.int64)
        cosines, radii = np.zeros(len(queries)), np.zeros((len(queries), columns))
        for part in self._blocks(len(queries)):
            scores, lower, before = self._against(queries[part], norms[part], chosen[part])
            _leave_out(lower, part, without, np.inf)
            _leave_out(before, part, without, False)
            ranks[part] = before.sum(axis=1)
            is_pointed = norms[part] > 0.0
            np.divide(scores, norms[part], out=cosines[part], where=is_pointed)
            radii[part] = np.where(is_pointed[:, None], least(lower), 0.0)
        return Standing(ranks, np.clip(cosines, -1.0, 1.0), radii)

    def _scores(self, queries: Float64[np.ndarray, "B D"]) -> Float64[np.ndarray, "B N"]:
        """Scores of all entries, equal where rows are: a matrix product promises no such."""
        scores = queries @ self._rows.T
        return scores[:, self._first_equal] if self._has_equal else scores

    def _against(
        self,
        queries: Float64[np.ndarray, "B D"],
        norms: Float64[np.ndarray, " B"],
        chosen: Int64[np.ndarray, " B"],
    ) -> tuple[Float64[np.ndarray, " B"], Float64[np.ndarray, "B N"], Bool[np.ndarray, "B N"]]:
        """The chosen entries' scores, their signed radii with the slack off, and who is ahead."""
        scores = self._scores(queries)
        own = scores[np.arange(len(queries)), chosen]
        gap = own[:, None] - scores
        numbers = np.arange(len(self))
        before = (gap < 0.0) | ((gap == 0.0) & (numbers < chosen[:, None]))
        slack = Slack.of(norms[:, None], dimension=queries.shape[1])
        pairs = compare(self._centred.take(chosen), self._centred, gap)
        return own, pairs.lower(slack), before

    def _blocks(self, count: int) -> Iterator[slice]:
        """Slices of the queries small enough that a block of scores stays small."""
        rows = max(1, _BLOCK_NUMBERS // max(1, len(self)))
        for start in range(0, count, rows):
            yield slice(start, min(start + rows, count))


def _leave_out(
    table: np.ndarray, part: slice, without: Sequence[LeftOut], nobody: float | bool
) -> None:
    """Write `nobody` where an entry does not count for a query of this part."""
    for left_out in without:
        table[left_out.groups == left_out.of[part, None]] = nobody
