"""Certificates of a search: how far the query image may change before its answer does.

From the scores of a few hundred candidates and a bound on all other scores this module proves, for
each result, a radius in uploaded pixels below which it stays in the answer. It is float64 geometry
and nothing else: `docs/certificate.md` has the claim and its proof.

A zero query (norm below 1e-100) has similarity 0 and distance 1 with every entry; its answer is
the first entries by number, and every radius is 0, whatever k is.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from model.certificate.pairs import (
    LARGEST_NORM_DEVIATION,
    Float64Rows,
    Scores,
    least,
    pair_radii,
    rank,
    score,
    tail_radii,
)
from model.certificate.rounding import gamma
from model.certificate.similarity import (
    Norm,
    check_threshold,
    embedding_norm,
    pixel_scale,
    published,
)
from model.certificate.thresholds import threshold_radii
from model.errors import CertificateError

# How much of an exact radius rounding may have taken, relative to it.
_EXACT = 1e-6


@dataclass(frozen=True, eq=False)
class Candidates:
    """Gallery entries retrieved for one query, and a bound on all that were not.

    Attributes:
        rows: entry numbers, (M,), each once; equal scores rank by them.
        vectors: the entries' vectors as stored, (M, D); may be the memory map of a whole gallery.
        unseen_score: upper bound in real arithmetic of <g, f> over the entries not in `rows`; -inf
            when there are none.
        size: number of entries in the gallery.
        norm_deviation: bound on | |f| - 1 | over the gallery.
    """

    rows: Int64[np.ndarray, " M"]
    vectors: Float32[np.ndarray, "M D"]
    unseen_score: float
    size: int
    norm_deviation: float

    @property
    def are_all(self) -> bool:
        """Whether no entry is left unseen."""
        return self.rows.size == self.size


@dataclass(frozen=True, eq=False)
class SearchCertificate:
    """An answer in rank order and what is proved about it.

    Radii are l2 over the uploaded image's pixels in [0, 1], and hold for changes strictly smaller.
    0 means nothing is proved; inf (null on the wire) that nothing can happen at any distance.

    Attributes:
        is_proved: the ranking itself is proved; if not, the caller must bring more candidates.
        positions: the answer's positions in the candidates, best first, (K,), K <= k.
        distances: 1 - similarity, in [0, 2], (K,).
        similarities: cosine, in [-1, 1], (K,).
        certified_radii: below which each result stays in the answer, (K,).
        exact: whether, in embedding space, the radius is the true one to a millionth, (K,): the
            bound on the unseen entries was not the smaller, and rounding took next to nothing.
        margins: the radius in embedding space over the embedding's norm, (K,); free of image size.
        top1_radius: below which the first result stays first; None for an empty answer.
        set_radius: below which the answer keeps the same entries.
        order_radius: below which it keeps them in the same order.
    """

    is_proved: bool
    positions: Int64[np.ndarray, " K"]
    distances: Float64[np.ndarray, " K"]
    similarities: Float64[np.ndarray, " K"]
    certified_radii: Float64[np.ndarray, " K"]
    exact: Bool[np.ndarray, " K"]
    margins: Float64[np.ndarray, " K"]
    top1_radius: float | None
    set_radius: float
    order_radius: float


@dataclass(frozen=True, eq=False)
class _Reach:
    """Embedding-space radii of one answer, before pixels; `exact` as in the certificate."""

    membership: Float64[np.ndarray, " K"]
    exact: Bool[np.ndarray, " K"]
    top1: float
    set: float
    order: float


def certify_search(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    *,
    k: int,
    lipschitz_bound: float,
    gain: float,
    forward_error: float,
    max_distance: float | None = None,
) -> SearchCertificate:
    """Rank the candidates in float64 and prove how far the query may move before that changes.

    A result leaves the top k when k others overtake it, so its radius is the k-th smallest signed
    distance to the hyperplanes that part it from the candidates, or the bound on all unseen
    entries where that is smaller, or its distance to `max_distance`.

    Args:
        query: raw embedding of the query image, (D,).
        candidates: what the search retrieved; any candidates give a sound certificate.
        k: number of results asked for, >= 1; it may exceed the gallery.
        lipschitz_bound: proved upper bound of the network's l2 Lipschitz constant, > 0.
        gain: l2 operator norm of this image's resize, rounded up, > 0.
        forward_error: bound on the l2 error of a computed embedding of an image of this size; it
            counts twice, for the query's own and for the changed image's.
        max_distance: results farther than this are left out; None keeps all.

    Returns:
        The answer and its radii. With k >= size nothing can be displaced and, without a
        `max_distance`, radii are inf. An empty gallery gives an empty answer with set and order
        radius inf, as nothing can enter. A zero query gives 0 everywhere before all of that.

    Raises:
        CertificateError: a number is NaN, infinite, or outside what can carry a proof.
    """
    _check_request(query, candidates, k, max_distance)
    scale = pixel_scale(lipschitz_bound, gain, forward_error)
    norm = embedding_norm(query)
    if norm.value == 0.0:
        return _certify_zero_query(candidates, k, max_distance)
    rows = Float64Rows(candidates.vectors)
    scores = score(rows, query, candidates.norm_deviation)
    top = rank(scores.values, candidates.rows, k)
    is_proved = _is_proved(candidates, scores.values[top], norm, k)
    similarities = np.clip(scores.values[top] / norm.value, -1.0, 1.0)
    distances = 1.0 - similarities
    if max_distance is not None:
        top, similarities, distances = (
            column[distances <= max_distance] for column in (top, similarities, distances)
        )
    reach = _reach(candidates, rows, scores, top, norm=norm, k=k, max_distance=max_distance)

    # A query moved onto zero is answered as zero, so no radius leads there.
    in_pixels = partial(published, limit=norm.low, scale=scale, forward_error=forward_error)
    return SearchCertificate(
        is_proved=is_proved,
        positions=top,
        distances=distances,
        similarities=similarities,
        certified_radii=np.array([in_pixels(radius) for radius in reach.membership.tolist()]),
        exact=reach.exact,
        margins=np.maximum(0.0, reach.membership - 2.0 * forward_error) / norm.high,
        top1_radius=in_pixels(reach.top1) if top.size else None,
        set_radius=in_pixels(reach.set) if is_proved else 0.0,
        order_radius=in_pixels(reach.order) if is_proved else 0.0,
    )


def _check_request(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    k: int,
    max_distance: float | None,
) -> None:
    """Refuse what no certificate can be computed from, by name."""
    if k < 1:
        raise CertificateError(f"k must be at least 1, got {k}")
    if max_distance is not None:
        check_threshold(max_distance, "max_distance")
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


def _is_proved(
    candidates: Candidates, scores: Float64[np.ndarray, " K"], norm: Norm, k: int
) -> bool:
    """Whether no unseen entry, as scored by this program, can reach the last of the top k."""
    if candidates.are_all:
        return True
    if scores.size < k:
        return False
    rounding = gamma(candidates.vectors.shape[1] + 8) * (1.0 + candidates.norm_deviation)
    return bool(scores[-1] > candidates.unseen_score + rounding * norm.high)


def _reach(
    candidates: Candidates,
    rows: Float64Rows,
    scores: Scores,
    top: Int64[np.ndarray, " K"],
    *,
    norm: Norm,
    k: int,
    max_distance: float | None,
) -> _Reach:
    """Put pairs, tail and threshold together, in embedding space."""
    unseen_score = -np.inf if candidates.are_all else candidates.unseen_score
    pairs = pair_radii(rows, scores, candidates.rows, top, k=k, norm=norm.high)
    tail = tail_radii(
        scores.values[top],
        scores.squared_norms[top],
        norm=norm,
        unseen_score=unseen_score,
        norm_deviation=candidates.norm_deviation,
        dimension=rows.dimension,
    )
    exits = threshold_radii(
        scores,
        top,
        norm=norm,
        unseen_score=unseen_score,
        norm_deviation=candidates.norm_deviation,
        dimension=rows.dimension,
        max_distance=max_distance,
    )
    known = np.minimum(pairs.membership, exits.kept)
    known_above = np.minimum(pairs.membership_above, exits.kept_above)
    is_tight = (known >= known_above * (1.0 - _EXACT)) | (known_above <= 0.0)
    # While fewer than k are within the threshold, nobody is displaced: they leave, or others enter.
    is_full = top.size == k or max_distance is None
    change = least(np.minimum(pairs.outside, tail)) if is_full else exits.entry
    top1 = min(pairs.first, least(tail[:1]), least(exits.kept[:1]))
    whole_set = min(change, least(exits.kept))
    return _Reach(
        membership=np.minimum(known, tail),
        exact=(known <= tail) & is_tight,
        top1=top1,
        set=whole_set,
        order=min(whole_set, top1, least(pairs.consecutive)),
    )


def _certify_zero_query(
    candidates: Candidates, k: int, max_distance: float | None
) -> SearchCertificate:
    """The answer to a query without direction: the first entries by number, and nothing proved."""
    within = max_distance is None or max_distance >= 1.0
    first = np.argsort(candidates.rows, kind="stable")[:k]
    wanted = min(k, candidates.size)
    is_proved = np.array_equal(candidates.rows[first], np.arange(wanted))
    positions = first if within else first[:0]
    zeros = np.zeros(positions.size)
    return SearchCertificate(
        is_proved=is_proved,
        positions=positions,
        distances=np.ones(positions.size),
        similarities=zeros,
        certified_radii=zeros,
        exact=np.ones(positions.size, dtype=np.bool_),
        margins=zeros,
        top1_radius=0.0 if positions.size else None,
        set_radius=0.0,
        order_radius=0.0,
    )
