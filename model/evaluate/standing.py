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
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from model.certificate.distances import CentredRows
from model.certificate.geometry import SMALLEST_NORM
from model.certificate.metric import relative_scales
from model.certificate.pairs import Slack, compare
from model.certificate.rounding import gamma
from model.evaluate.embedding import Counting, uncounted
from model.evaluate.radii import Proof
from model.metrics.metric import first_equal, norms_of, unit_rows

_BLOCK_NUMBERS = 1 << 21

# So many rows of the best others are compared first.
_FIRST_LOOK = 4096

# Of a sine: more than unit rows in float32 and their scores are off by.
_ROOM = 1e-6

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


class _Question(NamedTuple):
    """One query, about one entry.

    Attributes:
        scores: of all rows, (R,).
        chosen: the entry.
        others: best score of each entry, (N,); -inf where it does not count.
        norm: of the query.
        cosine_weights: of the statistics.
    """

    scores: Float64[np.ndarray, " R"]
    chosen: int
    others: Float64[np.ndarray, " N"]
    norm: float
    cosine_weights: Sequence[float]

    def best_others(self, count: int) -> tuple[Entries, float]:
        """At most so many of the others that count, the best, and the best score of the rest."""
        some, rest = np.arange(self.others.size), -np.inf
        if count < some.size:
            order = np.argpartition(-self.others, count)
            some, rest = order[:count], float(self.others[order[count]])
        return some[self.others[some] > -np.inf], rest


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
            best[np.arange(len(mine)), mine] = -np.inf  # its own rows never compete
            _leave_out(best, part, without, -np.inf)
            for i, number in enumerate(range(part.start, part.stop)):
                question = _Question(scores[i], mine[i], best[i], norms[number], cosine_weights)
                for out, found in zip(
                    (radii, margins, *statistics), self._least(question, least), strict=True
                ):
                    out[number] = found
        for out in (cosines, radii, margins, *statistics):
            out[~is_pointed] = 0.0
        found = np.array(statistics).reshape(len(statistics), *margins.shape)
        return Standing(ranks, np.clip(cosines, -1.0, 1.0), radii, margins, found)

    def _scores(self, queries: Float64[np.ndarray, "B D"]) -> Float64[np.ndarray, "B R"]:
        """Scores of all rows, equal where they are: a matrix product promises no such."""
        scores = queries @ self._rows.T
        return scores[:, self._first_equal] if self._has_equal else scores

    def _least(
        self, question: "_Question", least: Callable[[np.ndarray], np.ndarray]
    ) -> Float64[np.ndarray, "S K"]:
        """Radii, margins and statistics of one query's entry, so many columns as `least` keeps.

        Entries of the best scores come first: once those that are left cannot have a smaller number
        than what is kept, they are not compared.
        """
        width = max(_FIRST_LOOK // self._views, 1)
        while True:
            some, rest = question.best_others(width)
            table = np.full((2 + len(question.cosine_weights), len(self)), np.inf)
            for out, values in zip(table, self._against(question, some), strict=True):
                out[some] = values.max(axis=0).reshape(-1, self._views).min(axis=1)
            columns = least(table)
            if rest == -np.inf or (columns <= self._rest(question, rest)[:, None]).all():
                return columns
            width *= 8

    def _against(self, question: "_Question", some: Entries) -> list[Float64[np.ndarray, "V M"]]:
        """The rows of the chosen entry against those of others: radii, margins, statistics."""
        own, theirs = self._rows_of(np.array([question.chosen])), self._rows_of(some)
        pairs = compare(
            self._centred.take(own), self._centred.take(theirs), np.zeros((own.size, theirs.size))
        )
        mine = question.scores[own][:, None]
        gap = pairs.gap  # the infinite ones, of equal rows, stay
        gap += mine
        gap -= question.scores[theirs]
        sines = pairs.sines(question.norm)
        weighted = [sines + weight * mine / question.norm for weight in question.cosine_weights]
        return [pairs.lower(self._slack(question.norm)), sines, *weighted]

    def _rest(self, question: "_Question", rest: float) -> Float64[np.ndarray, " S"]:
        """Below these no radius, margin or statistic of an entry is that scores at most `rest`.

        For rows at the angles a < b from the query <g, f_a - f_b> / |f_a - f_b| is least where all
        three lie in one plane: |g| sin((b - a) / 2). Radii of a metric are larger.
        """
        own = question.scores[self._rows_of(np.array([question.chosen]))].max() / question.norm
        a, b = np.arccos(np.clip((own, rest / question.norm), -1.0, 1.0))
        sine = float(np.sin((b - a) / 2.0)) - _ROOM
        if sine <= 0.0:
            return np.full(2 + len(question.cosine_weights), -np.inf)
        weighted = [sine + weight * own for weight in question.cosine_weights]
        return np.array([question.norm * (sine - _ROOM) - 2.0 * self._error, sine, *weighted])

    def _rows_of(self, entries: Entries) -> Int64[np.ndarray, " R"]:
        return (entries[:, None] * self._views + np.arange(self._views)).ravel()

    def _slack(self, norm: float) -> Slack:
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
