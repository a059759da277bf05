# pyright: basic
# torch's types are loose.
"""The two views of a picture that the published distillation shows.

View 1 is the picture, perhaps mirrored. View 2 is mirrored by its own draw, jittered in colour and
sometimes gray. The operations are the usual ones (torchvision's definitions, which we do not need
for four formulas), on values in [0, 1] and without the rounding to 8 bits in between.

What makes a batch cuts the square and draws what is done to it; the doing is the device's, on the
whole batch: a crop of 8 bits is an eighth of two views in float32.

Source: Ghazanfari et al. 2024, arXiv:2310.18274, and its code.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from model.pixels.resize import resize_operator

Pixels = UInt8[np.ndarray, "_h _w 3"]
View = Float32[np.ndarray, "3 S S"]
Views = Float[Tensor, "B 3 S S"]

_LUMA = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.4, 0.4, 0.2, 0.1
_JITTER_SHARE, _GRAY_SHARE, _MIRROR_SHARE = 0.8, 0.2, 0.5


def draws(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What is done to one picture; the same state gives the same draws.

    Factors of brightness, contrast and saturation are uniform in [0.6, 1.4], [0.6, 1.4] and
    [0.8, 1.2], the hue's turn in [-0.1, 0.1], their order is random.

    Returns:
        mirrored: (2,), whether each view is. order: (5,), operations on view 2 by their place in
        `_OPERATIONS`, -1 for none. amounts: (5,), of each.
    """
    mirrored = rng.random(2) < _MIRROR_SHARE
    order, amounts = np.full(5, -1), np.zeros(5, dtype=np.float32)
    if rng.random() < _JITTER_SHARE:
        spreads = np.array([_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE])
        drawn = np.array([1, 1, 1, 0]) + rng.uniform(-spreads, spreads)
        order[:4] = rng.permutation(4)
        amounts[:4] = drawn[order[:4]]
    if rng.random() < _GRAY_SHARE:
        order[4] = _OPERATIONS.index(_saturated)  # by 0, which is gray
    return {"mirrored": mirrored, "order": order, "amounts": amounts}


def two_views(batch: Mapping[str, Tensor]) -> tuple[Views, Views]:
    """View 1, which the teacher sees, and view 2, in [0, 1], on the batch's device.

    Args:
        batch: `square`, (B, 3, S, S), 8 bits or in [0, 1], and what `draws` gives, a row a picture.
    """
    whole = batch["square"]
    whole = whole if whole.is_floating_point() else whole.float() / 255
    mirrored = batch["mirrored"].T[..., None, None, None]
    plain, edited = (torch.where(one, whole.flip(3), whole) for one in mirrored)
    for operations, amounts in zip(batch["order"].T, batch["amounts"].T, strict=True):
        for number, operation in enumerate(_OPERATIONS):
            rows = torch.nonzero(operations == number)[:, 0]
            if len(rows):
                edited[rows] = operation(edited[rows], amounts[rows, None, None, None])
    return plain, edited


def square(
    pixels: Pixels, size: int, framing: str
) -> UInt8[np.ndarray, "3 S S"] | Float32[np.ndarray, "3 S S"]:
    """A picture as a square, (3, size, size), of 8 bits or, where it is resized, in [0, 1].

    "center-crop" cuts the middle out of the picture as it is, black around a smaller one; this is
    the published form. "resize" squashes the whole picture by the resize that serving uses.
    """
    if framing == "center-crop":
        return _center_crop(pixels, size).transpose(2, 0, 1)
    return resize_operator(pixels.shape[0], pixels.shape[1], size).apply(pixels).astype(np.float32)


def framed(pixels: Pixels, size: int, framing: str) -> View:
    """The same square, in [0, 1] whatever the framing."""
    whole = square(pixels, size, framing)
    return whole.astype(np.float32) / np.float32(255) if whole.dtype == np.uint8 else whole


def turn_hue(views: Views, turns: Float[Tensor, "B 1 1 1"]) -> Views:
    """Pictures with their hue moved on by a share of the circle; value and saturation stay.

    The hue's sixths are h, and a channel is v - c max(0, min(k, 4 - k, 1)) with chroma c and
    k = (n + h) mod 6, n = 5, 3, 1 for red, green, blue.

    Source: Smith 1978, "Color gamut transform pairs".
    """
    red, green, blue = views.split(1, dim=1)
    value = views.amax(dim=1, keepdim=True)
    chroma = value - views.amin(dim=1, keepdim=True)
    safe = torch.where(chroma > 0, chroma, 1)
    below_green = torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    sixths = torch.where(value == red, (green - blue) / safe, below_green)
    k = (views.new_tensor([5, 3, 1])[:, None, None] + sixths + 6 * turns).remainder(6)
    return (value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)).clamp(0, 1)


def _brightened(views: Views, factors: Float[Tensor, "B 1 1 1"]) -> Views:
    return (views * factors).clamp(0, 1)


def _contrasted(views: Views, factors: Float[Tensor, "B 1 1 1"]) -> Views:
    return _blend(views, _gray(views).mean(dim=(2, 3), keepdim=True), factors)


def _saturated(views: Views, factors: Float[Tensor, "B 1 1 1"]) -> Views:
    return _blend(views, _gray(views), factors)


_OPERATIONS = (_brightened, _contrasted, _saturated, turn_hue)


def _gray(views: Views) -> Float[Tensor, "B 1 S S"]:
    """Their luma."""
    return (views * views.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)


def _blend(views: Views, other: Tensor, factors: Float[Tensor, "B 1 1 1"]) -> Views:
    """A mixture: of the views by the factors, of the other by what is left to 1."""
    return (factors * views + (1 - factors) * other).clamp(0, 1)


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
