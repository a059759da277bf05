"""Bytes of an image file in, upright uint8 RGB pixels out: the one decode policy, versioned."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from model.errors import (
    EmptyImageError,
    ImageBytesError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageSizeError,
)

DECODE_POLICY_VERSION = "lipsim-decode-1"


@dataclass(frozen=True)
class DecodeLimits:
    """What an image may be before it is decoded."""

    max_image_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    formats: frozenset[str] = frozenset({"JPEG", "PNG", "WEBP", "AVIF", "GIF"})


@dataclass(frozen=True)
class DecodedImage:
    """An upright picture: uint8 RGB pixels (H, W, 3) and the name of the format they came in."""

    pixels: UInt8[np.ndarray, "H W 3"]
    format: str

    @property
    def height(self) -> int:
        """Number of pixel rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Number of pixel columns."""
        return self.pixels.shape[1]


def decode_image(data: bytes, limits: DecodeLimits = DecodeLimits()) -> DecodedImage:  # noqa: B008
    """Decode an image file of an allowed format."""
    if not data:
        raise EmptyImageError("an image was wanted, 0 bytes came")
    if len(data) > limits.max_image_bytes:
        raise ImageBytesError(
            f"at most {limits.max_image_bytes} bytes are accepted, {len(data)} came"
        )
    try:
        with Image.open(io.BytesIO(data), formats=sorted(limits.formats)) as image:
            if max(image.size) > limits.max_side or np.prod(image.size) > limits.max_pixels:
                raise ImageSizeError(f"the image is too large: {image.size}")
            name = "JPEG" if image.format == "MPO" else str(image.format)
            upright = ImageOps.exif_transpose(image).convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            pixels = np.ascontiguousarray(Image.alpha_composite(white, upright).convert("RGB"))
    except ImageError:
        raise
    except Image.UnidentifiedImageError as exc:
        raise ImageFormatError("the content is not of an accepted format") from exc
    except Exception as exc:
        raise ImageDecodeError("the image is truncated or damaged") from exc
    return DecodedImage(pixels, name)
