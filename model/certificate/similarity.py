"""Two images: their distance, its interval under a budget, and the radius of a verdict on it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from model.certificate.geometry import (
    ANGLE_ROUNDING,
    RELATIVE_ROUNDING,
    angle,
    angular_slack,
    cap_half_angle,
    check_threshold,
    cosine_error,
    embedding_norm,
    pixel_scale,
)
from model.errors import CertificateError


@dataclass(frozen=True)
class PairCertificate:
    """What two images' distance is, and how far the images may change before it moves.

    Radii are l2 over the pixels of the image as sent; inf where no change can flip the verdict.

    Attributes:
        distance: 1 - cosine, in [0, 2].
        similarity: cosine, in [-1, 1].
        interval_a: distances reachable when image a changes by at most epsilon; None without one.
        interval_both: the same when each image changes by at most epsilon in its own pixels.
        match: whether distance <= threshold; None without one.
        radius_a: change of image a below which `match` stays; None without a threshold.
        radius_b: the same for image b alone.
        radius_both: the same when both images change, each by less than this.
    """

    distance: float
    similarity: float
    interval_a: tuple[float, float] | None
    interval_both: tuple[float, float] | None
    match: bool | None
    radius_a: float | None
    radius_b: float | None
    radius_both: float | None


class _Side(NamedTuple):
    """One image of a pair: how fast its embedding moves, its forward error, its norm from below."""

    scale: float
    error: float
    norm: float


def certify_pair(
    a: Float64[np.ndarray, " D"],
    b: Float64[np.ndarray, " D"],
    *,
    lipschitz_bound: float,
    gain_a: float,
    gain_b: float,
    forward_error_a: float,
    forward_error_b: float,
    epsilon: float | None = None,
    threshold: float | None = None,
) -> PairCertificate:
    """Distance of two images, its interval under a budget, and the radius of a verdict on it.

    The interval is exact for balls in embedding space; for pixels it is an outer bound, as an
    embedding need not reach all of its ball. An image that does not change is embedded again, so
    its forward error counts twice even when "a alone" changes.

    Args:
        a: raw embedding of image a, (D,).
        b: raw embedding of image b, (D,).
        lipschitz_bound: proved upper bound of the network's l2 Lipschitz constant, > 0.
        gain_a: l2 operator norm of image a's resize, rounded up, > 0.
        gain_b: the same for image b.
        forward_error_a: bound on the l2 error of the computed embedding of an image of a's size.
        forward_error_b: the same for image b.
        epsilon: budget in l2 over the uploaded pixels in [0, 1]; None asks for no interval.
        threshold: the pair matches when distance <= threshold; None asks for no verdict.

    Returns:
        Distances, intervals and radii; radius 0 on a tie or for a zero embedding, where the
        interval is [0, 2]; radius inf for a threshold below 0 or from 2 on, which no distance
        crosses, not even that of a zero embedding.

    Raises:
        CertificateError: a number is NaN, infinite, negative, or outside the range that float64
            can carry a proof for.
    """
    if epsilon is not None and not 0.0 <= epsilon < math.inf:
        raise CertificateError(f"epsilon must be >= 0 and finite, got {epsilon}")
    if threshold is not None:
        check_threshold(threshold, "threshold")
    norm_a, norm_b = embedding_norm(a), embedding_norm(b)
    side_a = _Side(
        pixel_scale(lipschitz_bound, gain_a, forward_error_a), forward_error_a, norm_a.low
    )
    side_b = _Side(
        pixel_scale(lipschitz_bound, gain_b, forward_error_b), forward_error_b, norm_b.low
    )
    still_a, still_b = side_a._replace(scale=0.0), side_b._replace(scale=0.0)
    error = cosine_error(a.size)
    similarity = _cosine(a, b, norm_a.value * norm_b.value)
    distance = 1.0 - similarity

    slack = _verdict_slack(distance, threshold, error)
    return PairCertificate(
        distance=distance,
        similarity=similarity,
        interval_a=_interval(distance, error, epsilon, side_a, still_b),
        interval_both=_interval(distance, error, epsilon, side_a, side_b),
        match=None if threshold is None else distance <= threshold,
        radius_a=_pair_flip_radius(slack, side_a, still_b),
        radius_b=_pair_flip_radius(slack, side_b, still_a),
        radius_both=_pair_flip_radius(slack, side_a, side_b),
    )


def _cosine(a: Float64[np.ndarray, " D"], b: Float64[np.ndarray, " D"], norms: float) -> float:
    """Computed cosine, clipped to [-1, 1]; 0 when one of the vectors is zero."""
    if norms == 0.0:
        return 0.0
    return min(1.0, max(-1.0, float((a * b).sum()) / norms))


def _angle_change(change: float, first: _Side, second: _Side) -> float:
    """Most that the pair's angle moves when each image changes by this much, rounded up."""
    return cap_half_angle(first.scale * change + 2.0 * first.error, first.norm) + cap_half_angle(
        second.scale * change + 2.0 * second.error, second.norm
    )


def _interval(
    distance: float, error: float, epsilon: float | None, first: _Side, second: _Side
) -> tuple[float, float] | None:
    """Distances reachable when each image changes by at most epsilon, rounded outward."""
    if epsilon is None:
        return None
    change = _angle_change(epsilon, first, second) + ANGLE_ROUNDING
    low = max(0.0, angle(distance - error) - change)
    high = min(math.pi, angle(distance + error) + change)
    return (
        max(0.0, 2.0 * math.sin(low / 2.0) ** 2 - error),
        min(2.0, 2.0 * math.sin(high / 2.0) ** 2 + error),
    )


def _verdict_slack(distance: float, threshold: float | None, error: float) -> float | None:
    """Angle the pair may turn before `distance <= threshold` flips; inf where it never does."""
    if threshold is None:
        return None
    if threshold < 0.0 or threshold >= 2.0:
        return math.inf
    slack = angular_slack(
        np.array([distance]), np.array([threshold]), inside=distance <= threshold, error=error
    )
    return float(slack[0])


def _pair_flip_radius(slack: float | None, first: _Side, second: _Side) -> float | None:
    """Largest change of the first image, and of the second where it has a scale, within `slack`.

    Bisection is sound by construction: the value returned has itself been seen to fit.
    """
    if slack is None:
        return None
    if min(first.norm, second.norm) == 0.0 or not _angle_change(0.0, first, second) < slack:
        return 0.0
    if slack == math.inf:
        return math.inf
    low, high = 0.0, first.norm / first.scale
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (
            (middle, high) if _angle_change(middle, first, second) < slack else (low, middle)
        )
    return low * (1.0 - RELATIVE_ROUNDING)
