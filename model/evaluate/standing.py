"""Where chosen entries stand in whole galleries, and how far each query is from losing them.

A certified search proves as much of one query at a time, from candidates. An evaluation asks
thousands of queries, always about one known entry each, with the whole gallery at hand: the same
radii and the same slack as `model.certificate.pairs`, in large matrix products.

Radii here are of the embedding space; `model.evaluate.radii` carries them to pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from model.certificate.pairs import CentredRows, signed_radii
from model.evaluate.radii import norms_of
from model.metrics.metric import unit_rows

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
        self._first_equal = _first_equal(self.vectors)
        self._has_equal = bool((self._first_equal != np.arange(len(self.vectors))).any())

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(
        self, queries: Float64[np.ndarray, "Q D"], without: Sequence[LeftOut] = ()
    ) -> Entries:
        """The entry that each query finds first, (Q,), among those that count for it.

        Args:
            queries: raw embeddings, (Q, D).
            without: entries that do not count.
        """
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
        """How the chosen entry of each query stands against all others that count for it.

        Args:
            queries: raw embeddings, (Q, D).
            chosen: one entry of each query, (Q,).
            ks: lengths of answers, each >= 1.
            without: entries that do not count.
        """
        ranks = np.empty(len(queries), dtype=np.int64)
        scores = np.empty(len(queries))
        radii = np.empty((len(queries), len(ks)))
        norms = norms_of(queries)
        for part in self._blocks(len(queries)):
            scores[part], lower, before = self._against(queries[part], norms[part], chosen[part])
            _leave_out(lower, part, without, np.inf)
            _leave_out(before, part, without, False)
            ranks[part] = before.sum(axis=1)
            radii[part] = _kth_smallest(lower, ks)
        return _standing(ranks, scores, norms, radii)

    def stand_by_group(
        self,
        queries: Float64[np.ndarray, "Q D"],
        chosen: Entries,
        groups: Int64[np.ndarray, " N"],
        count: int,
    ) -> Standing:
        """How the chosen entry of each query stands against each group of entries alone.

        Args:
            queries: raw embeddings, (Q, D).
            chosen: one entry of each query, (Q,).
            groups: number of each entry's group, from 0, (N,).
            count: of groups.

        Returns:
            As `stand`, with a column of radii of staying before all others of a group; inf for a
            group without others. Ranks are those in the whole gallery.
        """
        ranks = np.empty(len(queries), dtype=np.int64)
        scores = np.empty(len(queries))
        radii = np.empty((len(queries), count))
        norms = norms_of(queries)
        for part in self._blocks(len(queries)):
            scores[part], lower, before = self._against(queries[part], norms[part], chosen[part])
            ranks[part] = before.sum(axis=1)
            for group in range(count):
                radii[part, group] = lower[:, groups == group].min(axis=1, initial=np.inf)
        return _standing(ranks, scores, norms, radii)

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
        radii = signed_radii(self._centred.take(chosen), self._centred, gap, norm=norms[:, None])
        numbers = np.arange(len(self))
        before = (gap < 0.0) | ((gap == 0.0) & (numbers < chosen[:, None]))
        return own, radii.lower, before

    def _blocks(self, count: int) -> Iterator[slice]:
        """Slices of the queries small enough that a block of scores stays small."""
        rows = max(1, _BLOCK_NUMBERS // max(1, len(self)))
        for start in range(0, count, rows):
            yield slice(start, min(start + rows, count))


def _first_equal(vectors: Float32[np.ndarray, "N D"]) -> Int64[np.ndarray, " N"]:
    """For each row, the lowest number of a row that is equal to it."""
    firsts: dict[bytes, int] = {}
    # Adding 0 makes -0 and 0 the same bytes, as they are the same numbers.
    rows = enumerate(vectors + np.float32(0.0))
    return np.array([firsts.setdefault(row.tobytes(), number) for number, row in rows])


def _leave_out(
    table: np.ndarray, part: slice, without: Sequence[LeftOut], nobody: float | bool
) -> None:
    """Write `nobody` where an entry does not count for a query of this part."""
    for left_out in without:
        table[left_out.groups == left_out.of[part, None]] = nobody


def _standing(
    ranks: Entries,
    scores: Float64[np.ndarray, " Q"],
    norms: Float64[np.ndarray, " Q"],
    radii: Float64[np.ndarray, "Q K"],
) -> Standing:
    """Cosines of scores, and no radius for a zero query."""
    is_zero = norms == 0.0
    radii[is_zero] = 0.0
    cosines = np.divide(scores, norms, out=np.zeros_like(norms), where=~is_zero)
    return Standing(ranks, np.clip(cosines, -1.0, 1.0), radii)


def _kth_smallest(
    table: Float64[np.ndarray, "B N"], ks: Sequence[int]
) -> Float64[np.ndarray, "B K"]:
    """Each row's k-th smallest number, for each k; inf where there are fewer."""
    out = np.full((len(table), len(ks)), np.inf)
    within = [k for k in ks if k <= table.shape[1]]
    if within:
        ordered = np.partition(table, [k - 1 for k in within], axis=1)
        for column, k in enumerate(ks):
            if k <= table.shape[1]:
                out[:, column] = ordered[:, k - 1]
    return out
