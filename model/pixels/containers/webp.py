"""WebP files taken apart: the sides and the orientation of a file that is whole."""

import struct

from model.errors import ImageDecodeError
from model.pixels.containers.container import Container, exif_orientation, next_block, truncated


def read_webp(data: bytes) -> Container:
    """Walk the RIFF chunks; the sides stand in the first one."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise truncated("WebP")
    orientation, sides, position, count = 1, None, 12, 0
    while position + 8 <= end:
        count = next_block(count)
        kind, size = struct.unpack_from("<4sI", data, position)
        if position + 8 + size > end:
            raise truncated("WebP")
        if sides is None:
            sides = _sides(kind, data[position + 8 : position + 18])
        if kind == b"EXIF":
            orientation = exif_orientation(data[position + 8 : position + 8 + size])
        position += 8 + size + (size & 1)
    if sides is None:
        raise truncated("WebP")
    return Container(*sides, data[:end], orientation)


def _sides(kind: bytes, body: bytes) -> tuple[int, int]:
    if kind == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and body[:1] == b"\x2f":
        bits = struct.unpack_from("<I", body, 1)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise ImageDecodeError("a WebP picture was wanted, its first chunk is none")
