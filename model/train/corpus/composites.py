"""Training pictures that are drawn: 1/f noise, and cut-outs pasted on noise or on photographs.

Each is a function of the seed and its number. Natural pictures have spectra that fall about as 1/f
(Field 1987), so noise of that kind is the nearest thing to a photograph that needs no licence.
"""

import hashlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from model.train.corpus.pictures import (
    TRAINING_QUALITY,
    TRAINING_SIDE,
    Prepared,
    encode,
    pixel_digest,
    thumbnail,
)

PROCEDURAL = "procedural"
COMPOSITE = "composite"
_OWN_LICENCE = "CC0-1.0"
_ASPECTS = (1.0, 1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)
_COUNTS = (0.45, 0.3, 0.15, 0.1)
_PLAIN_SHARE, _PHOTO_SHARE = 0.5, 0.25
_WHITE_SHARE = 0.7
"""Of plain canvases: drawings and product pictures mostly stand on white."""


class Material(NamedTuple):
    """WebP, with alpha if it is a cut-out; sha256 of its file, and the licence of its source."""

    image: bytes
    sha256: str
    licence: str


def draw_background(seed: int, number: int) -> Prepared:
    """A picture of noise, by its number."""
    rng = np.random.default_rng([seed, 1, number])
    width, height = _canvas(rng)
    image = Image.fromarray(noise(height, width, rng))
    return _prepared(PROCEDURAL, "texture", number, image, (), _OWN_LICENCE)


def draw_composite(
    cutouts: Sequence[Material], backgrounds: Sequence[Material], seed: int, number: int
) -> Prepared:
    """One to four cut-outs on one colour, on noise or on a part of a photograph, by its number.

    Cut-outs must not be none, backgrounds may.
    """
    rng = np.random.default_rng([seed, 2, number])
    size = _canvas(rng)
    parts: list[Material] = []
    ground = rng.random()
    if ground < _PLAIN_SHARE:
        canvas = _plain(size, rng)
    elif backgrounds and ground < _PLAIN_SHARE + _PHOTO_SHARE:
        parts.append(backgrounds[int(rng.integers(len(backgrounds)))])
        canvas = _photo_part(parts[0].image, size, rng)
    else:
        canvas = Image.fromarray(noise(size[1], size[0], rng))
    for _ in range(1 + int(rng.choice(len(_COUNTS), p=_COUNTS))):
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        parts.append(cutout)
        _paste(canvas, cutout.image, rng)
    licences = "; ".join(sorted({part.licence for part in parts}))
    digests = tuple(part.sha256 for part in parts)
    return _prepared(COMPOSITE, COMPOSITE, number, canvas, digests, licences)


def noise(height: int, width: int, rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """RGB noise whose amplitude falls as a power of the frequency, sometimes in flat steps."""
    slope = rng.uniform(0.9, 1.9)
    stretch = np.exp(rng.uniform(-0.7, 0.7))
    fields = np.stack([_field(height, width, slope, stretch, rng) for _ in range(3)], axis=2)
    # One field is the lightness of all channels; the others tint.
    tint = rng.uniform(0.0, 0.8)
    mixed = fields[..., :1] + tint * (fields @ rng.normal(0.0, 0.6, (3, 3)))
    if rng.random() < 0.3:
        steps = int(rng.integers(2, 6))
        mixed = np.round(mixed * steps / 2) * 2 / steps
    values = rng.uniform(60, 200, 3) * 0.5 + rng.uniform(60, 200) * 0.5
    pixels = values + rng.uniform(15, 60) * mixed
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _field(
    height: int, width: int, slope: float, stretch: float, rng: np.random.Generator
) -> Float64[np.ndarray, "H W"]:
    """One channel of mean 0 and variance 1."""
    y, x = np.fft.fftfreq(height)[:, None] * stretch, np.fft.rfftfreq(width)[None] / stretch
    frequency = np.maximum(np.hypot(y, x), 1.0 / max(height, width))
    white = np.fft.rfft2(rng.standard_normal((height, width)))
    white[0, 0] = 0.0
    coloured = np.fft.irfft2(white / frequency**slope, s=(height, width))
    return coloured / coloured.std()


def _canvas(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height, the longer one full."""
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    if aspect >= 1:
        return TRAINING_SIDE, round(TRAINING_SIDE / aspect)
    return round(TRAINING_SIDE * aspect), TRAINING_SIDE


def _plain(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    is_white = rng.random() < _WHITE_SHARE
    red, green, blue = (255, 255, 255) if is_white else rng.integers(0, 256, 3).tolist()
    return Image.new("RGB", size, (red, green, blue))


def _photo_part(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A part of a photograph in the canvas' shape, mirrored or not."""
    with Image.open(io.BytesIO(data)) as image:
        photo = image.convert("RGB")
    scale = min(photo.width / size[0], photo.height / size[1]) * rng.uniform(0.4, 1.0)
    width, height = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    left = int(rng.integers(photo.width - width + 1))
    top = int(rng.integers(photo.height - height + 1))
    part = photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return _mirrored(part, rng)


def _paste(canvas: Image.Image, data: bytes, rng: np.random.Generator) -> None:
    """Lay a cut-out on the canvas: any scale, mirrored or not, sometimes turned, partly outside."""
    with Image.open(io.BytesIO(data)) as image:
        cutout = _mirrored(image.convert("RGBA"), rng)
    side = rng.uniform(0.3, 1.1) * min(canvas.size)
    scale = side / max(cutout.size)
    size = (max(2, round(cutout.width * scale)), max(2, round(cutout.height * scale)))
    cutout = cutout.resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.4:
        angle = float(rng.uniform(-30, 30))
        cutout = cutout.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    places = rng.uniform(-0.25, 1.25, 2) * (np.array(canvas.size) - cutout.size)
    canvas.paste(cutout, (int(places[0]), int(places[1])), cutout)


def _mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    is_mirrored = rng.random() < 0.5
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else image


def _prepared(  # noqa: PLR0917
    source: str, kind: str, number: int, image: Image.Image, parts: tuple[str, ...], licence: str
) -> Prepared:
    """A drawn picture; its digest is that of its parts' digests, since it has no file."""
    path = f"{number:06}"
    return Prepared(
        source=source,
        path=path,
        sha256=hashlib.sha256("\n".join([source, path, *parts]).encode()).hexdigest(),
        licence=licence,
        label=None,
        kind=kind,
        split="train",
        crop=None,
        parts=parts,
        pixels_sha256=pixel_digest(np.asarray(image)),
        thumbnail=thumbnail(image),
        image=encode(image, TRAINING_QUALITY),
    )
