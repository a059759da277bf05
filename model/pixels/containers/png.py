"""PNG files taken apart: every checksum, the first picture, and whether its rows are all there."""

import struct
import zlib
from dataclasses import dataclass

from PIL import Image

from model.errors import ImageDecodeError
from model.pixels.containers.container import Container, exif_orientation, next_block

_ADAM7 = (  # First column, first row, column step, row step of each pass.
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@dataclass(frozen=True)
class PngFile(Container):
    """A PNG; a stream that ends between two rows decodes silently, the rest being zero.

    Attributes:
        deflated: the compressed rows.
        inflated_bytes: how long they must be when inflated.
        is_interlaced: the rows come in seven passes, so a cut shows in any row.
    """

    deflated: bytes = b""
    inflated_bytes: int = 0
    is_interlaced: bool = False

    def is_whole(self, image: Image.Image) -> bool:
        """Counts the rows, unless the last one is there to see."""
        width, height = image.size
        if not self.is_interlaced and any(image.crop((0, height - 1, width, height)).tobytes()):
            return True
        return _inflates_to(self.deflated, self.inflated_bytes)


def read_png(data: bytes) -> PngFile:
    """Check every chunk's checksum; keep header, palette, palette transparency and picture data."""
    chunks: dict[bytes, bytes] = {}
    picture: list[bytes] = []
    position, count, kind = 8, 0, b""
    while kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + size)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise ImageDecodeError("a PNG chunk does not match its checksum")
        position, count = position + 12 + size, next_block(count)
        if kind == b"IDAT":
            picture.append(body)
        elif kind in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IEND"):
            chunks.setdefault(kind, body)
        elif not kind[0] & 32:
            raise ImageDecodeError("a PNG chunk that must be understood is unknown")
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13 or not picture:
        raise ImageDecodeError("a PNG with a header and picture data was wanted, one is missing")
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if color == 3 and not chunks.get(b"PLTE"):
        raise ImageDecodeError("a PNG palette was wanted, none came")
    kept = [(b"IHDR", header)]
    if color == 3:
        kept += [(kind, chunks[kind]) for kind in (b"PLTE", b"tRNS") if kind in chunks]
    deflated = b"".join(picture)
    kept += [(b"IDAT", deflated), (b"IEND", b"")]
    file = data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in kept
    )
    key = _color_key(chunks.get(b"tRNS", b""), depth, color)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 0)
    return PngFile(
        width,
        height,
        file,
        exif_orientation(chunks.get(b"eXIf", b"")),
        key,
        deflated=deflated,
        inflated_bytes=_inflated_bytes(width, height, bits, is_interlaced=bool(interlace)),
        is_interlaced=bool(interlace),
    )


def _inflated_bytes(width: int, height: int, bits: int, *, is_interlaced: bool) -> int:
    """Length of all rows, each with its filter byte; interlaced, of the seven reduced pictures."""
    passes = _ADAM7 if is_interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _inflates_to(deflated: bytes, size: int) -> bool:
    """Whether a zlib stream holds at least so many bytes; never more than 1 MiB at a time."""
    stream = zlib.decompressobj()
    piece = stream.decompress(deflated, 1 << 20)
    while piece:
        size -= len(piece)
        if size <= 0:
            return True
        piece = stream.decompress(stream.unconsumed_tail, 1 << 20)
    return size <= 0


def _color_key(key: bytes, depth: int, color: int) -> tuple[int, ...] | None:
    """The transparent value at 8 bits; none at 16 bits, where the decoder drops the low bytes."""
    channels = {0: 1, 2: 3}.get(color, 0)
    if depth > 8 or not channels or len(key) < 2 * channels:
        return None
    values = struct.unpack_from(f">{channels}H", key)
    return tuple((value & (2**depth - 1)) * 255 // (2**depth - 1) for value in values)
