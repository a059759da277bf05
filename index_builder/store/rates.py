"""What counts say about rates: bounds for any distribution, with the standard library alone.

Source: Clopper and Pearson 1934, Biometrika 26(4); Wilks 1941 for thresholds from order statistics.
"""

import functools
import math
from collections.abc import Sequence

CONFIDENCE = 0.95
_STEPS = 60


@functools.lru_cache
def upper_bound(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson bound of a rate of which `count` in `total` trials were seen.

    Returns:
        The rate at which so few would be seen with probability 1 - confidence; 1 of no trials.
    """
    if not 0 <= count <= total:
        raise ValueError(f"wanted 0 <= count <= total, got {count} of {total}")
    if count == total:
        return 1.0
    low, high = count / total, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if at_most(count, total, middle) <= 1.0 - confidence:
            high = middle
        else:
            low = middle
    return high


def at_most(count: int, total: int, rate: float) -> float:
    """Probability of at most `count` in `total` independent trials at this rate."""
    if count < 0:
        return 0.0
    if rate <= 0.0 or count >= total:
        return 1.0
    if rate >= 1.0:
        return 0.0
    log_odds = math.log(rate) - math.log1p(-rate)
    log_term = (
        math.lgamma(total + 1)
        - math.lgamma(count + 1)
        - math.lgamma(total - count + 1)
        + count * math.log(rate)
        + (total - count) * math.log1p(-rate)
    )
    whole = 0.0
    for i in range(count, -1, -1):
        term = math.exp(log_term)
        whole += term
        # Below the mean the terms only fall: the rest adds nothing that a float could hold.
        if i < total * rate and term <= whole * 1e-18:
            break
        if i > 0:
            log_term += math.log(i) - math.log(total - i + 1) - log_odds
    return min(1.0, whole)


def trials_needed(rate: float, confidence: float = CONFIDENCE) -> int:
    """How many trials without a single event prove a rate at most this."""
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-rate))


def pictures_wanted(rate: float) -> int:
    """How many pictures to give so that each half, drawn by hash, has enough trials.

    The smaller half of N falls short of N / 2 by more than 2.6 standard deviations of
    sqrt(N) / 2 in one set of a hundred.
    """
    needed, deviations = trials_needed(rate), 2.6
    return math.ceil(((deviations + math.sqrt(deviations**2 + 8.0 * needed)) / 2.0) ** 2)


def events_allowed(total: int, rate: float, confidence: float = CONFIDENCE) -> int | None:
    """How many events in `total` trials still prove a rate at most this; None if not even none."""
    if total < trials_needed(rate, confidence):
        return None
    low, high = 0, math.ceil(total * rate)  # none is allowed, as many as expected never are
    while high - low > 1:
        middle = (low + high) // 2
        if at_most(middle, total, rate) <= 1.0 - confidence:
            low = middle
        else:
            high = middle
    return low


def choose_threshold(values: Sequence[float], rate: float) -> float | None:
    """The lowest threshold that new values of the same kind reach at most at this rate.

    As many of the values as `events_allowed` says may reach it; so the claim holds with
    `CONFIDENCE` whatever their distribution is, as long as they are independent.

    Returns:
        The threshold, rounded up to a millionth; None if the values are too few for the claim.
    """
    allowed = events_allowed(len(values), rate)
    if allowed is None:
        return None
    highest_refused = sorted(values, reverse=True)[allowed]
    return (math.floor(highest_refused * 1e6) + 1) / 1e6
