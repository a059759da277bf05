"""Nine families of distortions, each with one scale of severity from 0 (none) to 1.

With the same state of the generator a family does the same thing, only more of it: the same place
is covered by a larger box, the same field bends further. That is what lets the synthetic 2AFC set
state which of two distorted pictures is closer without asking people.
"""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageFilter

Pixels = UInt8[np.ndarray, "_H _W 3"]
_Field = Float64[np.ndarray, "_H _W"]
_Distortion = Callable[[Pixels, float, np.random.Generator], Pixels]


def distort(pixels: Pixels, family: str, severity: float, rng: np.random.Generator) -> Pixels:
    """A distorted copy of a picture, of its size.

    Args:
        pixels: the picture, (H, W, 3).
        family: one of FAMILIES.
        severity: how much of it, in [0, 1]; 0 changes nothing.
        rng: what of it (place, direction, pattern); drawn alike for every severity above 0.
    """
    if severity == 0.0:
        return pixels.copy()
    return _DISTORTIONS[family](pixels, severity, rng)


def _zoom(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """A window of 1 to 0.45 of each side about a point near the middle, at the old size."""
    rows, columns = _grid(pixels)
    share = 1.0 - 0.55 * severity
    height, width = pixels.shape[:2]
    # The point keeps its place, so the window is inside the picture.
    row, column = rng.uniform(0.3, 0.7, 2) * (height - 1, width - 1)
    return _sampled(pixels, row + (rows - row) * share, column + (columns - column) * share)


def _rotate(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Up to 40 degrees about the middle, either way."""
    rows, columns = _grid(pixels)
    angle = np.deg2rad(40.0 * severity) * rng.choice((-1.0, 1.0))
    middle_row, middle_column = (pixels.shape[0] - 1) / 2, (pixels.shape[1] - 1) / 2
    up, across = rows - middle_row, columns - middle_column
    return _sampled(
        pixels,
        middle_row + up * np.cos(angle) - across * np.sin(angle),
        middle_column + up * np.sin(angle) + across * np.cos(angle),
    )


def _shift(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Up to 0.3 of the longer side, in any direction."""
    rows, columns = _grid(pixels)
    direction = rng.uniform(0.0, 2.0 * np.pi)
    length = 0.3 * severity * max(pixels.shape[:2])
    return _sampled(pixels, rows + length * np.sin(direction), columns + length * np.cos(direction))


def _blur(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Gaussian, sigma up to 0.04 of the longer side."""
    sigma = 0.04 * severity * max(pixels.shape[:2])
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def _jpeg(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001
    """Compressed at quality 50 down to 2."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=round(50.0 - 48.0 * severity))
    return np.array(Image.open(buffer).convert("RGB"))


def _noise(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Gaussian, sigma up to 80 of 255, each channel for itself."""
    return _rounded(pixels + 80.0 * severity * rng.standard_normal(pixels.shape))


def _colour(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Hue by up to a third of a turn, and brightness by up to half, either way."""
    turn, light = rng.choice((-1.0, 1.0), 2)
    hsv = np.array(Image.fromarray(pixels).convert("HSV"))
    hsv[..., 0] += np.uint8(round(turn * severity * 85.0) % 256)  # wraps around, as a hue does
    turned = np.array(Image.fromarray(hsv, "HSV").convert("RGB"), dtype=np.float64)
    return _rounded(turned * (1.0 + 0.5 * light * severity))


def _occlusion(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """A box of one colour, up to 0.6 of each side."""
    height, width = pixels.shape[:2]
    row, column = rng.uniform(0.3, 0.7, 2) * (height, width)
    colour = rng.integers(0, 256, 3, dtype=np.uint8)
    half = 0.3 * severity
    out = pixels.copy()
    top, bottom = round(row - half * height), round(row + half * height)
    left, right = round(column - half * width), round(column + half * width)
    out[max(0, top) : bottom, max(0, left) : right] = colour
    return out


def _warp(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Bent by a smooth field of 6 x 6 random knots, up to about 0.1 of the longer side."""
    rows, columns = _grid(pixels)
    height, width = pixels.shape[:2]
    bends: list[_Field] = []
    for _ in range(2):
        knots = Image.fromarray(rng.uniform(-1.0, 1.0, (6, 6)).astype(np.float32))
        field = np.array(knots.resize((width, height), Image.Resampling.BICUBIC), np.float64)
        bends.append(0.1 * severity * max(height, width) * field)
    return _sampled(pixels, rows + bends[0], columns + bends[1])


def _grid(pixels: Pixels) -> tuple[_Field, _Field]:
    """Row and column of each pixel."""
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    return rows, columns


def _sampled(pixels: Pixels, rows: _Field, columns: _Field) -> Pixels:
    """The picture read at these places, bilinear; beyond its edge the edge goes on."""
    height, width = pixels.shape[:2]
    rows, columns = np.clip(rows, 0.0, height - 1.0), np.clip(columns, 0.0, width - 1.0)
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    upper = pixels[top, left] * (1.0 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1.0 - across) + pixels[bottom, right] * across
    return _rounded(upper * (1.0 - down) + lower * down)


def _rounded(values: Float64[np.ndarray, "_H _W 3"]) -> Pixels:
    return np.clip(np.rint(values), 0.0, 255.0).astype(np.uint8)


_ALL: tuple[_Distortion, ...] = (
    _zoom, _rotate, _shift, _blur, _jpeg, _noise, _colour, _occlusion, _warp
)  # fmt: skip
_DISTORTIONS = {one.__name__.removeprefix("_"): one for one in _ALL}
FAMILIES: tuple[str, ...] = tuple(_DISTORTIONS)
