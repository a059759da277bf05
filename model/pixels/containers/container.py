"""What an image file says of its first picture before anything is decoded, and shared checks.

The readers beside this file (`jpeg`, `png`, `gif`, `webp`) walk their format's outer structure and
hand on only what draws the first picture. Metadata never reaches a decoder: no text or ICC bomb is
inflated, no EXIF is interpreted but for the one number this project needs, and the sides are known
before any memory is taken for pixels. A read beyond the end surfaces as IndexError or struct.error,
which `model.pixels.decode` turns into "ends early". That module lists the readers, too.
"""

import struct
from dataclasses import dataclass

from PIL import Image

from model.errors import ImageDecodeError

_MAX_BLOCKS = 65_536  # Of any kind: a PNG of 20 MiB has about 2500 chunks.


@dataclass(frozen=True)
class Container:
    """What a file says of its first picture, before anything is decoded.

    Attributes:
        width: columns as stored, before the orientation is applied.
        height: rows as stored.
        data: a file of the same format that holds the first picture and nothing else.
        orientation: EXIF's 1..8; 1 is upright, also where EXIF is absent or unreadable.
        color_key: the 8-bit gray or RGB value that counts as transparent (PNG), or None.
        frame: left, top, right, bottom of the part that the picture covers (GIF), or None for all.
        is_cut: the file ends before its picture does, and what there is can be drawn (JPEG).
    """

    width: int
    height: int
    data: bytes
    orientation: int = 1
    color_key: tuple[int, ...] | None = None
    frame: tuple[int, int, int, int] | None = None
    is_cut: bool = False

    def is_whole(self, image: Image.Image) -> bool:  # noqa: ARG002
        """Whether all of the picture came; what the format's decoder draws tells where it does not.

        Args:
            image: `data` as decoded, loaded.
        """
        return not self.is_cut


def truncated(name: str) -> ImageDecodeError:
    """The error for a file that ends before its picture does."""
    return ImageDecodeError(f"a whole {name} file was wanted, this one ends early")


def next_block(count: int) -> int:
    """One more than count, or a refusal: a file of millions of empty blocks is an attack."""
    if count >= _MAX_BLOCKS:
        raise ImageDecodeError(f"a file of at most {_MAX_BLOCKS} blocks was wanted, more came")
    return count + 1


def exif_orientation(exif: bytes) -> int:
    """The orientation 1..8 that a block of EXIF states; 1 if it states none or cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for index in range(count):
            entry = start + 2 + 12 * index
            tag, kind, values = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == 0x0112:
                # SHORT as the standard asks, LONG as some writers do; any other type is unreadable.
                form = {3: "H", 4: "I"}.get(kind)
                if form is None or values != 1:
                    return 1
                (value,) = struct.unpack_from(order + form, tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
