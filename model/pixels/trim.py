"""Uniform borders, and how far a picture is from being trimmed to another box.

A line of pixels (a row, or a column) is *border* while it is all but one colour: n < 12 sqrt(L) in
8-bit levels, n being the l2 norm of its L pixels' deviation from their mean colour. What lies
outside the first and the last row that are no border goes, then likewise the columns of what is
left. A crop that is decided from pixels would void every radius; but n moves no faster than the
pixels of its line do, so the decision has a radius of its own, and below that the box stands.

Everything up to the radius is exact in integers, and the radius is rounded down.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from model.certificate.rounding import UNIT_ROUNDOFF_64
from model.errors import ImageSizeError

_DEVIATION = 12
"""Root mean square in 8-bit levels a pixel, all three channels together, from which on a line is no
border."""

_SHORTEST = 16
"""A side below this is never trimmed."""

_SHARE = 4
"""Less than one part in so many of a side is no picture: then the whole side stays."""

_LONGEST = 1 << 22

# Most pictures end at their first line. Beyond it, steps grow to what benchmarks/pixels.py likes.
_FIRST_STEP = 16
_ROW_STEP = 16
_COLUMN_STEP = 256
_STRIP_ROWS = 256

Sums = tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, "N 3"]]


class Box(NamedTuple):
    """A part of a picture in pixels; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """That part, not copied."""
        return pixels[self.top : self.bottom, self.left : self.right]


class Trim(NamedTuple):
    """What is left of a picture without its borders.

    Attributes:
        box: of what is left; the whole picture where nothing is border, or too much.
        radius: every picture of this size at l2 distance (of values in [0, 1], over all
            H x W x 3) strictly below it has the same box; inf: every picture of this size.
    """

    box: Box
    radius: float


def find_trim(pixels: UInt8[np.ndarray, "H W 3"]) -> Trim:
    """The box of a picture, and the radius within which it stands.

    Args:
        pixels: upright RGB, uint8.

    Raises:
        ImageSizeError: a side is longer than 2**22.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > _LONGEST:
        raise ImageSizeError(f"sides of at most {_LONGEST} are trimmed, got {height} x {width}")
    top, bottom, rows = _kept(lambda a, b: _row_sums(pixels[a:b]), height, width, _ROW_STEP)
    left, right, columns = _kept(
        lambda a, b: _column_sums(pixels[top:bottom, a:b]), width, bottom - top, _COLUMN_STEP
    )
    return Trim(Box(left, top, right, bottom), min(rows, columns))


def _kept(
    sums: Callable[[int, int], Sums], count: int, length: int, step: int
) -> tuple[int, int, float]:
    """First line kept, first one after them that is not, and the radius of both.

    Args:
        sums: of lines [a, b): of the squares of their values, and of each channel.
        count: number of lines.
        length: pixels of a line.
        step: lines to look at together, at most.
    """
    if count < _SHORTEST:
        return 0, count, math.inf
    before, radius = _border(lambda a, b: _excess(*sums(a, b), length), count, length, step)
    if before == count:
        return 0, count, radius
    after, other = _border(
        lambda a, b: _excess(*sums(count - b, count - a), length)[::-1], count, length, step
    )
    # Both ends are paid for even where the whole side stays: that, too, was decided from them.
    radius, kept = min(radius, other), count - after - before
    return (0, count, radius) if _SHARE * kept < count else (before, count - after, radius)


def _border(
    excess: Callable[[int, int], Int64[np.ndarray, " N"]], count: int, length: int, most: int
) -> tuple[int, float]:
    """How many lines are border before the first that is not, and how far that is from changing.

    The first line that is not may become border, and each before it may cease to be.
    """
    radius, start, step = math.inf, 0, _FIRST_STEP
    while start < count:
        some = excess(start, min(start + step, count))
        inside = np.flatnonzero(some >= 0)[:1]
        seen = some[: inside[0] + 1] if inside.size else some
        radius = min(radius, float(_distances(seen, length).min()))
        if inside.size:
            return start + int(inside[0]), radius
        start, step = start + step, min(2 * step, most)
    return count, radius


def _row_sums(rows: UInt8[np.ndarray, "N L 3"]) -> Sums:
    # Sums in float64 are exact in any order: they are integers below 2**53.
    count, length = rows.shape[:2]
    values = rows.reshape(count, 1, -1).astype(np.float64)
    squares = (values @ values.transpose(0, 2, 1)).reshape(count)
    channels = np.ones(length) @ values.reshape(count, length, 3)
    return squares.astype(np.int64), channels.astype(np.int64)


def _column_sums(columns: UInt8[np.ndarray, "L N 3"]) -> Sums:
    length, count = columns.shape[:2]
    squares, channels = np.zeros(3 * count), np.zeros(3 * count)
    for top in range(0, length, _STRIP_ROWS):
        strip = columns[top : top + _STRIP_ROWS].astype(np.float64)
        values = strip.reshape(len(strip), 3 * count)
        squares += np.einsum("ij,ij->j", values, values)
        channels += np.ones(len(strip)) @ values
    whole = squares.reshape(count, 3).sum(axis=1)
    return whole.astype(np.int64), channels.reshape(count, 3).astype(np.int64)


def _excess(
    squares: Int64[np.ndarray, " N"], channels: Int64[np.ndarray, "N 3"], length: int
) -> Int64[np.ndarray, " N"]:
    """L n^2 - 144 L^2: negative for border.

    L n^2 = L sum v^2 - sum_c (sum v)^2. Both terms are at most 3 (255 L)^2 < 2**18 L^2, so for
    L <= 2**22 nothing reaches 2**63.
    """
    spread = length * squares - np.square(channels).sum(axis=1)
    return spread - (_DEVIATION * length) ** 2


def _distances(excess: Int64[np.ndarray, " N"], length: int) -> Float64[np.ndarray, " N"]:
    """| n - 12 sqrt(L) | / 255, rounded down.

    As | L n^2 - 144 L^2 | over (sqrt(L n^2) + 12 L) sqrt(L) 255 nothing cancels: eight roundings of
    positive numbers, each by a factor within 1 +- 2**-53; the last factor pays for sixteen.
    """
    edge = _DEVIATION * length
    deviations = np.sqrt((excess + edge**2).astype(np.float64))
    quotients = np.abs(excess) / ((deviations + edge) * math.sqrt(length) * 255.0)
    return quotients * (1.0 - 16.0 * UNIT_ROUNDOFF_64)
