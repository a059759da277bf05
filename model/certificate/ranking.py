"""Candidates scored and ranked in float64, and whether the ranking is that of the whole gallery."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.geometry import Norm, embedding_norm
from model.certificate.pairs import (
    LARGEST_NORM_DEVIATION,
    Candidates,
    Scores,
    keep_on,
    rank,
    score,
)
from model.certificate.rounding import gamma
from model.errors import CertificateError


class Ranking(NamedTuple):
    """Candidates scored and ranked in float64: the answer, before anything is said of its radii.

    Attributes:
        query: raw embedding, (D,).
        norm: its norm.
        candidates: what was ranked.
        scores: of each.
        top: positions of the k best, of each item the best row, best first; of a zero query the
            first by item number.
        k: number of results asked for.
        is_proved: no unseen row, as scored by this program, can reach the last of the top k.
    """

    query: Float64[np.ndarray, " D"]
    norm: Norm
    candidates: Candidates
    scores: Scores
    top: Int64[np.ndarray, " K"]
    k: int
    is_proved: bool


def rank_candidates(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    k: int,
    check_deadline: Callable[[], None] = keep_on,
) -> Ranking:
    """Rank the candidates: cheap, and enough to know whether more must be retrieved.

    Raises:
        CertificateError: a number is NaN, infinite, or outside what can carry a proof.
    """
    _check_candidates(query, candidates, k)
    norm = embedding_norm(query)
    if norm.value == 0.0:
        count = candidates.rows.size
        scores = Scores(np.zeros(count), np.ones(count))
    else:
        scores = score(candidates.vectors, query, candidates.norm_deviation, check_deadline)
    return _ranking(query, norm, candidates, scores, k)


def complete_items(
    ranking: Ranking, own: Candidates, check_deadline: Callable[[], None] = keep_on
) -> Ranking:
    """The same ranking with more rows of its items among the candidates.

    Radii are larger for it, and verdicts need every row of an item.

    Args:
        ranking: whose answer is proved.
        own: rows of its items, those that it has may be among them.
        check_deadline: called between blocks of work.
    """
    candidates, norm = ranking.candidates, ranking.norm
    new = np.flatnonzero(~np.isin(own.rows, candidates.rows))
    if new.size == 0 or norm.value == 0.0:
        return ranking
    vectors = own.vectors[new]
    scores = score(vectors, ranking.query, candidates.norm_deviation, check_deadline)
    rows = None
    if ranking.scores.rows is not None:
        rows = np.concatenate((ranking.scores.rows, vectors))
    return _ranking(
        ranking.query,
        norm,
        replace(
            candidates,
            rows=np.concatenate((candidates.rows, own.rows[new])),
            items=np.concatenate((candidates.numbers, own.numbers[new])),
            vectors=np.concatenate((candidates.vectors, vectors)),
        ),
        Scores(
            np.concatenate((ranking.scores.values, scores.values)),
            np.concatenate((ranking.scores.squared_norms, scores.squared_norms)),
            rows,
        ),
        ranking.k,
    )


def _ranking(
    query: Float64[np.ndarray, " D"], norm: Norm, candidates: Candidates, scores: Scores, k: int
) -> Ranking:
    numbers, top = candidates.numbers, first_items(candidates, scores, k)
    if norm.value == 0.0:
        is_proved = np.array_equal(numbers[top], np.arange(min(k, candidates.items_in_gallery)))
    else:
        is_proved = top.size == k or candidates.are_all
        is_proved &= bool(beat_the_unseen(candidates, scores.values[top], norm).all())
    return Ranking(query, norm, candidates, scores, top, k, is_proved)


def first_items(candidates: Candidates, scores: Scores, k: int) -> Int64[np.ndarray, " K"]:
    """Of each of the k best items the position of its best row, best first; ties by item number."""
    numbers = candidates.numbers
    if candidates.items is None:
        return rank(scores.values, numbers, k)
    order = np.lexsort((candidates.rows, -scores.values, numbers))
    is_first = np.append(True, numbers[order][1:] != numbers[order][:-1])[: order.size]
    winners = order[is_first]
    return winners[rank(scores.values[winners], numbers[winners], k)]


def beat_the_unseen(
    candidates: Candidates, scores: Float64[np.ndarray, " K"], norm: Norm
) -> Bool[np.ndarray, " K"]:
    """Whether no unseen row, as scored by this program, can reach each of these scores."""
    rounding = gamma(candidates.vectors.shape[1] + 8) * (1.0 + candidates.norm_deviation)
    return scores > candidates.ceiling + rounding * norm.high


def _check_candidates(query: Float64[np.ndarray, " D"], candidates: Candidates, k: int) -> None:
    """Refuse what no certificate can be computed from, by name."""
    if k < 1:
        raise CertificateError(f"k must be at least 1, got {k}")
    count, dimension = candidates.vectors.shape
    if query.shape != (dimension,) or candidates.rows.shape != (count,):
        raise CertificateError(
            f"query {query.shape}, rows {candidates.rows.shape} and vectors"
            f" {candidates.vectors.shape} do not belong together"
        )
    if not 0.0 <= candidates.norm_deviation <= LARGEST_NORM_DEVIATION:
        raise CertificateError(
            f"norm_deviation must be in [0, {LARGEST_NORM_DEVIATION}],"
            f" got {candidates.norm_deviation}"
        )
    if count > candidates.size:
        raise CertificateError(f"{count} candidates cannot come from {candidates.size} entries")
    # Also refuses NaN; infinity proves nothing, and is allowed.
    if not candidates.are_all and not candidates.unseen_score > -np.inf:
        raise CertificateError(
            f"{candidates.size - count} entries are unseen, and their scores cannot be bounded by"
            f" {candidates.unseen_score}"
        )
