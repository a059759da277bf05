"""What a query's two searches say: how its original stands, and the worst of all others.

For several weights of the cosine at once: what costs is the query's pass and its candidates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from index_builder.calibration.queries import Label, Query
from index_builder.search.gallery import GalleryIndex
from index_builder.search.others import without_entry
from model.certificate.geometry import embedding_norm
from model.certificate.match import Margins, measure_statistics
from model.certificate.pairs import Candidates
from model.certificate.ranking import rank_candidates

# Deeper candidates only raise the lower bound of a margin. From here on the bounds are taken as
# they are, each on the side that makes the measured rates look worse.
_DEPTHS = (128, 512, 2048)


@dataclass(frozen=True)
class Question:
    """What is measured of each query.

    Attributes:
        k: of the search whose margin is meant.
        cosine_weights: of the statistics margin + weight x cosine; the first is 0.
    """

    k: int
    cosine_weights: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """One query's two searches, by one statistic.

    Attributes:
        hit: statistic of its original, as far as proved; 0 where it is not proved to be in the top
            k, None if it has none in the gallery.
        alarm: the largest statistic of any other entry with the original left out, from above.
        alarm_margin: margin of that entry.
        alarm_entry: number of that entry.
    """

    label: Label
    hit: float | None
    alarm: float
    alarm_margin: float
    alarm_entry: int


def outcomes_of(
    index: GalleryIndex, queries: Sequence[Query], question: Question
) -> Iterator[list[Outcome]]:
    """Of each query of a batch, by each weight; deeper where more candidates say more."""
    found: dict[int, list[Outcome]] = {}
    pending: list[int] = list(range(len(queries)))
    rows = index.vector_count
    for depth in (*(depth for depth in _DEPTHS if depth < rows), rows):
        if not pending:
            break
        vectors = np.stack([queries[i].vector for i in pending])
        for i, candidates in zip(pending, index.search(vectors, depth), strict=True):
            is_last = depth >= _DEPTHS[-1]
            outcomes = _outcomes(index, queries[i], candidates, question, is_last=is_last)
            if outcomes is not None:
                found[i] = outcomes
        pending = [i for i in pending if i not in found]
    yield from (found[i] for i in range(len(queries)))


def _outcomes(
    index: GalleryIndex,
    query: Query,
    candidates: Candidates,
    question: Question,
    *,
    is_last: bool,
) -> list[Outcome] | None:
    """What a query's candidates say, by each weight; None where more of them are needed."""
    label, weights = query.label, question.cosine_weights
    if embedding_norm(query.vector).value == 0.0:
        nothing = Outcome(label, None if label.entry is None else 0.0, 0.0, 0.0, 0)
        return [nothing] * len(weights)
    hits: list[float | None] = [None] * len(weights)
    is_tight, without = True, candidates
    if label.entry is not None:
        is_own = candidates.numbers == label.entry
        hits = [0.0] * len(weights)  # who is not even among the candidates is not in the top k
        if is_own.any():
            own = _statistics(index, query, candidates, np.flatnonzero(is_own)[:1], question)
            if own[0].value[0] > 0.0:  # says that it is in the top k
                hits = [float(max(0.0, one.value[0])) for one in own]
            is_tight = all(one.seen[0] <= one.unseen[0] for one in own)
        rows = index.rows.of_entries(np.array([label.entry])).size
        without = without_entry(candidates, label.entry, rows)
    top, is_proved = _top(query.vector, without, question.k)
    others = _statistics(index, query, without, top, question)
    is_tight &= all((one.seen <= one.unseen).all() for one in others)
    if not (is_proved and (is_tight or is_last)):
        return None
    numbers, found = without.numbers[top], list[Outcome]()
    for weight, hit, statistics in zip(weights, hits, others, strict=True):
        worst = int(np.argmax(statistics.seen))
        alarm, margin = (
            float(np.clip(values.seen[worst], 0.0, most))
            for values, most in ((statistics, 1.0 + weight), (others[0], 1.0))
        )
        found.append(Outcome(label, hit, alarm, margin, int(numbers[worst])))
    return found


def _statistics(
    index: GalleryIndex,
    query: Query,
    candidates: Candidates,
    positions: np.ndarray,
    question: Question,
) -> list[Margins]:
    """Of the entries of some candidates, with every row of theirs, for each weight."""
    if candidates.items is not None:
        own = index.of_items(candidates.items[positions])
        is_new = ~np.isin(own.rows, candidates.rows)
        candidates = replace(
            candidates,
            rows=np.concatenate((candidates.rows, own.rows[is_new])),
            items=np.concatenate((candidates.items, own.numbers[is_new])),
            vectors=np.concatenate((candidates.vectors, own.vectors[is_new])),
        )
    return measure_statistics(
        query.vector, candidates, positions, question.k, question.cosine_weights
    )


def _top(
    vector: Float64[np.ndarray, " D"], candidates: Candidates, k: int
) -> tuple[np.ndarray, bool]:
    """The best candidate of each of the k best entries; whether no unseen one is among the true.

    Nothing below rank k matches: k others stand before it.
    """
    ranking = rank_candidates(vector, candidates, k)
    return ranking.top, ranking.is_proved
