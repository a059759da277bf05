"""Norms, angles and units: what a ball of embeddings subtends, what a verdict has left, in pixels.

Cosine depends on directions only, so angles carry everything: a ball around an embedding subtends a
cap of directions, and a threshold on the distance is a threshold on the angle. Every function here
rounds to the safe side; `docs/certificate.md` has the proofs.

The zero embedding has no direction. By our rule its similarity with everything is 0 and its
distance 1, and nothing is proved about it. A norm below 1e-100 counts as zero, one above 1e100 is
refused: in between no square underflows or overflows in float64.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from model.certificate.rounding import UNIT_ROUNDOFF_64, gamma, round_down, round_up
from model.errors import CertificateError

SMALLEST_NORM = 1e-100
LARGEST_NORM = 1e100

# Larger than the rounding of any sum of angles here: a few ulp of pi, which are 4.4e-16 each.
ANGLE_ROUNDING = 1e-14
RELATIVE_ROUNDING = 1e-12


class Norm(NamedTuple):
    """A Euclidean norm as computed, and its proved bounds; all three are 0 for the zero vector.

    `low` also keeps the distance from what counts as zero: no step shorter than it leads there.
    """

    value: float
    low: float
    high: float


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
    """Product of the Lipschitz bound and the resize's gain, rounded up; the error is only checked.

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


def radius_in_pixels(
    radius: float, *, scale: float, forward_error: float, limit: float = math.inf
) -> float:
    """Embedding-space radius as pixels: two forward errors off, over the scale, rounded down.

    Args:
        radius: proved radius in embedding space; inf where nothing can happen at any distance.
        scale: how far an embedding moves per unit of pixel change, rounded up, > 0.
        forward_error: bound on the error of one computed embedding.
        limit: embedding-space radius that a finite one is not to exceed.

    Returns:
        Radius in uploaded pixels, >= 0, and 0 for NaN; inf stays inf.
    """
    if radius == math.inf:
        return math.inf
    remaining = round_down(min(radius, limit) - 2.0 * forward_error)
    return max(0.0, round_down(remaining / scale)) if remaining > 0.0 else 0.0


def radii_in_pixels(
    radii: Float64[np.ndarray, " K"], *, scale: float | Float64[np.ndarray, " K"]
) -> Float64[np.ndarray, " K"]:
    """`radius_in_pixels` of each radius, (K,), the forward error being off already."""
    # NaN proves nothing, and what overflows is above any float.
    proved = np.where((radii > 0.0) & (radii < np.inf), radii, 0.0)
    with np.errstate(over="ignore"):
        pixels = np.nextafter(np.nextafter(proved, -np.inf) / scale, -np.inf)
    return np.where(radii == np.inf, np.inf, np.maximum(pixels, 0.0))


def check_threshold(threshold: float, name: str) -> None:
    """Refuse a distance threshold that is not a finite number.

    Raises:
        CertificateError: it is NaN or infinite.
    """
    if not math.isfinite(threshold):
        raise CertificateError(f"{name} must be a finite distance, got {threshold}")


def cosine_error(dimension: int) -> float:
    """Bound on the rounding error of 1 - <a, b> / (|a| |b|) evaluated in float64, any order.

    With n terms and v = 2^-53: the product errs by gamma_n |a| |b|, each norm by (n / 2 + 2) v of
    itself, their product, the quotient and the subtraction by 4 v together. That is 2 n v + 8 v to
    first order, and 8 (n + 8) v pays it four times over.
    """
    return 8.0 * (dimension + 8) * UNIT_ROUNDOFF_64


def angle(distance: float) -> float:
    """Angle in radians of two vectors at this cosine distance; the distance is clipped to [0, 2].

    The half-angle form keeps all digits near 0, where acos(1 - distance) loses half of them.
    """
    return 2.0 * math.asin(math.sqrt(min(max(distance, 0.0), 2.0) / 2.0))


def angles(distances: Float64[np.ndarray, " M"]) -> Float64[np.ndarray, " M"]:
    """`angle` of each distance, (M,)."""
    return 2.0 * np.arcsin(np.sqrt(np.clip(distances, 0.0, 2.0) / 2.0))


def cap_half_angle(radius: float, norm: float) -> float:
    """Half-angle of the cap of directions in a ball around a vector, rounded up.

    It is the tangent's angle arcsin(radius / norm) while the ball leaves out 0, and pi from there
    on: a ball that holds 0 shows every direction, and 0 itself has none.

    Args:
        radius: radius of the closed ball, >= 0.
        norm: norm of its centre, rounded down, >= 0.
    """
    sine = radius / norm * (1.0 + RELATIVE_ROUNDING) if norm > 0.0 else 1.0
    return math.asin(sine) + ANGLE_ROUNDING if sine < 1.0 else math.pi


def angular_slack(
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
    return np.where(inside, staying, staying_out) - ANGLE_ROUNDING


def flip_radius(slack: Float64[np.ndarray, " M"], norm: float) -> Float64[np.ndarray, " M"]:
    """How far an embedding is from turning by each angle, rounded down, 0 where there is no slack.

    From pi/2 on the nearest point of the turned cone is its apex 0, at the embedding's norm.

    Args:
        slack: angles in radians, (M,), from `angular_slack`.
        norm: norm of the embedding, rounded down.
    """
    # What `cap_half_angle` adds for the stored vector's own cap, of radius 0, is taken off here.
    free = np.clip(slack - 2.0 * ANGLE_ROUNDING, 0.0, math.pi / 2.0)
    return norm * np.sin(free) * (1.0 - 2.0 * RELATIVE_ROUNDING)
