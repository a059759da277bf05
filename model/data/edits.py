"""The twelve kinds of edits that copies of a picture go through: what a copy detector must survive.

Evaluation makes its queries with them, calibration its pairs, and training its views. Sizes are
shares of the picture's longer side, so a thumbnail and its original are edited alike.
"""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageEnhance, ImageFilter

from model.pixels.views import border_colour

Pixels = UInt8[np.ndarray, "_ _ 3"]

_Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def edit(pixels: Pixels, kind: str, rng: np.random.Generator) -> Pixels:
    """An edited copy of a picture.

    `rng` draws the strength; the same state gives the same copy.

    The size differs after `resize`, `crop` and some `mixed` ones.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in _EDITS:
        raise ValueError(f"kind must be one of {', '.join(EDIT_KINDS)}, got {kind!r:.40}")
    return np.array(_EDITS[kind](Image.fromarray(pixels), rng), dtype=np.uint8)


def query_of(pixels: Pixels, kind: str, *, seed: int, number: int) -> Pixels:
    """The edited copy of the picture with this number: the same for every metric and task."""
    return edit(pixels, kind, np.random.default_rng([seed, number, EDIT_KINDS.index(kind)]))


def query_kinds(index: int, count: int = 2) -> tuple[str, ...]:
    """The kinds, up to twelve, that the picture at this place of an evaluation set is queried with.

    Over any 132 pictures in a row each ordered pair of kinds comes first once, so kinds are
    balanced.
    """
    kinds = len(EDIT_KINDS)
    first = index % kinds
    second = first + 1 + index // kinds % (kinds - 1)
    others = (place % kinds for place in range(second, second + kinds))
    places = [first, *(place for place in others if place != first)]
    return tuple(EDIT_KINDS[place] for place in places[:count])


def _jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Compressed at quality 8 to 40."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(8, 41)))
    return Image.open(buffer).convert("RGB")


def _resize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Scaled to 11 to 28 % of its size."""
    scale = rng.uniform(0.11, 0.28)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A window of 70 to 92 % of each side, anywhere."""
    scale = rng.uniform(0.70, 0.92)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _colour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation by 0.6 to 1.5, and hue by up to 18 degrees."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(rng.uniform(0.6, 1.5))
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(rng.integers(-13, 14) % 256)  # wraps around, as a hue does
    return Image.fromarray(hsv, "HSV").convert("RGB")


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian blur of 0.8 to 2 % of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.008, 0.02) * max(image.size)))


def _noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise of 15 to 45 levels at 256 pixels, as much per area at other sizes."""
    sigma = rng.uniform(15.0, 45.0) * max(image.size) / 256.0
    values = np.asarray(image) + rng.normal(0.0, sigma, (image.height, image.width, 3))
    return _from_levels(values)


def _rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by 4 to 15 degrees either way; the corners take the border's mean colour."""
    angle = rng.uniform(4.0, 15.0) * rng.choice([-1.0, 1.0])
    return image.rotate(
        angle, Image.Resampling.BILINEAR, fillcolor=border_colour(np.asarray(image))
    )


def _overlay(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One to three opaque boxes, each of 10 to 35 % of the sides."""
    image = image.copy()
    for _ in range(int(rng.integers(1, 4))):
        width = max(1, round(image.width * rng.uniform(0.10, 0.35)))
        height = max(1, round(image.height * rng.uniform(0.10, 0.35)))
        left = int(rng.integers(0, image.width - width + 1))
        top = int(rng.integers(0, image.height - height + 1))
        red, green, blue = (int(level) for level in rng.integers(0, 256, 3))
        image.paste((red, green, blue), (left, top, left + width, top + height))
    return image


def _gray(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Without colour."""
    return image.convert("L").convert("RGB")


def _gamma(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gamma of 0.5 to 2."""
    exponent = 2.0 ** rng.uniform(-1.0, 1.0)
    return _from_levels(255.0 * (np.asarray(image) / 255.0) ** exponent)


def _shift(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Moved by 5 to 12 % along both axes; the border's mean colour moves in."""
    by = [
        round(side * rng.uniform(0.05, 0.12) * rng.choice([-1.0, 1.0]))
        for side in (image.width, image.height)
    ]
    moved = Image.new("RGB", image.size, border_colour(np.asarray(image)))
    moved.paste(image, (by[0], by[1]))
    return moved


def _mixed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Three other kinds, one after the other."""
    for place in rng.choice(len(_SINGLE), size=3, replace=False):
        image = _EDITS[_SINGLE[int(place)]](image, rng)
    return image


def _from_levels(values: Float[np.ndarray, "H W 3"]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


_EDITS: dict[str, _Edit] = {
    "jpeg": _jpeg,
    "resize": _resize,
    "crop": _crop,
    "colour": _colour,
    "blur": _blur,
    "noise": _noise,
    "rotate": _rotate,
    "overlay": _overlay,
    "gray": _gray,
    "gamma": _gamma,
    "shift": _shift,
    "mixed": _mixed,
}

EDIT_KINDS: tuple[str, ...] = tuple(_EDITS)
_SINGLE = EDIT_KINDS[:-1]
