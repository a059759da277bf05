"""JPEG files taken apart: what draws the first picture, and whether all of its scans are there."""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.errors import ImageDecodeError, ImageFormatError
from model.pixels.containers.container import Container, exif_orientation, next_block, truncated

_MAX_SCANS = 64  # Each scan of a progressive JPEG walks over the whole picture; 10 are usual.
_END = 0xD9
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # No repetition: linear in any file.
# Whoever waits for a marker skips these bytes; whoever still lacks coded data takes them for it.
# None is 0xff, which would begin a marker, and they begin with a 1: a decoder makes up zeros.
_POISON = bytes.fromhex("aa55d32c9669e11e")
_LONG_POISON = _POISON + bytes(range(1, 129)) * 4
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


@dataclass(frozen=True)
class _Frame:
    """The frame header: sides, and horizontal and vertical sampling factors by component."""

    height: int
    width: int
    sampling: dict[int, tuple[int, int]]
    is_progressive: bool


@dataclass(frozen=True)
class JpegFile(Container):
    """A JPEG, whose decoder fills in what is missing, in gray.

    Attributes:
        can_lack_anywhere: there are several scans or restart markers, so missing data need not show
            at the end.
    """

    can_lack_anywhere: bool = False

    def is_whole(self, image: Image.Image) -> bool:
        """Decodes a twin, unless the end of the only scan is there to see."""
        if self.is_cut:
            return False
        width, height = image.size
        last = image.crop((width - 1, height - 1, width, height)).tobytes()
        if not self.can_lack_anywhere and not set(last) <= {127, 128}:
            return True
        with Image.open(io.BytesIO(_poisoned_twin(self.data)), formats=("JPEG",)) as twin:
            return twin.tobytes() == image.tobytes()


def read_jpeg(data: bytes) -> JpegFile:
    """Keep the tables, the frame, the scans and what tells the colour space; drop the rest."""
    kept = [b"\xff\xd8"]
    orientation, frame, scans, interval, restarts = 0, None, 0, 0, 0
    is_cut, marker = False, 0
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
            frame = _frame(body, is_progressive=marker == 0xC2)
            missing_bits = {component: [255] * 64 for component in frame.sampling}
        elif marker == 0xDD:
            (interval,) = struct.unpack(">H", body)
        elif marker == 0xDA:
            scans += 1
            if scans > _MAX_SCANS:
                raise ImageDecodeError(f"a JPEG of at most {_MAX_SCANS} scans was wanted")
            if frame is None:
                raise ImageDecodeError("a JPEG frame was wanted before its scans")
            _note_scan(missing_bits, body, is_progressive=frame.is_progressive)
            wanted = _restarts(_mcus(frame, body), interval)
            is_cut |= _count_restarts(coded, wanted) < wanted
            restarts += wanted
        elif marker == 0xE1 and not orientation and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body)
        if marker in (0xE0, 0xEE) or not 0xE0 <= marker <= 0xFE:
            kept += [_head(marker, body), coded]
    if frame is None or not scans:
        raise truncated("JPEG")
    lacks_scans = any(bits for table in missing_bits.values() for bits in table)
    return JpegFile(
        frame.width,
        frame.height,
        b"".join(kept) + b"\xff\xd9",
        orientation or 1,
        is_cut=is_cut or lacks_scans or marker != _END,
        can_lack_anywhere=scans > 1 or restarts > 0,
    )


def _poisoned_twin(data: bytes) -> bytes:
    """A twin of read_jpeg's file that decodes differently if, and only if, coded data is missing.

    Every scan and restart interval is followed by bytes that a decoder skips on its way to the next
    marker, if it has all it needs.
    """
    pieces = [b"\xff\xd8"]
    for marker, body, coded in _segments(data):
        if marker == _END:
            break
        pieces += [_head(marker, body), _poison_intervals(coded)]
        if marker == 0xDA:
            pieces.append(_LONG_POISON)
    return b"".join(pieces) + b"\xff\xd9"


def _head(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, body and, after a scan's header, coded data of each segment.

    The end marker comes last; a file that is cut stops without it, perhaps within a scan.
    """
    position, count = 2, 0
    while True:
        count = next_block(count)
        found = _MARKER.search(data, position)
        if found is None:
            return
        marker, position = found.group(1)[0], found.end()
        if marker == _END:
            yield marker, b"", b""
            return
        if marker in (0x01, 0xD8):  # They stand alone.
            continue
        size = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + size]
        if size < 2 or position + size > len(data):
            return
        position += size
        coded = b""
        if marker == 0xDA:
            found = _MARKER.search(data, position)
            end = len(data) if found is None else found.start()
            coded = data[position : _coded_end(data, position, end)]
            position = end
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


def _frame(body: bytes, *, is_progressive: bool) -> _Frame:
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    if precision != 8:
        raise ImageFormatError(f"JPEG of 8 bits a sample is accepted, {precision} came")
    if count not in (1, 3, 4) or len(body) < 6 + 3 * count:
        raise ImageDecodeError(f"a JPEG of 1, 3 or 4 components was wanted, {count} came")
    triples = (body[6 + 3 * index : 9 + 3 * index] for index in range(count))
    sampling = {name: (factors >> 4, factors & 15) for name, factors, _ in triples}
    if not all(1 <= factor <= 4 for pair in sampling.values() for factor in pair):
        raise ImageDecodeError("JPEG sampling factors of 1 to 4 were wanted")
    return _Frame(height, width, sampling, is_progressive)


def _mcus(frame: _Frame, header: bytes) -> int:
    """How many units a scan codes: of all its components together, or the blocks of its only one.

    ITU-T T.81, A.1.1 and A.2.
    """
    most_across, most_down = (
        max(factors) for factors in zip(*frame.sampling.values(), strict=True)
    )
    across, down = frame.sampling[header[1]] if header[0] == 1 else (1, 1)
    columns = -(-frame.width * across // (8 * most_across))
    return columns * -(-frame.height * down // (8 * most_down))


def _restarts(mcus: int, interval: int) -> int:
    """How many restart markers a scan of so many units must have."""
    return max(0, mcus - 1) // interval if interval else 0


def _count_restarts(coded: bytes, wanted: int) -> int:
    """The restart markers of a scan, which must come in sequence and be no more than wanted.

    A decoder that misses one waits for it until the file ends, and draws gray.
    """
    values = np.frombuffer(coded, dtype=np.uint8)
    is_restart = (values[:-1] == 0xFF) & (values[1:] >= 0xD0) & (values[1:] <= 0xD7)
    numbers = values[1:][is_restart] & 7
    if len(numbers) > wanted or (numbers != np.arange(len(numbers)) % 8).any():
        raise ImageDecodeError(
            f"a JPEG scan of {wanted} restart markers in sequence was wanted, others came"
        )
    return len(numbers)


def _poison_intervals(coded: bytes) -> bytes:
    """Coded data with poison before every restart marker."""
    while b"\xff\xff" in coded:  # Fill bytes; each turn halves the longest run.
        coded = coded.replace(b"\xff\xff", b"\xff")
    for restart in (bytes((0xFF, number)) for number in range(0xD0, 0xD8)):
        coded = coded.replace(restart, _POISON + restart)
    return coded


def _note_scan(missing_bits: dict[int, list[int]], header: bytes, *, is_progressive: bool) -> None:
    count = header[0]
    if not count:
        raise ImageDecodeError("a JPEG scan with a component was wanted, an empty one came")
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
