"""GIF files taken apart: the screen and the first frame of a file that is whole."""

import struct

from model.errors import ImageDecodeError
from model.pixels.containers.container import Container, next_block


def read_gif(data: bytes) -> Container:
    """Walk all blocks; keep the screen, the first frame and its control block.

    After the first frame, which is all that is drawn, zeros between blocks and the lack of a
    trailer are forgiven, as some writers leave them; a block that is cut is not.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette_size(flags)
    kept, control, frame, count = [data[:position]], b"", None, 0
    while frame is None or position < len(data):
        introducer = data[position]
        if introducer == 0x3B:
            break
        start, count = position, next_block(count)
        if introducer == 0x21:
            position = _blocks_end(data, position + 2)
            if data[start + 1] == 0xF9 and frame is None:
                control = data[start:position]
        elif introducer == 0x2C:
            left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, position + 1)
            position = _blocks_end(data, position + 11 + _palette_size(flags))
            if frame is None:
                frame = (left, top, left + columns, top + rows)
                kept += [control, data[start:position]]
        elif introducer == 0 and frame is not None:
            position += 1
        else:
            raise ImageDecodeError(f"a GIF block was wanted, byte {introducer} came")
    if frame is None:
        raise ImageDecodeError("a GIF with a frame was wanted, none came")
    if frame[0] == frame[2] or frame[1] == frame[3]:
        raise ImageDecodeError("a GIF frame with pixels was wanted, an empty one came")
    # A first frame that reaches over the screen widens it, as the decoder does.
    width, height = max(width, frame[2]), max(height, frame[3])
    return Container(width, height, b"".join(kept) + b";", frame=frame)


def _palette_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _blocks_end(data: bytes, position: int) -> int:
    while size := data[position]:
        position += 1 + size
    return position + 1
