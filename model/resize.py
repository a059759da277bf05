"""The resize that is certified is the resize that runs: two banded float64 matrices and their norm.

An upload of any size is squashed to the network's square by the linear map x -> R_h x R_w^T for each
channel. The weights are those of antialiased bilinear interpolation. Being linear, it stretches an
l2 change by at most `gain` = |R_h| |R_w|, which divides every radius.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, UInt8

from model.rounding import UNIT_ROUNDOFF_64, gamma, round_up

_CACHE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Axis:
    """One axis of the resize as a banded matrix (size, length): row i starts at starts[i]."""

    length: int
    starts: np.ndarray  # int64 (size,)
    weights: np.ndarray  # float64 (size, window); zero beyond each row's own window
    norm_bound: float

    @cached_property
    def dense(self) -> Float64[np.ndarray, "S N"]:
        """The same matrix with its zeros written out."""
        size, window = self.weights.shape
        matrix = np.zeros((size, self.length + window))
        columns = self.starts[:, None] + np.arange(window)
        matrix[np.arange(size)[:, None], columns] = self.weights
        return np.ascontiguousarray(matrix[:, : self.length])


def _bands(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of the antialiased triangle filter: first source index and weights of each output."""
    scale = length / size
    support = max(scale, 1.0)
    centers = scale * (np.arange(size) + 0.5)
    starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + support + 0.5).astype(np.int64), length)
    offsets = np.arange(int((ends - starts).max()))
    taps = (offsets + starts[:, None] - centers[:, None] + 0.5) / support
    weights = np.maximum(1.0 - np.abs(taps), 0.0)
    weights[offsets >= (ends - starts)[:, None]] = 0.0
    return starts, weights / weights.sum(axis=1, keepdims=True)


def nonnegative_norm_bound(matrix: Float[np.ndarray, "M N"]) -> float:
    """Proved upper bound of the spectral norm of a matrix without negative entries.

    For any v > 0, lambda_max(R R^T) <= max_i (R R^T v)_i / v_i (Collatz-Wielandt). Sums of
    nonnegative numbers carry only relative errors, so a factor 1 + gamma makes the bound safe.
    """
    rows = int(np.count_nonzero(matrix, axis=1).max())
    columns = int(np.count_nonzero(matrix, axis=0).max())
    _, vectors = np.linalg.eigh(matrix @ matrix.T)
    v = np.abs(vectors[:, -1]) + 1e-12
    for _ in range(8):
        v = matrix @ (matrix.T @ v)
        v /= v.max()
    ratio = float(np.max(matrix @ (matrix.T @ v) / v))
    squared = round_up(ratio * (1.0 + gamma(rows + columns + 3)))
    return round_up(round_up(float(np.sqrt(squared))))


@dataclass(frozen=True)
class Resize:
    """The linear map from (height, width, 3) uploads to (3, size, size) network inputs."""

    height: int
    width: int
    size: int
    vertical: Axis
    horizontal: Axis
    gain: float
    input_error: float

    @property
    def rows(self) -> Float64[np.ndarray, "S H"]:
        """R_h, dense."""
        return self.vertical.dense

    @property
    def columns(self) -> Float64[np.ndarray, "S W"]:
        """R_w, dense."""
        return self.horizontal.dense

    def apply(self, pixels: UInt8[np.ndarray, "H W 3"]) -> Float64[np.ndarray, "3 S S"]:
        """Resize an 8-bit image."""
        return self.apply_real(pixels.astype(np.float64)) / 255.0

    def apply_real(self, image: Float64[np.ndarray, "H W 3"]) -> Float64[np.ndarray, "3 S S"]:
        """The same operator on real-valued pixels."""
        half = (self.rows @ image.reshape(self.height, -1)).reshape(self.size, self.width, 3)
        return np.ascontiguousarray((self.columns @ half).transpose(2, 0, 1))


_cache: OrderedDict[tuple[int, int, int], Resize] = OrderedDict()
_lock = threading.Lock()


def _axis(length: int, size: int) -> Axis:
    starts, weights = _bands(length, size)
    axis = Axis(length, starts, weights, 0.0)
    return Axis(length, starts, weights, nonnegative_norm_bound(axis.dense))


def resize_operator(height: int, width: int, size: int) -> Resize:
    """The resize from (height, width) to (size, size), cached."""
    key = (height, width, size)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    vertical, horizontal = _axis(height, size), _axis(width, size)
    gain = round_up(vertical.norm_bound * horizontal.norm_bound)
    roundings = vertical.weights.shape[1] + horizontal.weights.shape[1] + 1
    largest = round_up(float(np.sqrt(3 * height * width)))
    input_error = gamma(roundings, UNIT_ROUNDOFF_64) * gain * largest * (1 + 2.0**-50)
    resize = Resize(height, width, size, vertical, horizontal, gain, input_error)
    with _lock:
        _cache[key] = resize
        while len(_cache) > 64:
            _cache.popitem(last=False)
    return resize
