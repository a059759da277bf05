"""Edits that change each value by a table: brightness, contrast, gamma.

A picture x becomes table[x], so the l2 change needs no picture: with counts[v] values of v,
65025 D^2 = sum of counts[v] (table[v] - v)^2, an integer. Along a family no entry of a table ever
falls (or none ever rises), so |table_a[v] - table_c[v]| only grows as the parameter a moves away
from c: D is monotone on either side of c, and bisection finds the last table within a radius.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64, UInt8

Table = UInt8[np.ndarray, " 256"]

UNIT_SQUARE = 255 * 255
"""Squared distances of 8-bit pictures are counted in (1 / 255)^2, of which they are multiples."""

_VALUES = np.arange(256.0)
_HALVES = np.arange(255) + 0.5
_CHUNK = 1 << 18
# From where an entry rounds to where it has rounded for sure: more than the curve may err by.
_ASIDE = 1e-12


def _brightness(factor: float) -> Float64[np.ndarray, " 256"]:
    return factor * _VALUES


def _contrast(factor: float) -> Float64[np.ndarray, " 256"]:
    return 128.0 + factor * (_VALUES - 128.0)


def _gamma(exponent: float) -> Float64[np.ndarray, " 256"]:
    return 255.0 * (_VALUES / 255.0) ** exponent


def _brightness_turns() -> Float64[np.ndarray, " T"]:
    return np.divide.outer(_HALVES, _VALUES[1:]).ravel()


def _contrast_turns() -> Float64[np.ndarray, " T"]:
    off = _VALUES - 128.0
    turns = np.divide.outer(_HALVES - 128.0, off[off != 0.0]).ravel()
    return turns[turns > 0.0]


def _gamma_turns() -> Float64[np.ndarray, " T"]:
    return np.divide.outer(np.log(_HALVES / 255.0), np.log(_VALUES[1:255] / 255.0)).ravel()


@dataclass(frozen=True)
class TableFamily:
    """One family; its member with parameter 1 changes nothing.

    Attributes:
        unit: what the parameter is.
        formula: the table before rounding and clipping, for people.
        lowest: smallest parameter.
        highest: largest parameter; beyond it every table is the same.
    """

    unit: str
    formula: str
    lowest: float
    highest: float
    _curve: Callable[[float], Float64[np.ndarray, " 256"]]
    _turns: Callable[[], Float64[np.ndarray, " T"]]

    @cached_property
    def parameters(self) -> Float64[np.ndarray, " P"]:
        """One of each distinct table at least, sorted, (P,): both sides of where an entry rounds.

        A proof does not rest on their being all: a table between two of these lies between theirs,
        entry by entry.
        """
        turns = self._turns()
        found = [turns, turns * (1.0 - _ASIDE), turns * (1.0 + _ASIDE)]
        return np.unique(np.concatenate([*found, [self.lowest, 1.0, self.highest]]))

    @property
    def identity(self) -> int:
        """The place of 1 among the parameters."""
        return int(np.searchsorted(self.parameters, 1.0))

    def table(self, parameter: float) -> Table:
        """The member's table, as printed: rounded half to even, clipped to 0..255."""
        return np.clip(np.rint(self._curve(parameter)), 0.0, 255.0).astype(np.uint8)

    def table_at(self, place: int) -> Table:
        return self.table(float(self.parameters[place]))

    def reach(self, counts: Int64[np.ndarray, " 256"], center: int, step: int, limit: float) -> int:
        """The last place, from a center on in steps of 1 or -1, within a squared distance of it.

        Args:
            counts: how many values of each kind the picture has.
            center: place among the parameters.
            step: 1 or -1.
            limit: squared distance in 1/65025, >= 0.
        """
        own = self.table_at(center)
        inside, outside = 0, (self.parameters.size - center if step > 0 else center + 1)
        while outside - inside > 1:
            middle = (inside + outside) // 2
            other = self.table_at(center + step * middle)
            if squared_distance(counts, own, other) <= limit:
                inside = middle
            else:
                outside = middle
        return center + step * inside


TABLE_FAMILIES = {
    "brightness": TableFamily(
        "factor", "clip(rint(a v))", 0.0, 255.0, _brightness, _brightness_turns
    ),
    "contrast": TableFamily(
        "factor", "clip(rint(128 + a (v - 128)))", 0.0, 128.0, _contrast, _contrast_turns
    ),
    "gamma": TableFamily(
        "exponent", "clip(rint(255 (v / 255)^a))", 0.0001, 2000.0, _gamma, _gamma_turns
    ),
}


def count_values(pixels: UInt8[np.ndarray, "H W 3"]) -> Int64[np.ndarray, " 256"]:
    """How many of a picture's values are 0, 1, ..., 255, its channels together."""
    flat = pixels.reshape(-1)
    counts = np.zeros(256, np.int64)
    for start in range(0, flat.size, _CHUNK):  # `bincount` makes eight bytes of each value.
        counts += np.bincount(flat[start : start + _CHUNK], minlength=256)
    return counts


def squared_distance(counts: Int64[np.ndarray, " 256"], one: Table, other: Table) -> int:
    """65025 times the squared l2 distance of one[x] and other[x], exact."""
    difference = one.astype(np.int64) - other
    return int(counts @ (difference * difference))


def squared_pixel_distance(
    one: UInt8[np.ndarray, "H W 3"], other: UInt8[np.ndarray, "H W 3"]
) -> int:
    """65025 times the squared l2 distance of two pictures of one size, exact."""
    flat, others, total = one.reshape(-1), other.reshape(-1), 0
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        # In float64 every sum of these integers is exact.
        difference = np.subtract(flat[part], others[part], dtype=np.float64)
        total += int(difference @ difference)
    return total


def largest_square(radius: float) -> float:
    """The largest integer below 65025 r^2: a distance D is below r iff 65025 D^2 is at most this.

    -1 where the radius is 0, as nothing is within it; inf where it is infinite. A float64 holds it
    exactly as far as pictures go: none that is decoded has a distance of 2^53 in these units.
    """
    if math.isinf(radius):
        return math.inf
    return float(math.ceil(UNIT_SQUARE * Fraction(radius) ** 2) - 1)
