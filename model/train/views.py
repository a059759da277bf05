# pyright: basic
# numpy's types of where and mod are not known to the checker.
"""The two views of a picture that the published distillation shows, in plain numpy.

View 1 is the picture, perhaps mirrored. View 2 is mirrored by its own draw, jittered in colour and
sometimes gray. The operations are the usual ones (torchvision's definitions, which we do not need
for four formulas), on values in [0, 1] and without the rounding to 8 bits in between.

Source: Ghazanfari et al. 2024, arXiv:2310.18274, and its code.
"""

import numpy as np
from jaxtyping import Float32, UInt8

from model.pixels.resize import resize_operator

Pixels = UInt8[np.ndarray, "_h _w 3"]
View = Float32[np.ndarray, "3 S S"]

_LUMA = np.array([0.2989, 0.587, 0.114], dtype=np.float32)[:, None, None]
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.4, 0.4, 0.2, 0.1
_JITTER_SHARE, _GRAY_SHARE, _MIRROR_SHARE = 0.8, 0.2, 0.5


def two_views(
    pixels: Pixels, size: int, framing: str, rng: np.random.Generator
) -> tuple[View, View]:
    """View 1, which the teacher sees, and view 2, each (3, size, size) in [0, 1].

    Args:
        pixels: the picture.
        size: side of the views.
        framing: how the picture becomes square: see `framed`.
        rng: draws the mirrorings and the jitter; the same state gives the same views.
    """
    whole = framed(pixels, size, framing)
    plain, edited = _mirrored(whole, rng), _mirrored(whole, rng)
    if rng.random() < _JITTER_SHARE:
        edited = colour_jitter(edited, rng)
    if rng.random() < _GRAY_SHARE:
        edited = np.broadcast_to(_gray(edited), edited.shape)
    return np.ascontiguousarray(plain), np.ascontiguousarray(edited)


def framed(pixels: Pixels, size: int, framing: str) -> View:
    """A picture as a square in [0, 1], (3, size, size).

    "center-crop" cuts the middle out of the picture as it is, black around a smaller one; this is
    the published form. "resize" squashes the whole picture by the resize that serving uses.
    """
    if framing == "center-crop":
        return (_center_crop(pixels, size).astype(np.float32) / np.float32(255)).transpose(2, 0, 1)
    resize = resize_operator(pixels.shape[0], pixels.shape[1], size)
    return resize.apply(pixels).astype(np.float32)


def colour_jitter(view: View, rng: np.random.Generator) -> View:
    """Brightness, contrast, saturation and hue by random amounts, in random order.

    Factors are uniform in [0.6, 1.4], [0.6, 1.4] and [0.8, 1.2], the hue's turn in [-0.1, 0.1].
    """
    brightness, contrast, saturation = (
        np.float32(1.0 + rng.uniform(-spread, spread))
        for spread in (_BRIGHTNESS, _CONTRAST, _SATURATION)
    )
    turn = rng.uniform(-_HUE, _HUE)
    for operation in rng.permutation(4):
        if operation == 0:
            view = np.clip(view * brightness, 0, 1)
        elif operation == 1:
            view = _blend(view, _gray(view).mean(dtype=np.float32), contrast)
        elif operation == 2:
            view = _blend(view, _gray(view), saturation)
        else:
            view = turn_hue(view, turn)
    return view


def turn_hue(view: View, turn: float) -> View:
    """The picture with its hue moved on by a share of the circle; value and saturation stay.

    The hue's sixths are h, and a channel is v - c max(0, min(k, 4 - k, 1)) with chroma c and
    k = (n + h) mod 6, n = 5, 3, 1 for red, green, blue.

    Source: Smith 1978, "Color gamut transform pairs".
    """
    red, green, blue = view
    value = view.max(axis=0)
    chroma = value - view.min(axis=0)
    safe = np.where(chroma > 0, chroma, np.float32(1))
    below_green = np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    sixths = np.where(value == red, (green - blue) / safe, below_green)
    offsets = np.array([5, 3, 1], dtype=np.float32)[:, None, None]
    k = np.mod(offsets + sixths + np.float32(6 * turn), np.float32(6))
    moved = value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.clip(moved, 0, 1).astype(np.float32)


def _center_crop(pixels: Pixels, size: int) -> Pixels:
    """The middle square; where the picture is smaller, black is put around it first."""
    height, width = pixels.shape[:2]
    short = (max(0, size - height), max(0, size - width))
    if any(short):
        around = [(missing // 2, (missing + 1) // 2) for missing in short]
        pixels = np.pad(pixels, [*around, (0, 0)])
        height, width = pixels.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]


def _mirrored(view: View, rng: np.random.Generator) -> View:
    """Left for right, half of the time."""
    return view[:, :, ::-1] if rng.random() < _MIRROR_SHARE else view


def _gray(view: View) -> Float32[np.ndarray, "1 S S"]:
    """Its luma."""
    return (view * _LUMA).sum(axis=0, keepdims=True, dtype=np.float32)


def _blend(view: View, other: np.ndarray | np.float32, factor: np.float32) -> View:
    """A mixture: of the view by the factor, of the other by what is left to 1."""
    return np.clip(factor * view + (1 - factor) * other, 0, 1)
