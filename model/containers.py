"""Image files taken apart without decoding: is the file whole, how large is it, which way is up.

Each reader walks its format's outer structure, refuses a file that ends early, and hands on only
what draws the first picture. Metadata never reaches a decoder: no text or ICC bomb is inflated, no
EXIF is interpreted but for the one number this project needs, and the sides are known before any
memory is taken for pixels. A reader raises only ImageError; its loops are bounded by the file.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from model.errors import ImageDecodeError, ImageFormatError

_MAX_BLOCKS = 65_536  # Of any kind: a PNG of 20 MiB has about 2500 chunks.
_MAX_SCANS = 64  # Each scan of a progressive JPEG walks over the whole picture; 10 are usual.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # No repetition: linear in any file.
_JPEG_REFUSED = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded",
    0xCB: "arithmetic-coded",
    0xCD: "arithmetic-coded",
    0xCE: "arithmetic-coded",
    0xCF: "arithmetic-coded",
}


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
        poisoned: a twin of `data` that decodes differently if, and only if, the coded picture ends
            early (JPEG whose scans follow each other), or None.
        is_multi_scan: the JPEG's colours come one after the other, so a cut shows in any colour.
    """

    width: int
    height: int
    data: bytes
    orientation: int = 1
    color_key: tuple[int, ...] | None = None
    frame: tuple[int, int, int, int] | None = None
    poisoned: bytes | None = None
    is_multi_scan: bool = False


def read_container(name: str, data: bytes) -> Container | None:
    """Take a file apart.

    Args:
        name: its format, as `content_format` names it.
        data: the file.

    Returns:
        The container; None for a format without a reader here.

    Raises:
        ImageDecodeError: the file is truncated or its structure is damaged.
        ImageFormatError: a variant of the format that the decode policy refuses.
    """
    reader = _READERS.get(name)
    if reader is None:
        return None
    try:
        return reader(data)
    except (IndexError, struct.error) as exc:
        raise truncated(name) from exc


def truncated(name: str) -> ImageDecodeError:
    """The error for a file that ends before its picture does."""
    return ImageDecodeError(f"a whole {name} file was wanted, this one ends early")


def _next_block(count: int) -> int:
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


def _read_jpeg(data: bytes) -> Container:
    """Keep the tables, the frame, the scans and what tells the colour space; drop the rest."""
    kept = [b"\xff\xd8"]
    orientation, frame, scans, is_progressive = 0, b"", 0, False
    missing_bits: dict[int, list[int]] = {}
    for marker, body, coded in _jpeg_segments(data):
        if marker in _JPEG_REFUSED:
            raise ImageFormatError(
                f"the content is {_JPEG_REFUSED[marker]} JPEG, which this service does not accept; "
                "send baseline or progressive JPEG"
            )
        if marker in (0xC0, 0xC1, 0xC2):
            if frame:
                raise ImageDecodeError("one JPEG frame was wanted, a second one came")
            frame, is_progressive = body, marker == 0xC2
            missing_bits = _jpeg_components(frame)
        elif marker == 0xDA:
            scans += 1
            if scans > _MAX_SCANS:
                raise ImageDecodeError(f"a JPEG of at most {_MAX_SCANS} scans was wanted")
            _note_scan(missing_bits, body, is_progressive=is_progressive)
        elif marker == 0xE1 and not orientation and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body)
        if marker in (0xE0, 0xEE) or not 0xE0 <= marker <= 0xFE:
            size = (len(body) + 2).to_bytes(2, "big")
            kept += [bytes((0xFF, marker)), size, body, coded]
    if not frame or any(bits for table in missing_bits.values() for bits in table):
        raise truncated("JPEG")
    height, width = struct.unpack_from(">HH", frame, 1)
    picture = b"".join(kept)
    return Container(
        width,
        height,
        picture + b"\xff\xd9",
        orientation or 1,
        # Bytes after a complete scan are skipped; a scan that was cut takes them for its own.
        poisoned=None if is_progressive else picture + bytes(range(1, 129)) * 4 + b"\xff\xd9",
        is_multi_scan=scans > 1,
    )


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, body and, after a scan's header, coded data of each segment up to the end marker."""
    position, count = 2, 0
    while True:
        count = _next_block(count)
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise truncated("JPEG")
        marker, position = found.group(1)[0], found.end()
        if marker == 0xD9:
            return
        if marker in (0x01, 0xD8):  # They stand alone.
            continue
        (size,) = struct.unpack_from(">H", data, position)
        body = data[position + 2 : position + size]
        if size < 2 or len(body) != size - 2:
            raise truncated("JPEG")
        position += size
        coded = b""
        if marker == 0xDA:
            found = _JPEG_MARKER.search(data, position)
            if found is None:
                raise truncated("JPEG")
            coded = data[position : _coded_end(data, position, found.start())]
            position = found.start()
        yield marker, body, coded


def _coded_end(data: bytes, start: int, end: int) -> int:
    """Where coded data ends: a restart marker at the very end restarts nothing, but hides a cut."""
    while end > start:
        if data[end - 1] == 0xFF:
            end -= 1
        elif data[end - 2] == 0xFF and 0xD0 <= data[end - 1] <= 0xD7:
            end -= 2
        else:
            break
    return max(start, end)


def _jpeg_components(frame: bytes) -> dict[int, list[int]]:
    """For each colour component, how many low bits of its 64 coefficients are still to come."""
    precision, count = frame[0], frame[5]
    if precision != 8:
        raise ImageFormatError(f"JPEG of 8 bits a sample is accepted, {precision} came")
    if count not in (1, 3, 4) or len(frame) < 6 + 3 * count:
        raise ImageDecodeError(f"a JPEG of 1, 3 or 4 components was wanted, {count} came")
    return {frame[6 + 3 * index]: [255] * 64 for index in range(count)}


def _note_scan(missing_bits: dict[int, list[int]], header: bytes, *, is_progressive: bool) -> None:
    count = header[0]
    first, last, bits = header[1 + 2 * count], header[2 + 2 * count], header[3 + 2 * count] & 15
    if not is_progressive:
        first, last, bits = 0, 63, 0
    if last > 63:
        raise ImageDecodeError(f"JPEG coefficients up to 63 were wanted, {last} came")
    for index in range(count):
        table = missing_bits.get(header[1 + 2 * index])
        if table is None:
            raise ImageDecodeError("a JPEG scan names a component that the frame does not have")
        table[first : last + 1] = [bits] * max(0, last + 1 - first)


def _read_png(data: bytes) -> Container:
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
        position, count = position + 12 + size, _next_block(count)
        if kind == b"IDAT":
            picture.append(body)
        elif kind in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IEND"):
            chunks.setdefault(kind, body)
        elif not kind[0] & 32:
            raise ImageDecodeError("a PNG chunk that must be understood is unknown")
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13 or not picture:
        raise ImageDecodeError("a PNG with a header and picture data was wanted, one is missing")
    width, height, depth, color = struct.unpack_from(">IIBB", header)
    if color == 3 and not chunks.get(b"PLTE"):
        raise ImageDecodeError("a PNG palette was wanted, none came")
    kept = [(b"IHDR", header)]
    if color == 3:
        kept += [(kind, chunks[kind]) for kind in (b"PLTE", b"tRNS") if kind in chunks]
    kept += [(b"IDAT", b"".join(picture)), (b"IEND", b"")]
    file = data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in kept
    )
    key = _png_color_key(chunks.get(b"tRNS", b""), depth, color)
    return Container(width, height, file, exif_orientation(chunks.get(b"eXIf", b"")), key)


def _png_color_key(key: bytes, depth: int, color: int) -> tuple[int, ...] | None:
    """The transparent value at 8 bits; none at 16 bits, where the decoder drops the low bytes."""
    channels = {0: 1, 2: 3}.get(color, 0)
    if depth > 8 or not channels or len(key) < 2 * channels:
        return None
    values = struct.unpack_from(f">{channels}H", key)
    return tuple((value & (2**depth - 1)) * 255 // (2**depth - 1) for value in values)


def _read_gif(data: bytes) -> Container:
    """Walk all blocks to the trailer; keep the screen, the first frame and its control block."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _gif_palette_size(flags)
    kept, control, frame, count = [data[:position]], b"", None, 0
    while (introducer := data[position]) != 0x3B:
        start, count = position, _next_block(count)
        if introducer == 0x21:
            position = _gif_blocks_end(data, position + 2)
            if data[start + 1] == 0xF9 and frame is None:
                control = data[start:position]
        elif introducer == 0x2C:
            left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, position + 1)
            position = _gif_blocks_end(data, position + 11 + _gif_palette_size(flags))
            if frame is None:
                frame = (left, top, left + columns, top + rows)
                kept += [control, data[start:position]]
        else:
            raise ImageDecodeError(f"a GIF block was wanted, byte {introducer} came")
    if frame is None:
        raise ImageDecodeError("a GIF with a frame was wanted, none came")
    if frame[0] == frame[2] or frame[1] == frame[3]:
        raise ImageDecodeError("a GIF frame with pixels was wanted, an empty one came")
    # A first frame that reaches over the screen widens it, as the decoder does.
    width, height = max(width, frame[2]), max(height, frame[3])
    return Container(width, height, b"".join(kept) + b";", frame=frame)


def _gif_palette_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _gif_blocks_end(data: bytes, position: int) -> int:
    while size := data[position]:
        position += 1 + size
    return position + 1


def _read_webp(data: bytes) -> Container:
    """Walk the RIFF chunks; the sides stand in the first one."""
    size = struct.unpack_from("<I", data, 4)[0]
    end = 8 + size
    if end > len(data):
        raise truncated("WEBP")
    orientation, sides, position, count = 1, None, 12, 0
    while position + 8 <= end:
        count = _next_block(count)
        kind, size = struct.unpack_from("<4sI", data, position)
        if position + 8 + size > end:
            raise truncated("WEBP")
        if sides is None:
            sides = _webp_sides(kind, data[position + 8 : position + 18])
        if kind == b"EXIF":
            orientation = exif_orientation(data[position + 8 : position + 8 + size])
        position += 8 + size + (size & 1)
    if sides is None:
        raise truncated("WEBP")
    return Container(*sides, data[:end], orientation)


def _webp_sides(kind: bytes, body: bytes) -> tuple[int, int]:
    if kind == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and body[:1] == b"\x2f":
        bits = struct.unpack_from("<I", body, 1)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise ImageDecodeError("a WebP picture was wanted, its first chunk is none")


_READERS: dict[str, Callable[[bytes], Container]] = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "GIF": _read_gif,
    "WEBP": _read_webp,
}
