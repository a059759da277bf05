"""Image files as lists of parts that can be changed one by one and put together again.

What a decoder checks first (checksums, lengths) is made right when the parts are joined, so that a
change reaches the code behind those checks.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from model.pixels.containers.sniff import content_format

RAW = b""
"""The kind of bytes that belong to no part."""


@dataclass(frozen=True)
class Part:
    """One block of a file.

    Attributes:
        kind: its name as the format writes it: four letters, a JPEG marker, a GIF introducer.
        body: what it holds, without name, length and checksum.
        tail: a JPEG scan's coded data, a GIF block's data; empty elsewhere.
    """

    kind: bytes
    body: bytes
    tail: bytes = b""


Split = Callable[[bytes], list[Part]]
Join = Callable[[list[Part]], bytes]


def split_png(data: bytes) -> list[Part]:
    """Signature and chunks; what follows the last whole chunk is raw."""
    parts, position = [Part(RAW, data[:8])], 8
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if position + 12 + size > len(data):
            break
        start = position + 8
        parts.append(Part(data[position + 4 : start], data[start : start + size]))
        position = start + size + 4
    return _with_rest(parts, data, position)


def join_png(parts: list[Part]) -> bytes:
    """Chunks with their lengths and checksums."""
    return b"".join(
        part.body
        if part.kind == RAW
        else struct.pack(">I", len(part.body))
        + part.kind
        + part.body
        + struct.pack(">I", zlib.crc32(part.kind + part.body))
        for part in parts
    )


def split_jpeg(data: bytes) -> list[Part]:
    """Start marker and segments, each scan with its coded data."""
    parts, position = [Part(RAW, data[:2])], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xD9:
        size = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + size
        if size < 2 or end > len(data):
            break
        tail_end = _scan_end(data, end) if data[position + 1] == 0xDA else end
        kind, body = data[position : position + 2], data[position + 4 : end]
        parts.append(Part(kind, body, data[end:tail_end]))
        position = tail_end
    return _with_rest(parts, data, position)


def join_jpeg(parts: list[Part]) -> bytes:
    """Segments with their lengths."""
    return b"".join(
        part.body
        if part.kind == RAW
        else part.kind + struct.pack(">H", (len(part.body) + 2) & 0xFFFF) + part.body + part.tail
        for part in parts
    )


def _scan_end(data: bytes, position: int) -> int:
    """Where the marker after a scan begins: not a restart, not a stuffed byte."""
    while (position := data.find(b"\xff", position)) >= 0:
        after = data[position + 1 : position + 2]
        if after not in (b"\0", b"\xff") and not b"\xd0" <= after <= b"\xd7":
            return position
        position += 1
    return len(data)


def split_webp(data: bytes) -> list[Part]:
    """The chunks inside the RIFF frame."""
    parts: list[Part] = []
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        if start + size > len(data):
            break
        parts.append(Part(data[position : position + 4], data[start : start + size]))
        position = start + size + (size & 1)
    return _with_rest(parts, data, position)


def join_webp(parts: list[Part]) -> bytes:
    """Chunks in a RIFF frame that is truthful about its length."""
    body = b"".join(
        part.body
        if part.kind == RAW
        else part.kind
        + struct.pack("<I", len(part.body))
        + part.body
        + b"\0" * (len(part.body) & 1)
        for part in parts
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


# Boxes that hold boxes, and how many bytes of their own stand before those.
_BOXES_INSIDE = dict.fromkeys(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp", b"ipco", b"dinf", b"grpl"), 0
) | {b"meta": 4, b"iref": 4, b"iinf": 6}
_LENGTH_OF_BOXES = b"\0len"
"""The kind of a box's own header: its body is the name, and how many of the next parts it holds."""


def split_avif(data: bytes) -> list[Part]:
    """Boxes, those inside others as parts of their own behind their container."""
    parts: list[Part] = []
    _split_boxes(data, parts, depth=0)
    return parts


def _split_boxes(data: bytes, parts: list[Part], depth: int) -> None:
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size < 8 or position + size > len(data):
            break
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + size]
        if kind in _BOXES_INSIDE and depth < 8:
            place = len(parts)
            head = body[: _BOXES_INSIDE[kind]]
            _split_boxes(body[len(head) :], parts, depth + 1)
            inside = len(parts) - place
            parts.insert(place, Part(_LENGTH_OF_BOXES, kind + head, bytes((min(inside, 255),))))
        else:
            parts.append(Part(kind, body))
        position += size
    if position < len(data):
        parts.append(Part(RAW, data[position:]))


def join_avif(parts: list[Part]) -> bytes:
    """Boxes with their lengths, nested as they were split."""
    return _join_boxes(parts)


def _join_boxes(parts: list[Part]) -> bytes:
    joined: list[bytes] = []
    place = 0
    while place < len(parts):
        part = parts[place]
        place += 1
        if part.kind == RAW:
            joined.append(part.body)
            continue
        kind, body = part.kind, part.body
        if kind == _LENGTH_OF_BOXES:
            inside = part.tail[0] if part.tail else 0
            kind = part.body[:4].ljust(4, b" ")
            body = part.body[4:] + _join_boxes(parts[place : place + inside])
            place += inside
        joined.append(struct.pack(">I", len(body) + 8) + kind + body)
    return b"".join(joined)


def split_gif(data: bytes) -> list[Part]:
    """Screen with palette, extensions and frames, the trailer; sub-blocks are a part's tail."""
    head = 13 + _palette_bytes(data[10:11])
    parts, position = [Part(RAW, data[:head])], head
    while position < len(data):
        kind = data[position : position + 1]
        if kind == b"!":
            body_end = position + 2
        elif kind == b",":
            body_end = position + 11 + _palette_bytes(data[position + 9 : position + 10])
        else:
            break
        end = body_end
        while end < len(data) and data[end]:
            end += 1 + data[end]
        if end >= len(data):
            break
        parts.append(Part(kind, data[position + 1 : body_end], data[body_end : end + 1]))
        position = end + 1
    return _with_rest(parts, data, position)


def join_gif(parts: list[Part]) -> bytes:
    """Blocks as they are: a GIF has no lengths but those inside its data."""
    return b"".join(part.kind + part.body + part.tail for part in parts)


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0


def split_tiff(data: bytes) -> list[Part]:
    """Header, the entries of the first directory, and all other bytes as they stand."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data.ljust(8, b"\0"), 4)[0]
    if not 8 <= start <= len(data) - 2:
        return [Part(RAW, data)]
    count = struct.unpack_from(order + "H", data, start)[0]
    end = start + 2 + 12 * count
    if end > len(data):
        return [Part(RAW, data)]
    entries = [Part(b"entry", data[at : at + 12]) for at in range(start + 2, end, 12)]
    return [Part(RAW, data[: start + 2]), *entries, Part(RAW, data[end:])]


def join_tiff(parts: list[Part]) -> bytes:
    """The same bytes in the same order."""
    return b"".join(part.body for part in parts)


def _with_rest(parts: list[Part], data: bytes, position: int) -> list[Part]:
    return [*parts, Part(RAW, data[position:])] if position < len(data) else parts


STRUCTURES: dict[str, tuple[Split, Join]] = {
    "PNG": (split_png, join_png),
    "JPEG": (split_jpeg, join_jpeg),
    "WEBP": (split_webp, join_webp),
    "AVIF": (split_avif, join_avif),
    "GIF": (split_gif, join_gif),
    "TIFF": (split_tiff, join_tiff),
}


def structure_of(data: bytes) -> tuple[Split, Join] | None:
    """How to take a file apart, by its first bytes; None for a format without structure here."""
    return STRUCTURES.get(content_format(data) or "")


def with_body(part: Part, body: bytes) -> Part:
    """The same part with another body."""
    return replace(part, body=body)
