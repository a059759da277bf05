"""Certificates of a search: how far the query image may change before its answer does.

From the scores of a few hundred candidates and a bound on all other scores this module proves, for
each result, a radius in uploaded pixels below which it stays in the answer. It is float64 geometry
and nothing else: `docs/certificate.md` has the claim and its proof.

A zero query (norm below 1e-100) has similarity 0 and distance 1 with every entry; its answer is
the first entries by number, and every radius is 0, whatever k is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.geometry import check_threshold, pixel_scale, radii_in_pixels
from model.certificate.match import Judging, MatchRule, Verdicts
from model.certificate.metric import relative_scales
from model.certificate.pairs import Candidates, Slack, keep_on
from model.certificate.ranking import Ranking, rank_candidates
from model.certificate.scan import PairScan
from model.certificate.thresholds import least, threshold_radii

# How much of an exact radius rounding may have taken, relative to it.
_EXACT = 1e-6


@dataclass(frozen=True, eq=False)
class SearchCertificate:
    """An answer in rank order and what is proved about it.

    Radii are l2 over the uploaded image's pixels in [0, 1], and hold for changes strictly smaller.
    0 means nothing is proved; inf (null on the wire) that nothing can happen at any distance.

    Attributes:
        is_proved: the ranking itself is proved; if not, the caller must bring more candidates.
        positions: the answer's positions in the candidates, best first, (K,), K <= k: of each item
            the row that won.
        distances: 1 - similarity, in [0, 2], (K,).
        similarities: cosine, in [-1, 1], (K,).
        certified_radii: below which each result stays in the answer, (K,).
        exact: whether a comparison with every entry would prove the same radius, to a millionth,
            (K,): the bound on the unseen was not the smaller, and rounding took next to nothing.
            It is the true distance to an eviction only where one pair decides: k = 1, items of one
            row, and a network that can move the embedding by as much as is proved.
        margins: the radius that the Lipschitz bound alone proves, in embedding space over the
            embedding's norm, (K,); free of image size.
        top1_radius: below which the first result stays first; None for an empty answer.
        set_radius: below which the answer keeps the same entries.
        order_radius: below which it keeps them in the same order.
        verdicts: match or no match of each result; None where no rule was given.
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
    verdicts: Verdicts | None = None

    def within(self, radius: float) -> "SearchCertificate":
        """The certificate where what was embedded is itself certain below a radius only.

        No radius is larger than that one; but what nothing can change (inf, None) stays so.
        """
        top1, verdicts = self.top1_radius, self.verdicts
        return replace(
            self,
            certified_radii=_limited(self.certified_radii, radius),
            top1_radius=None if top1 is None else float(_limited(top1, radius)),
            set_radius=float(_limited(self.set_radius, radius)),
            order_radius=float(_limited(self.order_radius, radius)),
            verdicts=verdicts and replace(verdicts, radii=_limited(verdicts.radii, radius)),
        )


def _limited(
    radii: Float64[np.ndarray, "..."] | float, radius: float
) -> Float64[np.ndarray, "..."]:
    return np.asarray(np.where(np.isinf(radii), radii, np.minimum(radii, radius)))


def certify_search(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    *,
    k: int,
    lipschitz_bound: float,
    gain: float,
    forward_error: float,
    output_scales: Float64[np.ndarray, " D"] | None = None,
    max_distance: float | None = None,
    rule: MatchRule | None = None,
) -> SearchCertificate:
    """Rank the candidates in float64 and prove how far the query may move before that changes.

    Args:
        query: raw embedding of the query image, (D,).
        candidates: what the search retrieved; any candidates give a sound certificate.
        k: number of results asked for, >= 1; it may exceed the gallery.
        lipschitz_bound: see `certify_ranking`, as for all that follow.
        gain: of the resize.
        forward_error: of the embedding.
        output_scales: of the network's head.
        max_distance: results farther than this are left out; None keeps all.
        rule: when a result is a match; None asks for no verdicts.

    Raises:
        CertificateError: a number is NaN, infinite, or outside what can carry a proof.
    """
    return certify_ranking(
        rank_candidates(query, candidates, k),
        lipschitz_bound=lipschitz_bound,
        gain=gain,
        forward_error=forward_error,
        output_scales=output_scales,
        max_distance=max_distance,
        rule=rule,
    )


def certify_ranking(
    ranking: Ranking,
    *,
    lipschitz_bound: float,
    gain: float,
    forward_error: float,
    output_scales: Float64[np.ndarray, " D"] | None = None,
    max_distance: float | None = None,
    rule: MatchRule | None = None,
    check_deadline: Callable[[], None] = keep_on,
) -> SearchCertificate:
    """Prove how far the query may move before the answer changes.

    A result leaves the top k when k others overtake it, so its radius is the k-th smallest signed
    distance to the hyperplanes that part it from the candidates, or the bound on all unseen rows
    where that is smaller, or its distance to `max_distance`. Of items of several rows it is the
    k-th smallest of the least, over the rows of another, of the largest over its own.

    Args:
        ranking: what `rank_candidates` found.
        lipschitz_bound: proved upper bound of the network's l2 Lipschitz constant, > 0.
        gain: l2 operator norm of this image's resize, rounded up, > 0.
        forward_error: bound on the l2 error of a computed embedding of an image of this size; it
            counts twice, for the query's own and for the changed image's.
        output_scales: proved bound of how the network moves embeddings along each coordinate
            (`model.certificate.metric`), (D,); None where nothing but `lipschitz_bound` is proved.
        max_distance: results farther than this are left out; None keeps all.
        rule: when a result is a match; None asks for no verdicts. Every row of the results' items
            must be among the candidates then (`complete_items`).
        check_deadline: called between blocks of work; raises where nobody waits any more.

    Returns:
        The answer and its radii. With k >= the number of items nothing can be displaced and,
        without a `max_distance`, radii are inf. An empty gallery gives an empty answer with set and
        order radius inf, as nothing can enter. A zero query gives 0 everywhere before all of that.

    Raises:
        CertificateError: a number is NaN, infinite, or outside what can carry a proof.
    """
    if max_distance is not None:
        check_threshold(max_distance, "max_distance")
    scale = pixel_scale(lipschitz_bound, gain, forward_error)
    top, norm = ranking.top, ranking.norm
    similarities = np.zeros(top.size)
    if norm.value > 0.0:
        similarities = np.clip(ranking.scores.values[top] / norm.value, -1.0, 1.0)
    distances = 1.0 - similarities
    if max_distance is not None:
        top, similarities, distances = (
            column[distances <= max_distance] for column in (top, similarities, distances)
        )
    answer = partial(
        SearchCertificate,
        is_proved=ranking.is_proved,
        positions=top,
        distances=distances,
        similarities=similarities,
    )
    if norm.value == 0.0:
        none = np.zeros(top.size)
        return answer(
            certified_radii=none,
            exact=none == 0.0,
            margins=none,
            top1_radius=0.0 if top.size else None,
            set_radius=0.0,
            order_radius=0.0,
            verdicts=None if rule is None else Verdicts.of_zero_query(top.size),
        )
    dimension = ranking.query.size
    slack = Slack.of(
        norm.high,
        dimension=dimension,
        forward_error=forward_error,
        norm_deviation=ranking.candidates.norm_deviation,
    )
    scan = PairScan(
        ranking.candidates,
        ranking.scores,
        top,
        k=ranking.k if rule is None else max(ranking.k, rule.k),
        norm=norm,
        slack=slack,
        scales=relative_scales(lipschitz_bound, output_scales),
        check_deadline=check_deadline,
    )
    judging = None if rule is None else Judging(rule, scan, norm, dimension)
    radii = _input_radii(ranking, top, scan, judging, max_distance)
    pixels = radii_in_pixels(
        np.append(radii.membership, [radii.top1, radii.set, radii.order]), scale=scale
    )
    top1, whole_set, order = pixels[-3:].tolist()
    return answer(
        certified_radii=pixels[:-3],
        exact=radii.exact,
        margins=np.maximum(0.0, radii.isotropic) / norm.high,
        top1_radius=top1 if top.size else None,
        set_radius=whole_set if ranking.is_proved else 0.0,
        order_radius=order if ranking.is_proved else 0.0,
        verdicts=judging and judging.verdicts(scale=scale, forward_error=forward_error),
    )


class _InputRadii(NamedTuple):
    """Radii of one answer times gain and L, all slack off; `exact` as in the certificate.

    `isotropic` are those of `membership` had the metric no scales.
    """

    membership: Float64[np.ndarray, " K"]
    isotropic: Float64[np.ndarray, " K"]
    exact: Bool[np.ndarray, " K"]
    top1: float
    set: float
    order: float


def _input_radii(
    ranking: Ranking,
    top: Int64[np.ndarray, " K"],
    scan: PairScan,
    judging: Judging | None,
    max_distance: float | None,
) -> _InputRadii:
    """Put pairs, the rest and the threshold together."""
    # inf among the answer's own: they do not enter.
    floor = np.full(ranking.candidates.rows.size, -np.inf)
    floor[scan.kept.positions] = np.inf
    outside, first = np.full(top.size, np.inf), np.inf
    for block, lower in scan:
        first = min(first, float(lower[0].min()))
        entering = np.maximum(lower, floor[block.positions])
        outside = np.minimum(outside, entering.min(axis=1))
        if judging is not None:
            judging.add(block)
    exits = threshold_radii(ranking, scan, max_distance)
    known = np.minimum(scan.lower.kth(ranking.k), exits.kept)
    # An exit is of the result's own rows alone: more candidates leave it as it is.
    known_above = np.minimum(scan.upper.kth(ranking.k), exits.kept)
    is_tight = (known >= known_above * (1.0 - _EXACT)) | (known_above <= 0.0)
    rest = scan.rest
    # While fewer than k are within the threshold, nobody is displaced: they leave, or others enter.
    is_full = top.size == ranking.k or max_distance is None
    change = least(np.minimum(outside, rest)) if is_full else exits.entry
    top1 = min(first, least(rest[:1]), least(exits.kept[:1]))
    whole_set = min(change, least(exits.kept))
    isotropic = np.minimum(scan.isotropic.kth(ranking.k), exits.kept)
    return _InputRadii(
        membership=np.minimum(known, rest),
        isotropic=np.minimum(isotropic, scan.rest_isotropic),
        exact=(known <= rest) & is_tight,
        top1=top1,
        set=whole_set,
        order=min(whole_set, top1, least(scan.to_next)),
    )
