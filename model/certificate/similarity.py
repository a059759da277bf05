"""Angles between embeddings: what a change of an image can reach, and how far a verdict is away.

Cosine depends on directions only, so angles carry everything: a ball around an embedding shows a
cap of directions, and a threshold on the distance is a threshold on the angle. Every function here
rounds to the safe side; `docs/certificate.md` has the proofs.

The zero embedding has no direction. By our rule its similarity with everything is 0 and its
distance 1; nothing is proved about it: interval [0, 2], radius 0. A norm below 1e-100 counts as
zero, one above 1e100 is refused: in between no square underflows or overflows in float64.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from model.certificate.rounding import UNIT_ROUNDOFF_64, gamma, round_down, round_up
from model.errors import CertificateError

SMALLEST_NORM = 1e-100
LARGEST_NORM = 1e100

# Larger than the rounding of any sum of angles below: a few ulp of pi, which are 4.4e-16 each.
_ANGLE_ROUNDING = 1e-14
_RELATIVE_ROUNDING = 1e-12


class Norm(NamedTuple):
    """A Euclidean norm as computed, and its proved bounds; all three are 0 for the zero vector.

    `low` also keeps the distance from what counts as zero: no step shorter than it leads there.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairCertificate:
    """What two images' distance is, and how far the images may change before it moves.

    Attributes:
        distance: 1 - cosine, in [0, 2].
        similarity: cosine, in [-1, 1].
        interval_a: distances reachable when image a changes by at most epsilon; None without one.
        interval_both: the same when each image changes by at most epsilon in its own pixels.
        match: whether distance <= threshold; None without one.
        radius_a: l2 change of image a's pixels below which `match` stays; None without threshold.
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


def embedding_norm(embedding: Float64[np.ndarray, " D"]) -> Norm:
    """Norm of an embedding with proved bounds; below 1e-100 it counts as zero.

    Raises:
        CertificateError: a component is not finite, or beyond 1e100.
    """
    largest = float(np.abs(embedding).max(initial=0.0))
    if not largest <= LARGEST_NORM:
        raise CertificateError(
            f"an embedding must be finite and below {LARGEST_NORM:g}, got a component of {largest}"
        )
    value = math.sqrt(float((embedding * embedding).sum()))
    if value < SMALLEST_NORM:
        return Norm(0.0, 0.0, 0.0)
    slack = value * gamma(embedding.size + 8)
    return Norm(value, max(0.0, value - slack - SMALLEST_NORM), value + slack)


def pixel_scale(lipschitz_bound: float, gain: float, forward_error: float) -> float:
    """Product of the Lipschitz bound and the resize's gain, rounded up.

    Raises:
        CertificateError: a factor is outside [1e-100, 1e100], or the error is negative or not
            finite.
    """
    for name, factor in (("lipschitz_bound", lipschitz_bound), ("gain", gain)):
        if not SMALLEST_NORM <= factor <= LARGEST_NORM:
            raise CertificateError(f"{name} must be positive and finite, got {factor}")
    if not 0.0 <= forward_error < math.inf:
        raise CertificateError(f"forward_error must be >= 0 and finite, got {forward_error}")
    return round_up(lipschitz_bound * gain)


def published(
    radius: float, *, scale: float, forward_error: float, limit: float = math.inf
) -> float:
    """Embedding-space radius as pixels: two forward errors off, over the scale, rounded down.

    Args:
        radius: proved radius in embedding space; inf where nothing can happen at any distance.
        scale: how far an embedding moves per unit of pixel change, rounded up, > 0.
        forward_error: bound on the error of one computed embedding.
        limit: embedding-space radius that a finite one is not to exceed.

    Returns:
        Radius in uploaded pixels, >= 0; inf stays inf.
    """
    if radius == math.inf:
        return math.inf
    remaining = round_down(min(radius, limit) - 2.0 * forward_error)
    return max(0.0, round_down(remaining / scale)) if remaining > 0.0 else 0.0


def check_threshold(threshold: float, name: str) -> None:
    """Refuse a distance threshold that is not a finite number.

    Raises:
        CertificateError: it is NaN or infinite.
    """
    if not math.isfinite(threshold):
        raise CertificateError(f"{name} must be a finite distance, got {threshold}")


def cosine_error(dimension: int) -> float:
    """Bound on the rounding error of 1 - <a, b> / (|a| |b|) evaluated in float64, any order."""
    return 8.0 * (dimension + 8) * UNIT_ROUNDOFF_64


def angle(distance: float) -> float:
    """Angle in radians of two vectors at this cosine distance; the distance is clipped to [0, 2].

    The half-angle form keeps all digits near 0, where acos(1 - distance) loses half of them.
    """
    return 2.0 * math.asin(math.sqrt(min(max(distance, 0.0), 2.0) / 2.0))


def angles(distances: Float64[np.ndarray, " M"]) -> Float64[np.ndarray, " M"]:
    """`angle` of each distance, (M,)."""
    return 2.0 * np.arcsin(np.sqrt(np.clip(distances, 0.0, 2.0) / 2.0))


def reach(radius: float, norm: float) -> float:
    """Half-angle of the cap of directions in a ball around a vector, rounded up.

    It is the tangent's angle arcsin(radius / norm) while the ball leaves out 0, and pi from there
    on: a ball that holds 0 shows every direction, and 0 itself has none.

    Args:
        radius: radius of the closed ball, >= 0.
        norm: norm of its centre, rounded down, >= 0.
    """
    sine = radius / norm * (1.0 + _RELATIVE_ROUNDING) if norm > 0.0 else 1.0
    return math.asin(sine) + _ANGLE_ROUNDING if sine < 1.0 else math.pi


def rooms(
    distances: Float64[np.ndarray, " M"],
    thresholds: Float64[np.ndarray, " M"],
    *,
    inside: bool | Bool[np.ndarray, " M"],
    error: float,
) -> Float64[np.ndarray, " M"]:
    """Angle by which each vector may turn before its verdict can flip, rounded down; <= 0 is none.

    The verdict is `distance <= threshold` as executed, here and after the turn, each evaluated
    with at most `error`; hence the error is taken off on both sides.

    Args:
        distances: cosine distances, (M,).
        thresholds: what each is compared with, (M,).
        inside: the verdict now.
        error: bound on the rounding error of a computed distance.
    """
    staying = angles(thresholds - error) - angles(distances + error)
    staying_out = angles(distances - error) - angles(thresholds + error)
    return np.where(inside, staying, staying_out) - _ANGLE_ROUNDING


def flip_distance(room: Float64[np.ndarray, " M"], norm: float) -> Float64[np.ndarray, " M"]:
    """How far an embedding is from turning by each angle, rounded down, 0 where there is no room.

    From pi/2 on the nearest point of the turned cone is its apex 0, at the embedding's norm.

    Args:
        room: angles in radians, (M,), from `rooms`.
        norm: norm of the embedding, rounded down.
    """
    # What `reach` adds for the stored vector's own cap, of radius 0, is taken off here.
    turn = np.clip(room - 2.0 * _ANGLE_ROUNDING, 0.0, math.pi / 2.0)
    return norm * np.sin(turn) * (1.0 - 2.0 * _RELATIVE_ROUNDING)


def _turn(change: float, first: _Side, second: _Side) -> float:
    """Angle a pair can close or open when each image changes by this much, rounded up."""
    return reach(first.scale * change + 2.0 * first.error, first.norm) + reach(
        second.scale * change + 2.0 * second.error, second.norm
    )


def _interval(
    distance: float, error: float, epsilon: float | None, first: _Side, second: _Side
) -> tuple[float, float] | None:
    """Distances reachable when each image changes by at most epsilon, rounded outward."""
    if epsilon is None:
        return None
    turn = _turn(epsilon, first, second) + _ANGLE_ROUNDING
    low = max(0.0, angle(distance - error) - turn)
    high = min(math.pi, angle(distance + error) + turn)
    return (
        max(0.0, 2.0 * math.sin(low / 2.0) ** 2 - error),
        min(2.0, 2.0 * math.sin(high / 2.0) ** 2 + error),
    )


def _flip_radius(room: float | None, first: _Side, second: _Side) -> float | None:
    """Largest change of the first image, and of the second where it has a scale, within `room`.

    Bisection is sound by construction: the value returned has itself been seen to fit.
    """
    if room is None:
        return None
    if not _turn(0.0, first, second) < room:
        return 0.0
    low, high = 0.0, first.norm / first.scale
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _turn(middle, first, second) < room else (low, middle)
    return low * (1.0 - _RELATIVE_ROUNDING)


def _pair_room(distance: float, threshold: float | None, error: float) -> float | None:
    """Angle the pair may turn before `distance <= threshold` flips; pi where it never does."""
    if threshold is None:
        return None
    if threshold < 0.0 or threshold >= 2.0:
        # No distance in [0, 2] flips it. A room of pi still stops at the zero embedding.
        return math.pi
    room = rooms(
        np.array([distance]),
        np.array([threshold]),
        inside=distance <= threshold,
        error=error,
    )
    return float(room[0])


def _cosine(a: Float64[np.ndarray, " D"], b: Float64[np.ndarray, " D"], norms: float) -> float:
    """Computed cosine, clipped to [-1, 1]; 0 when one of the vectors is zero."""
    if norms == 0.0:
        return 0.0
    return min(1.0, max(-1.0, float((a * b).sum()) / norms))


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
        interval is [0, 2]. A threshold below 0 or from 2 on can never flip; its radius ends where
        an embedding may become zero.

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

    room = _pair_room(distance, threshold, error)
    return PairCertificate(
        distance=distance,
        similarity=similarity,
        interval_a=_interval(distance, error, epsilon, side_a, still_b),
        interval_both=_interval(distance, error, epsilon, side_a, side_b),
        match=None if threshold is None else distance <= threshold,
        radius_a=_flip_radius(room, side_a, still_b),
        radius_b=_flip_radius(room, side_b, still_a),
        radius_both=_flip_radius(room, side_a, side_b),
    )
