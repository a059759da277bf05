"""JPEG files taken apart: what draws the first picture, and whether all of its scans are there."""

import re
import struct
from collections.abc import Iterator

from model.container import Container, exif_orientation, next_block, truncated
from model.errors import ImageDecodeError, ImageFormatError

_MAX_SCANS = 64  # Each scan of a progressive JPEG walks over the whole picture; 10 are usual.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # No repetition: linear in any file.
_REFUSED = {
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


def read_jpeg(data: bytes) -> Container:
    """Keep the tables, the frame, the scans and what tells the colour space; drop the rest."""
    kept = [b"\xff\xd8"]
    orientation, frame, scans, is_progressive = 0, b"", 0, False
    missing_bits: dict[int, list[int]] = {}
    for marker, body, coded in _segments(data):
        if marker in _REFUSED:
            raise ImageFormatError(
                f"the content is {_REFUSED[marker]} JPEG, which this service does not accept; "
                "send baseline or progressive JPEG"
            )
        if marker in (0xC0, 0xC1, 0xC2):
            if frame:
                raise ImageDecodeError("one JPEG frame was wanted, a second one came")
            frame, is_progressive = body, marker == 0xC2
            missing_bits = _components(frame)
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


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, body and, after a scan's header, coded data of each segment up to the end marker."""
    position, count = 2, 0
    while True:
        count = next_block(count)
        found = _MARKER.search(data, position)
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
            found = _MARKER.search(data, position)
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


def _components(frame: bytes) -> dict[int, list[int]]:
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
