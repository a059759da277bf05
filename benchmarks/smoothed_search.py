"""Randomised smoothing of a search: what a certificate costs that asks nothing of the network.

A smoothed search answers with the entry that is found most often when the query is noised. If
entry i is found with probability p > 1/2 under noise N(0, sigma^2), it stays the smoothed answer
for every l2 change of the query below sigma Phi^-1(p). p is never known: it is bounded from below
by sampling, so the radius holds but for a chance alpha that the sample misled, and samples limit
it: n of n votes prove p >= alpha^(1/n) and no more.

The claim is about real arithmetic and true Gaussian noise; rounding and the pseudo-random numbers
are not accounted for, as is usual.

Source: Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918, theorem 1 and section 3.2; for search
Wu, Zhang and Huang 2022, arXiv:2206.11225.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from scipy import stats

from model.metrics.metric import DifferentiableMetric


@dataclass(frozen=True)
class SmoothedAnswer:
    """What a smoothed search says of one query.

    Attributes:
        entry: the entry found most often in the first sample; None: abstained, as it may well be
            found less than half of the time.
        votes: how often it was found in the second sample, which the first has no part in.
        samples: size of the second sample.
        p_low: it is found at least so often, but for a chance alpha.
        radius: l2 in the pixels of the metric's square, in [0, 1]; 0 when abstained.
    """

    entry: int | None
    votes: int
    samples: int
    p_low: float
    radius: float


class SmoothedSearch:
    """A metric and a gallery, asked about noised copies of a query.

    Args:
        metric: any with a network; its square is what is noised.
        gallery: unit vectors of the entries, (N, D).
        sigma: standard deviation of the noise, in pixels in [0, 1].
        batch: noised copies embedded at once.
    """

    def __init__(
        self,
        metric: DifferentiableMetric,
        gallery: Float32[np.ndarray, "N D"],
        *,
        sigma: float,
        batch: int = 32,
    ) -> None:
        if not 0.0 < sigma < math.inf:
            raise ValueError(f"sigma must be positive and finite, got {sigma}")
        self._metric, self._sigma, self._batch = metric, sigma, batch
        self._columns = torch.tensor(gallery.T.astype(np.float64))

    def count(
        self, x: Float[np.ndarray, "3 S S"], samples: int, rng: np.random.Generator
    ) -> Int64[np.ndarray, " N"]:
        """How often each entry is the nearest to a noised copy of a query, (N,)."""
        found = np.zeros(self._columns.shape[1], dtype=np.int64)
        for start in range(0, samples, self._batch):
            size = min(self._batch, samples - start)
            noised = x + self._sigma * rng.standard_normal((size, *x.shape))
            with torch.inference_mode():
                vectors = self._metric.network(torch.tensor(noised)).cpu().double()
                nearest = (vectors @ self._columns).argmax(dim=1).numpy()
            found += np.bincount(nearest, minlength=len(found))
        return found

    def ask(
        self,
        x: Float[np.ndarray, "3 S S"],
        *,
        samples: int,
        rng: np.random.Generator,
        selection: int = 100,
        alpha: float = 0.001,
    ) -> SmoothedAnswer:
        """The smoothed answer to a query and its radius.

        Args:
            x: the query's square, in [0, 1].
            samples: noised copies that bound the probability.
            rng: draws the noise.
            selection: noised copies that choose the entry, before and apart from the others.
            alpha: chance that the radius is wrong.
        """
        entry = int(self.count(x, selection, rng).argmax())
        votes = int(self.count(x, samples, rng)[entry])
        p_low = lower_confidence_bound(votes, samples, alpha)
        radius = smoothed_radius(p_low, self._sigma)
        return SmoothedAnswer(entry if radius > 0.0 else None, votes, samples, p_low, radius)


def lower_confidence_bound(successes: int, trials: int, alpha: float) -> float:
    """A number that is above a probability with a chance of at most alpha.

    It is the p at which so many successes or more have a chance of exactly alpha.

    Args:
        successes: of the trials, all independent and equally likely.
        trials: how many, >= 1.
        alpha: chance of being wrong, in (0, 1).

    Raises:
        ValueError: the numbers are not of that kind.

    Source: Clopper and Pearson 1934, Biometrika 26(4), one-sided.
    """
    if trials < 1 or not 0 <= successes <= trials or not 0.0 < alpha < 1.0:
        raise ValueError(f"{successes} successes in {trials} trials at alpha {alpha} mean nothing")
    if successes == 0:
        return 0.0
    return float(stats.beta.ppf(alpha, successes, trials - successes + 1))


def smoothed_radius(p_low: float, sigma: float) -> float:
    """The radius sigma Phi^-1(p_low); 0 where the entry may be found less than half the time."""
    return sigma * NormalDist().inv_cdf(p_low) if p_low > 0.5 else 0.0


def largest_radius(samples: int, sigma: float, alpha: float = 0.001) -> float:
    """The radius when every sample agrees: no more can be proved with so many."""
    return smoothed_radius(alpha ** (1.0 / samples), sigma)
