"""How far a query may move before a result leaves `max_distance`, or another item comes within it.

{g : distance to f <= t} is a cone around f, in which the metric's scales gain nothing.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from model.certificate.geometry import angular_slack, cosine_error, flip_radius
from model.certificate.ranking import Ranking
from model.certificate.scan import PairScan


class ThresholdRadii(NamedTuple):
    """Radii around the query below which verdicts on the threshold stay, times gain and L.

    Attributes:
        kept: of each result, until it leaves, (K,); inf without a threshold.
        entry: until the first other item comes in; inf where there is no other, or no threshold.
    """

    kept: Float64[np.ndarray, " K"]
    entry: float

    def less(self, amount: float) -> "ThresholdRadii":
        return ThresholdRadii(self.kept - amount, self.entry - amount)


def threshold_radii(ranking: Ranking, scan: PairScan, max_distance: float | None) -> ThresholdRadii:
    """Distances to the threshold of what is within it, and of the nearest that is not.

    Scores are of rows as stored, whose norms f are not quite 1: 1 - s / |g| <= t is a threshold on
    the angle only as 1 - s / (|g| f) <= 1 - (1 - t) / f. The unseen rows stand behind the
    candidates as two more, with the shortest and the longest norm they may have: the angle left
    falls or grows with the norm throughout, so one of the ends is the worst.

    An item stays while one of its rows does, and enters with the first. These are cones, in which
    the metric's scales gain nothing.

    Args:
        ranking: the candidates' scores and squared norms.
        scan: what is kept, all of it within the threshold, and 2 E + z (`slack.per_distance`).
        max_distance: the threshold; None for none. Outside [0, 2) no distance crosses it, and only
            the zero embedding, which has no direction, is a limit.
    """
    kept, error = scan.kept, scan.slack.per_distance
    if max_distance is None:
        never = np.full(kept.count, np.inf)
        return ThresholdRadii(never, np.inf)
    scores, norm, deviation = ranking.scores, ranking.norm, ranking.candidates.norm_deviation
    if not 0.0 <= max_distance < 2.0:
        limit = flip_radius(np.full(max(kept.count, 1), np.pi), norm.low)
        may_enter = max_distance < 0.0 and scores.values.size > 0
        entry = float(limit[0]) if may_enter else np.inf
        return ThresholdRadii(limit[: kept.count], entry).less(error)
    ceiling = ranking.candidates.ceiling
    inside = np.zeros(scores.values.size + 2, dtype=np.bool_)
    inside[kept.positions] = True
    norms = np.append(np.sqrt(scores.squared_norms), [1.0 - deviation, 1.0 + deviation])
    unseen = min(max(ceiling, -2.0 * norm.high), 2.0 * norm.high)
    cosines = np.append(scores.values, [unseen, unseen]) / norm.value / norms
    rounding = cosine_error(ranking.query.size)
    distances, limits = 1.0 - cosines, 1.0 - (1.0 - max_distance) / norms
    radii = flip_radius(angular_slack(distances, limits, inside=inside, error=rounding), norm.low)
    outside = ~inside
    outside[-2:] = ceiling > -np.inf
    own = kept.largest(radii[kept.positions])
    return ThresholdRadii(own, least(radii[outside])).less(error)


def least(radii: Float64[np.ndarray, " K"]) -> float:
    """The smallest of some radii; inf of none."""
    return float(radii.min(initial=np.inf))
