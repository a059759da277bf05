"""The resize that is certified is the resize that runs: two banded float64 matrices and their norm.

An upload of any size is squashed to the network's square by x -> R_h x R_w^T in each channel. The
weights are those of antialiased bilinear interpolation (half-pixel centres; equal to torch's
`antialias=True, align_corners=False` to 1e-15). The map is linear, so an l2 change of the upload
grows by at most `gain` >= |R_h| |R_w|, which divides every radius: radii are stated in the pixels
of the image the user sent.

`apply` never holds the upload in float64. It converts a strip of source rows at a time, multiplies
it by the few output rows that see it, and sums; panels of columns keep the sums in cache. Only
nonzero weights are multiplied, but for the zeros inside small dense blocks, and these are exact.
"""

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from model.certificate.bounds import nonnegative_norm_bound, product_bound
from model.certificate.rounding import gamma, round_up
from model.errors import EmbeddingError

# Measured by benchmarks/pixels.py: strips of 24 rows by 2048 columns stay in a 1 MiB cache, and
# four output columns a block is where fewer calls and fewer multiplied zeros balance.
_STRIP_ROWS = 24
_PANEL_COLUMNS = 2048
_BLOCK_COLUMNS = 4
_CACHE_BYTES = 64 * 1024 * 1024


class _Bands(NamedTuple):
    """A matrix of one window a row: row i holds weights[i] from column starts[i] on."""

    length: int
    starts: Int64[np.ndarray, " S"]
    weights: Float64[np.ndarray, "S window"]

    def dense(self) -> Float64[np.ndarray, "S N"]:
        """The same matrix with its zeros written out."""
        size, window = self.weights.shape
        matrix = np.zeros((size, self.length + window))
        columns = self.starts[:, None] + np.arange(window, dtype=np.int64)
        matrix[np.arange(size)[:, None], columns] = self.weights
        return np.ascontiguousarray(matrix[:, : self.length])


class _Strip(NamedTuple):
    """Source rows [top, bottom) and the dense weights of output rows [first, last) on them."""

    top: int
    bottom: int
    first: int
    last: int
    weights: Float64[np.ndarray, "outputs rows"]


class _Block(NamedTuple):
    """Source columns [left, right) and their weights on outputs [first, last), RGB apart."""

    left: int
    right: int
    first: int
    last: int
    weights: Float64[np.ndarray, "columns3 outputs3"]


@dataclass(frozen=True, eq=False)
class Resize:
    """The linear map from an upload (height, width, 3) to a network input (3, size, size).

    Attributes:
        height: rows of the upload.
        width: columns of the upload.
        size: side of the network's input.
        gain: proved upper bound of the map's l2 operator norm |R_h| |R_w|.
        input_error: proved upper bound of |apply(x) - R(x / 255)|_2 for every uint8 upload x, R
            being this very map in real arithmetic.
        nbytes: memory held, in bytes.
    """

    height: int
    width: int
    size: int
    nbytes: int
    _vertical: _Bands
    _horizontal: _Bands
    _strips: tuple[_Strip, ...]
    _panels: tuple[tuple[_Block, ...], ...]

    @cached_property
    def gain(self) -> float:
        """|R_h| |R_w|, proved when first asked for: training resizes and asks for none."""
        return product_bound(
            nonnegative_norm_bound(self.rows), nonnegative_norm_bound(self.columns)
        )

    @property
    def input_error(self) -> float:
        """The rounding of both products of one window each, and of the division.

        Pixels enter exactly. Every output is a sum of nonnegative terms, each rounded at most once
        for each term of its two windows and once by the division, so it is off by a factor of at
        most 1 + gamma. In l2 that is gamma |R(x / 255)| <= gamma gain |x / 255|, and
        |x / 255| <= sqrt(3HW).
        """
        roundings = self._vertical.weights.shape[1] + self._horizontal.weights.shape[1] + 1
        white = round_up(math.sqrt(3 * self.height * self.width))
        return product_bound(gamma(roundings), self.gain, white)

    @property
    def rows(self) -> Float64[np.ndarray, "S H"]:
        """R_h, dense, for attacks and tests; built anew at each access, so keep it."""
        return self._vertical.dense()

    @property
    def columns(self) -> Float64[np.ndarray, "S W"]:
        """R_w, dense, for attacks and tests; built anew at each access, so keep it."""
        return self._horizontal.dense()

    def apply(
        self,
        pixels: UInt8[np.ndarray, "H W 3"],
        table: UInt8[np.ndarray, " 256"] | None = None,
    ) -> Float64[np.ndarray, "3 S S"]:
        """The network input of an 8-bit upload.

        Args:
            pixels: upright RGB, uint8 (height, width, 3).
            table: what each value becomes first, as `table[pixels]` without a copy; None: itself.

        Returns:
            Values in [0, 1] up to rounding, (3, size, size); at most `input_error` off in l2.

        Raises:
            EmbeddingError: the pixels are not of this operator's height and width.
        """
        # Dividing last costs one rounding in all; dividing the upload would cost a float64 copy.
        return self._map(pixels, table) / 255.0

    def apply_real(self, image: Float64[np.ndarray, "H W 3"]) -> Float64[np.ndarray, "3 S S"]:
        """The same map on real-valued pixels, for attacks and tests.

        Args:
            image: values in [0, 1] units, or a change of them, float64 (height, width, 3).

        Returns:
            The mapped values, (3, size, size).

        Raises:
            EmbeddingError: the image is not of this operator's height and width.
        """
        return self._map(image)

    def _map(
        self, image: np.ndarray, table: np.ndarray | None = None
    ) -> Float64[np.ndarray, "3 S S"]:
        if image.shape != (self.height, self.width, 3):
            wanted = (self.height, self.width, 3)
            raise EmbeddingError(f"pixels of shape {wanted} were wanted, {image.shape} came")
        flat = image.reshape(self.height, self.width * 3)
        out = np.empty((self.size, self.size * 3))
        for panel in self._panels:
            left = panel[0].left
            squashed = self._squash_rows(flat[:, 3 * left : 3 * panel[-1].right], table)
            for block in panel:
                np.matmul(
                    squashed[:, 3 * (block.left - left) : 3 * (block.right - left)],
                    block.weights,
                    out=out[:, 3 * block.first : 3 * block.last],
                )
        return np.ascontiguousarray(out.reshape(self.size, self.size, 3).transpose(2, 0, 1))

    def _squash_rows(
        self, flat: np.ndarray, table: np.ndarray | None
    ) -> Float64[np.ndarray, "S columns3"]:
        """R_h times a panel of the upload, one strip of rows at a time."""
        columns = flat.shape[1]
        squashed = np.zeros((self.size, columns))
        strip_pixels = np.empty((_STRIP_ROWS, columns))
        products = np.empty((max(s.last - s.first for s in self._strips), columns))
        for strip in self._strips:
            rows = strip_pixels[: strip.bottom - strip.top]
            strip_values = flat[strip.top : strip.bottom]
            np.copyto(rows, strip_values if table is None else table[strip_values])
            part = products[: strip.last - strip.first]
            np.matmul(strip.weights, rows, out=part)
            squashed[strip.first : strip.last] += part
        return squashed


def resize_operator(height: int, width: int, size: int) -> Resize:
    """The resize of a (height, width) upload to (size, size), from a cache of recent ones.

    Safe to call from many threads. The cache holds at most 64 MiB of weights.

    Args:
        height: rows of the upload, >= 1.
        width: columns of the upload, >= 1.
        size: side of the network's input, >= 1.

    Returns:
        The operator with its proved gain and rounding error.

    Raises:
        ValueError: a side is below 1.
    """
    return _cache.get(height, width, size)


class _ResizeCache:
    """The least recently used operators are dropped when their weights outgrow the memory given."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[tuple[int, int, int], Resize] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, height: int, width: int, size: int) -> Resize:
        """The operator, built outside the lock: two threads may build the same one at once."""
        key = (height, width, size)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        operator = _build(height, width, size)
        with self._lock:
            self._held[key] = operator
            while self.nbytes > self._max_bytes and len(self._held) > 1:
                self._held.popitem(last=False)
        return operator

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(operator.nbytes for operator in self._held.values())


_cache = _ResizeCache(_CACHE_BYTES)


def _build(height: int, width: int, size: int) -> Resize:
    if min(height, width, size) < 1:
        raise ValueError(f"every side must be at least 1, got {height} x {width} -> {size}")
    vertical, horizontal = _triangle_bands(height, size), _triangle_bands(width, size)
    rows, columns = vertical.dense(), horizontal.dense()
    strips, panels = _strips(rows), _panels(columns)
    arrays = [*vertical[1:], *horizontal[1:], *(s.weights for s in strips)]
    arrays += [block.weights for panel in panels for block in panel]
    return Resize(
        height=height,
        width=width,
        size=size,
        nbytes=sum(array.nbytes for array in arrays),
        _vertical=vertical,
        _horizontal=horizontal,
        _strips=strips,
        _panels=panels,
    )


def _triangle_bands(length: int, size: int) -> _Bands:
    """Antialiased bilinear weights: a triangle as wide as one output pixel, cut at the border."""
    scale = length / size
    support = max(scale, 1.0)
    centers = scale * (np.arange(size) + 0.5)
    # Truncation, as torch does; a source pixel at the very edge of the triangle weighs nothing.
    starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + support + 0.5).astype(np.int64), length)
    offsets = np.arange(int((ends - starts).max()))
    distances = (offsets + starts[:, None] - centers[:, None] + 0.5) / support
    weights = np.maximum(1.0 - np.abs(distances), 0.0)
    weights[offsets >= (ends - starts)[:, None]] = 0.0
    return _Bands(length, starts, weights / weights.sum(axis=1, keepdims=True))


def _strips(rows: Float64[np.ndarray, "S H"]) -> tuple[_Strip, ...]:
    strips: list[_Strip] = []
    for top in range(0, rows.shape[1], _STRIP_ROWS):
        weights = rows[:, top : top + _STRIP_ROWS]
        first, last = _nonzero_range(weights, axis=0)
        bottom = top + weights.shape[1]
        strips.append(_Strip(top, bottom, first, last, np.ascontiguousarray(weights[first:last])))
    return tuple(strips)


def _panels(columns: Float64[np.ndarray, "S W"]) -> tuple[tuple[_Block, ...], ...]:
    """Blocks of output columns, gathered in panels whose source columns fit the cache."""
    panels: list[list[_Block]] = []
    for first in range(0, columns.shape[0], _BLOCK_COLUMNS):
        weights = columns[first : first + _BLOCK_COLUMNS]
        left, right = _nonzero_range(weights, axis=1)
        # Pixels are interleaved RGB: each weight becomes a 3 x 3 diagonal.
        interleaved = np.kron(weights[:, left:right].T, np.eye(3))
        block = _Block(left, right, first, first + weights.shape[0], interleaved)
        if panels and right - panels[-1][0].left <= _PANEL_COLUMNS:
            panels[-1].append(block)
        else:
            panels.append([block])
    return tuple(tuple(panel) for panel in panels)


def _nonzero_range(weights: Float64[np.ndarray, "M N"], axis: int) -> tuple[int, int]:
    indices = np.flatnonzero(np.max(weights, axis=1 - axis))
    return (int(indices[0]), int(indices[-1]) + 1) if indices.size else (0, 0)
