"""How far a query is from a result leaving, or another entering, a search's `max_distance`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from model.certificate.pairs import Scores, least
from model.certificate.similarity import Norm, cosine_error, flip_distance, rooms


@dataclass(frozen=True, eq=False)
class ThresholdRadii:
    """Embedding-space radii around the query below which verdicts on the threshold stay.

    Attributes:
        kept: of each result, until it leaves, (K,); inf without a threshold.
        kept_above: upper bounds of the same, (K,).
        entry: until the first other entry comes in; inf where there is no other, or no threshold.
    """

    kept: Float64[np.ndarray, " K"]
    kept_above: Float64[np.ndarray, " K"]
    entry: float


def threshold_radii(
    scores: Scores,
    kept: Int64[np.ndarray, " K"],
    *,
    norm: Norm,
    unseen_score: float,
    norm_deviation: float,
    dimension: int,
    max_distance: float | None,
) -> ThresholdRadii:
    """Distances to the threshold of what is within it, and of the nearest that is not.

    Scores are of rows as stored, whose norms f are not quite 1: 1 - s / |g| <= t is a threshold on
    the angle only as 1 - s / (|g| f) <= 1 - (1 - t) / f.

    Args:
        scores: the candidates' scores and squared norms.
        kept: positions of the results, (K,), all within the threshold.
        norm: norm of the query's embedding, positive.
        unseen_score: upper bound of every unseen entry's score; -inf for none.
        norm_deviation: bound on | |f| - 1 | over the gallery.
        dimension: D.
        max_distance: the threshold; None for none. Outside [0, 2) no distance crosses it, and only
            the zero embedding, which has no direction, is a limit.
    """
    if max_distance is None:
        never = np.full(kept.size, np.inf)
        return ThresholdRadii(never, never, np.inf)
    if not 0.0 <= max_distance < 2.0:
        limit = flip_distance(np.full(max(kept.size, 1), np.pi), norm.low)
        may_enter = max_distance < 0.0 and scores.values.size > 0
        entry = float(limit[0]) if may_enter else np.inf
        return ThresholdRadii(limit[: kept.size], limit[: kept.size], entry)
    inside = np.zeros(scores.values.size + 2, dtype=np.bool_)
    inside[kept] = True
    # The unseen entries stand at the end, with the shortest and the longest norm they may have.
    norms = np.append(np.sqrt(scores.squared_norms), [1.0 - norm_deviation, 1.0 + norm_deviation])
    unseen = min(max(unseen_score, -2.0 * norm.high), 2.0 * norm.high)
    cosines = np.append(scores.values, [unseen, unseen]) / norm.value / norms
    error = cosine_error(dimension)
    distances, limits = 1.0 - cosines, 1.0 - (1.0 - max_distance) / norms
    radii = flip_distance(rooms(distances, limits, inside=inside, error=error), norm.low)
    above = rooms(distances[kept], limits[kept], inside=True, error=-error)
    outside = ~inside
    outside[-2:] = unseen_score > -np.inf
    return ThresholdRadii(radii[kept], flip_distance(above, norm.high), least(radii[outside]))
