"""A lower bound of a row's radius over all rows that were not compared, from their best score.

Two directions at angles t_i and t_j from the query are at most 2 sin((t_i + t_j) / 2) apart, and
the bound grows with t_j, so the worst such row is one with the highest possible score. Norms off 1
widen the angles and add 2 `norm_deviation` to the distance. In a metric with scales c the distance
to divide by is |c o f_i| + max |c o f_j| as well, whichever gives more.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from model.certificate.geometry import Norm, angles, cosine_error
from model.certificate.pairs import Slack
from model.certificate.rounding import gamma


class TailBounds(NamedTuple):
    """Lower bounds of radii, (K,): 0 where none is proved, inf where there are no such rows.

    Attributes:
        isotropic: had the metric no scales, before the forward error.
        lower: in the metric, with all slack off, as `Pairs.lower`.
    """

    isotropic: Float64[np.ndarray, " K"]
    lower: Float64[np.ndarray, " K"]


@dataclass(frozen=True, eq=False)
class Tail:
    """Some rows of one query, to be bounded against rows that were not compared.

    Attributes:
        scores: of the rows, (K,).
        squared_norms: of the rows, (K,).
        scaled_reach: upper bound of |c o f_i| + |c o f_j| over all rows j of the gallery, (K,);
            None where the metric has no scales.
        norm: of the query's embedding, positive.
        norm_deviation: bound on | |f| - 1 | over the gallery.
        dimension: D.
        slack: what rounding and the forward error take off a pair's radius.
    """

    scores: Float64[np.ndarray, " K"]
    squared_norms: Float64[np.ndarray, " K"]
    scaled_reach: Float64[np.ndarray, " K"] | None
    norm: Norm
    norm_deviation: float
    dimension: int
    slack: Slack

    def bounds(
        self,
        unseen_score: float,
        farthest: Float64[np.ndarray, " K"] | float = np.inf,
        farthest_scaled: Float64[np.ndarray, " K"] | float = np.inf,
    ) -> TailBounds:
        """Radii over all rows with scores up to `unseen_score`.

        Args:
            unseen_score: in real arithmetic; -inf where there are no such rows.
            farthest: upper bound of the distance from each row to any of them, (K,).
            farthest_scaled: upper bound of |c o (f_i - f_j)| over them, (K,).
        """
        isotropic = self._isotropic(unseen_score, farthest)
        slack = self.slack
        radii = np.maximum(0.0, isotropic - slack.per_distance)
        if self.scaled_reach is None or unseen_score == -np.inf:
            return TailBounds(isotropic, radii)
        distance = np.minimum(2.0 * (1.0 + self.norm_deviation), farthest)
        gap = self.scores - unseen_score - slack.absolute - slack.per_distance * distance
        divisor = np.minimum(self.scaled_reach, farthest_scaled) + slack.divisor
        return TailBounds(isotropic, np.maximum(radii, gap / divisor * (1.0 - 1e-14)))

    def _isotropic(
        self, unseen_score: float, farthest: Float64[np.ndarray, " K"] | float
    ) -> Float64[np.ndarray, " K"]:
        if unseen_score == -np.inf:
            return np.full(self.scores.shape, np.inf)
        norm, longest = self.norm, 1.0 + self.norm_deviation
        rounding = 8.0 * gamma(self.dimension + 8) * longest * norm.high
        gap = self.scores - unseen_score - rounding
        error = cosine_error(self.dimension)
        widest = longest if unseen_score >= 0.0 else 1.0 - self.norm_deviation
        unseen_cosine = max(-1.0, unseen_score / (norm.value * widest))
        cosines = self.scores / (norm.value * np.sqrt(self.squared_norms))
        both = angles(1.0 - np.append(cosines, unseen_cosine) + error)
        angle_sum = both[:-1] + both[-1]
        chord = 2.0 * np.sin(np.minimum(angle_sum, np.pi) / 2.0) + 2.0 * self.norm_deviation + 1e-14
        radii = np.zeros(self.scores.shape)
        np.divide(gap, np.minimum(chord, farthest), out=radii, where=gap > 0.0)
        return radii * (1.0 - 1e-14)
