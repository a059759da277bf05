"""A decode process: `python -m service.decoding.worker`, image files in, network inputs out.

It imports neither torch nor FAISS, so it starts in half a second and holds 45 MB. Its memory is
bounded by the kernel, it writes no file, and it ends when the service does, since its input ends.
"""

import contextlib
import fcntl
import hashlib
import json
import resource
import sys
from dataclasses import asdict
from typing import Any

from model.errors import DependencyError, ImageDecodeError, ImageError
from model.pixels.decode import DecodeLimits, decode_image
from model.pixels.network_input import network_input
from model.pixels.trim import find_trim
from service.decoding.protocol import (
    Question,
    pack_error,
    pack_image,
    pack_setup_error,
)
from service.decoding.query_image import QueryImage

# Pillow draws in up to 4 bytes a pixel, the rules of the decode policy copy that up to three times,
# and 16-bit values take twice as much; the rest is for Python, numpy and the file itself.
_BYTES_PER_PIXEL = 40
_BYTES_BESIDE = 1 << 30

# As much as Linux gives without privileges.
_PIPE_BYTES = 1 << 20


def limits_as_json(limits: DecodeLimits, size: int) -> str:
    """The one argument of a decode process."""
    return json.dumps({**asdict(limits), "formats": sorted(limits.formats), "size": size})


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    size = int(given.pop("size"))
    formats = frozenset[str](given.pop("formats"))
    refusal = None
    try:
        limits = DecodeLimits(**given, formats=formats)
        _bound_resources(limits)
    except (DependencyError, ImportError) as error:
        # PYTHONPATH is not handed on: what the service finds may be missing here.
        refusal = pack_setup_error(
            f"a decode process cannot decode {', '.join(sorted(formats))}: "
            f"{type(error).__name__}: {error}"
        )
        limits = DecodeLimits()
    _widen_pipes()
    # Kept from libraries: a stray print would be read as an answer.
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while (question := Question.read(sys.stdin.buffer)) is not None:
        answers.write(refusal or _answer(question, limits, size))
        answers.flush()


def _answer(question: Question, limits: DecodeLimits, size: int) -> bytes:
    try:
        image = decode_image(question.data, limits)
        found = QueryImage(
            format=image.format,
            is_truncated=image.is_truncated,
            input=network_input(image, size),
        )
        if question.wants_pixels:
            found.pixels_sha256 = hashlib.sha256(image.pixels.tobytes()).hexdigest()
        if question.wants_image:
            found.pixels = image.pixels
        if question.wants_trim:
            found.trim = find_trim(image.pixels)
            box = found.trim.box
            if box != (0, 0, image.width, image.height):
                found.crop = QueryImage(image.format, network_input(image, size, box))
        return pack_image(found)
    except ImageError as error:
        return pack_error(error)
    except MemoryError:
        return pack_error(ImageDecodeError("the image takes more memory to decode than is allowed"))


def memory_bound(limits: DecodeLimits) -> int:
    """Bytes of address space that a decode process may take."""
    return _BYTES_BESIDE + memory_of_one_image(limits)


def memory_of_one_image(limits: DecodeLimits) -> int:
    """The part of that bound which is meant for the file and its pixels."""
    return _BYTES_PER_PIXEL * limits.max_pixels + 4 * limits.max_image_bytes


def _bound_resources(limits: DecodeLimits) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, memory_bound(limits)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _widen_pipes() -> None:
    """Let the pipes hold a whole prepared image; through 64 KiB each piece of it wakes both sides.

    Only Linux can; elsewhere, and where a user has too many of them, they stay as they are.
    """
    if sys.platform == "linux":
        for stream in (sys.stdin, sys.stdout):
            with contextlib.suppress(OSError):
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


if __name__ == "__main__":
    main()
