"""What the service and its decode processes say to each other: lengths, JSON and raw arrays.

A question is a length, three flags and the bytes of an image file. An answer is two lengths, a JSON
header and the bytes of an array, or of two where the image has borders to trim, followed by the
decoded pixels where they are wanted. Nothing that is read can run code, on either side: a decode
process that an image has taken over can answer wrongly about images, and no more.
"""

import json
import math
import struct
from operator import index
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float64

from model.errors import (
    DependencyError,
    EmptyImageError,
    ImageBytesError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageSizeError,
)
from model.pixels.network_input import NetworkInput
from model.pixels.trim import Box, Trim
from service.decoding.query_image import QueryImage

_QUESTION = struct.Struct("<Q???")
ANSWER = struct.Struct("<IQ")

MAX_HEADER_BYTES = 4096

_ERRORS: dict[str, type[ImageError]] = {
    kind.__name__: kind
    for kind in (
        EmptyImageError,
        ImageBytesError,
        ImageDecodeError,
        ImageError,
        ImageFormatError,
        ImageSizeError,
    )
}


class Question(NamedTuple):
    """An image file, and what else is wanted of it: its hash of pixels, its box, the pixels."""

    data: bytes
    wants_pixels: bool = False
    wants_trim: bool = False
    wants_image: bool = False

    @property
    def head(self) -> bytes:
        """What goes before the file."""
        return _QUESTION.pack(len(self.data), *self[1:])

    @classmethod
    def read(cls, stream: BinaryIO) -> "Question | None":
        """The next one; None where the stream has ended."""
        head = stream.read(_QUESTION.size)
        if len(head) < _QUESTION.size:
            return None
        length, *wants = _QUESTION.unpack(head)
        data = stream.read(length)
        return cls(data, *wants) if len(data) == length else None


def pack_image(image: QueryImage) -> bytes:
    given = image.input
    assert given is not None  # noqa: S101 - it was decoded just now.
    says: dict[str, object] = {
        "pixels_sha256": image.pixels_sha256,
        "format": image.format,
        "is_truncated": image.is_truncated,
        "height": given.height,
        "width": given.width,
        "trim": image.trim,
        **_bounds(given),
    }
    arrays = [_array(given)]
    if image.crop is not None and image.crop.input is not None:
        says["crop"] = _bounds(image.crop.input)
        arrays.append(_array(image.crop.input))
    if image.pixels is not None:
        arrays.append(np.ascontiguousarray(image.pixels).data)
    return _pack(says, *arrays)


def _bounds(given: NetworkInput) -> dict[str, object]:
    return {"gain": given.gain, "input_error": given.input_error}


def _array(given: NetworkInput) -> memoryview:
    return np.ascontiguousarray(given.values, "<f8").data


def pack_error(error: ImageError) -> bytes:
    kind = type(error).__name__ if type(error).__name__ in _ERRORS else "ImageError"
    return _pack({"error": kind, "message": str(error)[:1000]})


def pack_setup_error(problem: str) -> bytes:
    return _pack({"cannot_start": problem[:1000]})


def unpack(
    header: bytes,
    array: bytes | bytearray,
    size: int,
    *,
    wants_trim: bool = False,
    wants_image: bool = False,
) -> QueryImage:
    """The image of an answer, ready for the network.

    Args:
        header: its JSON.
        array: its float64 values, and the pixels after them.
        size: side of the network's square.
        wants_trim: it was to be trimmed too.
        wants_image: it was to bring its pixels.

    Raises:
        ImageError: the answer says that the image cannot be used.
        DependencyError: the process lacks a library.
        ValueError: it is no answer of ours.
    """
    says: dict[str, Any] = json.loads(header)
    if "cannot_start" in says:
        raise DependencyError(says["cannot_start"])
    if "error" in says:
        raise _ERRORS[says["error"]](says["message"])
    length = len(array) - (3 * says["height"] * says["width"] if wants_image else 0)
    values = np.frombuffer(memoryview(array)[:length], "<f8").reshape(
        1 + ("crop" in says), 3, size, size
    )
    image = QueryImage(says["format"], _input(values[0], says, says), says["pixels_sha256"])
    image.is_truncated = says["is_truncated"] is True
    if wants_image:
        pixels = np.frombuffer(array, np.uint8, offset=length)
        image.pixels = pixels.reshape(says["height"], says["width"], 3)
    if wants_trim:
        image.trim = _trim(says)
        if image.trim.box != (0, 0, says["width"], says["height"]):
            bounds = says["crop"]
            image.crop = QueryImage(image.format, _input(values[1], bounds, says))
    return image


def _input(
    values: Float64[np.ndarray, "3 S S"], bounds: dict[str, Any], says: dict[str, Any]
) -> NetworkInput:
    # JSON writes a float64 with all the digits that it takes to read the same one back.
    gain, error = bounds["gain"], bounds["input_error"]
    if not all(isinstance(bound, float) and 0.0 < bound < math.inf for bound in (gain, error)):
        # These divide and shorten radii: no number is better than a wrong one.
        raise ValueError("an answer of a decode process has bounds that are no numbers")
    return NetworkInput(values, gain, error, says["height"], says["width"])


def _trim(says: dict[str, Any]) -> Trim:
    sides, radius = says["trim"]
    left, top, right, bottom = map(index, sides)
    if not (0 <= left < right <= says["width"] and 0 <= top < bottom <= says["height"]):
        raise ValueError("an answer of a decode process has a box outside the picture")
    if not (isinstance(radius, float) and radius >= 0.0):
        raise ValueError("an answer of a decode process has a trim radius that is no number")
    return Trim(Box(left, top, right, bottom), radius)


def _pack(header: dict[str, object], *arrays: memoryview) -> bytes:
    text = json.dumps(header).encode()
    head = ANSWER.pack(len(text), sum(array.nbytes for array in arrays))
    return b"".join((head, text, *arrays))
