"""Edits that are looked at picture by picture: JPEG and a smaller size, from mild to harsh."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from model.pixels.decode import MOST_PIXELS, DecodeLimits, decode_image

Pixels = UInt8[np.ndarray, "H W 3"]

MOST_MEASURED_PIXELS = 4_000_000
_LONGEST_JPEG_SIDE = 65_500
_OWN_FILES = DecodeLimits(1 << 30, MOST_PIXELS, _LONGEST_JPEG_SIDE, frozenset({"JPEG"}))


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """The picture as Pillow writes it in JPEG, 4:2:0, and the decode policy reads it back."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return decode_image(file.getvalue(), _OWN_FILES).pixels


def resized(pixels: Pixels, width: int) -> Pixels:
    """The picture at another width, its height in proportion, and back, bicubic by Pillow."""
    picture = Image.fromarray(pixels)
    small = width, max(1, round(picture.height * width / picture.width))
    bicubic = Image.Resampling.BICUBIC
    return np.asarray(picture.resize(small, bicubic).resize(picture.size, bicubic))


@dataclass(frozen=True)
class PictureFamily:
    """One family.

    Attributes:
        unit: what the parameter is.
        edit: a picture and a parameter, to the picture's member.
        identity: the parameter that changes nothing, of a picture of this width; None: none does.
        mildest: the first parameter to look at, of a picture of this width; they go down to 1.
    """

    unit: str
    edit: Callable[[Pixels, int], Pixels]
    identity: Callable[[int], int | None]
    mildest: Callable[[int], int]

    def members(self, pixels: Pixels) -> Iterator[tuple[int, Pixels]]:
        """Parameters and pictures, from the mildest on."""
        for parameter in range(self.mildest(pixels.shape[1]), 0, -1):
            yield parameter, self.edit(pixels, parameter)


PICTURE_FAMILIES = {
    "jpeg": PictureFamily("quality", jpeg, lambda _: None, lambda _: 100),
    "resize": PictureFamily("pixels wide", resized, lambda width: width, lambda width: width - 1),
}


def is_measurable(pixels: Pixels) -> bool:
    """Whether a picture is small enough for these families."""
    height, width = pixels.shape[:2]
    return height * width <= MOST_MEASURED_PIXELS and max(height, width) <= _LONGEST_JPEG_SIDE
