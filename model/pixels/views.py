"""Views of a gallery picture: the fixed changes that people make to a copy, embedded beside it.

A view is a window on the picture, then mirrored or turned, or the picture rotated a little. Only
the gallery is seen so; a query is one embedding, or its radii would be halved. A view's name is in
indexes and answers: a window that changes needs a new name.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from model.pixels.trim import find_trim

WHITE = 255


class View(NamedTuple):
    """A window on a picture, in shares of its width and height, then what is done to it.

    Attributes:
        left, top, right, bottom: of the window.
        is_mirrored: left and right change places.
        quarter_turns: anticlockwise, after that.
        is_continued: what lies beyond the picture, where the window is outside [0, 1], has the
            colour of its border; else it is white, as a page is.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    is_mirrored: bool = False
    quarter_turns: int = 0
    is_continued: bool = False

    def of(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture so seen, at least one pixel of it; the picture itself is not copied."""
        height, width = pixels.shape[:2]
        left, right = _ends(self.left, self.right, width)
        top, bottom = _ends(self.top, self.bottom, height)
        inside = pixels[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        seen = inside
        if inside.shape[:2] != (bottom - top, right - left):
            seen = np.empty((bottom - top, right - left, 3), np.uint8)
            seen[:] = border_colour(pixels) if self.is_continued else WHITE
            down, across = max(-top, 0), max(-left, 0)
            seen[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
        if self.is_mirrored:
            seen = seen[:, ::-1]
        return np.ascontiguousarray(np.rot90(seen, self.quarter_turns))


class Rotated(NamedTuple):
    """The picture rotated about its middle, its corners cut, in what shows the border's colour.

    Attributes:
        degrees: anticlockwise.
    """

    degrees: float

    def of(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture so seen."""
        image, around = Image.fromarray(pixels), border_colour(pixels)
        return np.array(image.rotate(self.degrees, Image.Resampling.BILINEAR, fillcolor=around))


class Trimmed:
    """The picture without its uniform borders, which is the whole where it has none."""

    def of(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The picture so seen.

        Raises:
            ImageSizeError: a side is too long for `find_trim`.
        """
        return np.ascontiguousarray(find_trim(pixels).box.of(pixels))


def reduce_pixels(pixels: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """A picture by whole factors smaller, by means of blocks; no side below `side` for it."""
    factor = min(pixels.shape[:2]) // side
    if factor < 2:
        return pixels
    return np.array(Image.fromarray(pixels).reduce(factor))


def border_colour(pixels: UInt8[np.ndarray, "H W 3"]) -> tuple[int, int, int]:
    """Mean colour of the outermost pixels: the ground of a drawing, a guess for a photograph."""
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    red, green, blue = np.concatenate(edges).mean(axis=0).round()
    return int(red), int(green), int(blue)


def _ends(low: float, high: float, length: int) -> tuple[int, int]:
    """First pixel and end of a window, one pixel of the picture inside at least."""
    first = min(math.floor(low * length + 0.5), length - 1)
    return first, max(math.floor(high * length + 0.5), first + 1, 1)


def _shifted(across: float, down: float) -> View:
    return View(-across, -down, 1.0 - across, 1.0 - down, is_continued=True)


def _grown(share: float) -> View:
    """The middle share of a picture; of more than 1, the picture on a white border."""
    edge = (1.0 - share) / 2.0
    return View(edge, edge, 1.0 - edge, 1.0 - edge)


WHOLE = "whole"
_SHIFT = 0.085
AnyView = View | Rotated | Trimmed
VIEWS: Mapping[str, AnyView] = {
    WHOLE: View(),
    "move-left-up": _shifted(-_SHIFT, -_SHIFT),
    "move-right-up": _shifted(_SHIFT, -_SHIFT),
    "move-left-down": _shifted(-_SHIFT, _SHIFT),
    "move-right-down": _shifted(_SHIFT, _SHIFT),
    "middle-85": _grown(0.85),
    "middle-72": _grown(0.72),
    "corner-left-top": View(0.0, 0.0, 0.8, 0.8),
    "corner-right-top": View(0.2, 0.0, 1.0, 0.8),
    "corner-left-bottom": View(0.0, 0.2, 0.8, 1.0),
    "corner-right-bottom": View(0.2, 0.2, 1.0, 1.0),
    "border-116": _grown(1.16),
    "mirror": View(is_mirrored=True),
    "rotate-left-8": Rotated(8.0),
    "rotate-right-8": Rotated(-8.0),
    "trimmed": Trimmed(),
    "turn-90": View(quarter_turns=1),
    "turn-180": View(quarter_turns=2),
    "turn-270": View(quarter_turns=3),
}

_SHIFTS = tuple(name for name in VIEWS if name.startswith("move-"))
VIEW_SETS: Mapping[str, Sequence[str]] = {
    "none": (WHOLE,),
    "shift": (WHOLE, *_SHIFTS),
    "crop": (WHOLE, *_SHIFTS, "middle-85"),
    "mirror": (WHOLE, *_SHIFTS, "middle-85", "mirror"),
    "wide": tuple(
        name
        for name in VIEWS
        if name not in ("middle-72", "trimmed") and not name.startswith("turn-")
    ),
    "full": tuple(VIEWS),
}


DEFAULT_VIEWS = "wide"
"""The set of an index that is built anew: ADR 0025 has the measurements."""


def view_set(text: str) -> str:
    """A set's name, as an option of a command line has it.

    Raises:
        ValueError: no set is called that.
    """
    if text not in VIEW_SETS:
        raise ValueError(f"one of {', '.join(VIEW_SETS)} was wanted, got {text!r:.40}")
    return text
