"""What a verdict compares with its threshold: margin + weight x cosine, of pairs of rows.

For row a of an item against row b of another that is <g, w> / |g| with w = u + weight a, where u is
the unit normal of the plane between them: a threshold on it is a cone around w, as one on the
distance is a cone around a row. Angles need the length of w. It is never needed exactly: a room
falls as |w| grows, on either side of the threshold, so an upper bound is what is safe.
`docs/certificate.md`, 8, has the proofs.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from model.certificate.distances import GRAM_FROM
from model.certificate.rounding import UNIT_ROUNDOFF_64

# What a calibration chooses from, and the largest weight of the cosine that verdicts are made with.
COSINE_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
LARGEST_COSINE_WEIGHT = COSINE_WEIGHTS[-1]

_UP = 1.0 + 8.0 * UNIT_ROUNDOFF_64


class Cones(NamedTuple):
    """Values <g, w> / |g| of a query, each to be held against a threshold.

    Attributes:
        values: as computed.
        lengths: upper bounds of |w|.
        errors: bounds on the rounding of a value, at this query and at any other.
    """

    values: Float64[np.ndarray, "..."]
    lengths: Float64[np.ndarray, "..."] | float
    errors: Float64[np.ndarray, "..."]

    def staying(self, threshold: float) -> Float64[np.ndarray, "..."]:
        """Angle by which the query may turn before a value falls below the threshold."""
        above = cone_angles(self.values - self.errors, self.lengths)
        above -= cone_angles(threshold + self.errors, self.lengths)
        return above

    def entering(self, threshold: float) -> Float64[np.ndarray, "..."]:
        """Less the angle by which it may turn before a value reaches the threshold."""
        above = cone_angles(self.values + self.errors, self.lengths)
        above -= cone_angles(threshold - self.errors, self.lengths)
        return above


def cone_angles(
    values: Float64[np.ndarray, "..."], lengths: Float64[np.ndarray, "..."] | float
) -> Float64[np.ndarray, "..."]:
    """Angle of the query above the plane across w, of values <g, w> / |g|.

    Of a value beyond |w|, which no query has, that of w itself.
    """
    return np.arcsin(np.clip(values / lengths, -1.0, 1.0))


def cone_lengths(
    distance: Float64[np.ndarray, "A B"],
    own_squares: Float64[np.ndarray, " A"],
    other_squares: Float64[np.ndarray, " B"],
    weight: float,
    rounding: float,
) -> Float64[np.ndarray, "A B"]:
    """Upper bounds of |u + weight a| for rows a against rows b, u = (a - b) / |a - b|.

    With 2 <u, a> = |a - b| + (|a|^2 - |b|^2) / |a - b|. The second term says nothing where rows
    are as close as their norms are rounded; there, 1 + weight |a| does. Of equal rows u is 0.

    Args:
        distance: |a - b| rounded up, as `Pairs` has it; 1 of equal rows.
        own_squares: |a|^2.
        other_squares: |b|^2.
        weight: positive.
        rounding: gamma(D + 8), which bounds the relative error of each square.
    """
    squares = own_squares[:, None]
    # A distance as computed is above the true one by less than 2 / GRAM_FROM roundings.
    least_inverse = (1.0 + 8.0 / GRAM_FROM * rounding) / distance
    apart = np.abs(squares - other_squares) + 4.0 * rounding
    twice = distance * (1.0 + rounding) + apart * least_inverse
    squared = 1.0 + weight * twice + weight * weight * squares * (1.0 + 2.0 * rounding)
    longest = 1.0 + weight * np.sqrt(squares) * (1.0 + rounding)
    return np.minimum(np.sqrt(squared), longest) * _UP
