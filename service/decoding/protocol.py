"""What the service and its decode processes say to each other: lengths, JSON and raw arrays.

A question is a length, a flag and the bytes of an image file. An answer is two lengths, a JSON
header and the bytes of an array. Nothing that is read can run code, on either side: a decode
process that an image has taken over can answer wrongly about images, and no more.
"""

import json
import math
import struct
from typing import Any

import numpy as np

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
from service.decoding.query_image import QueryImage

QUESTION = struct.Struct("<Q?")
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


def pack_image(image: QueryImage) -> bytes:
    given = image.input
    assert given is not None  # noqa: S101 - it was decoded just now.
    return _pack(
        {
            "pixels_sha256": image.pixels_sha256,
            "format": image.format,
            "is_truncated": image.is_truncated,
            "gain": given.gain,
            "input_error": given.input_error,
            "height": given.height,
            "width": given.width,
        },
        given.values.astype("<f8", copy=False).tobytes(),
    )


def pack_error(error: ImageError) -> bytes:
    kind = type(error).__name__ if type(error).__name__ in _ERRORS else "ImageError"
    return _pack({"error": kind, "message": str(error)[:1000]}, b"")


def pack_setup_error(problem: str) -> bytes:
    return _pack({"cannot_start": problem[:1000]}, b"")


def unpack(header: bytes, array: bytes, size: int) -> QueryImage:
    """The image of an answer, ready for the network.

    Args:
        header: its JSON.
        array: its float64 values.
        size: side of the network's square.

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
    # JSON writes a float64 with all the digits that it takes to read the same one back.
    values = np.frombuffer(array, "<f8").reshape(3, size, size)
    bounds = (says["gain"], says["input_error"])
    if not all(isinstance(bound, float) and 0.0 < bound < math.inf for bound in bounds):
        # These divide and shorten radii: no number is better than a wrong one.
        raise ValueError("an answer of a decode process has bounds that are no numbers")
    given = NetworkInput(values, says["gain"], says["input_error"], says["height"], says["width"])
    is_truncated = says["is_truncated"] is True
    return QueryImage(says["format"], given, says["pixels_sha256"], is_truncated)


def _pack(header: dict[str, object], array: bytes) -> bytes:
    text = json.dumps(header).encode()
    return ANSWER.pack(len(text), len(array)) + text + array
