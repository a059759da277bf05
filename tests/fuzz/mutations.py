"""Changes to image files: of one part with lengths and checksums put right, and plain damage."""

import functools
import random
import struct
import zlib
from collections.abc import Callable

from fuzz.structures import RAW, Part, split_tiff, structure_of, with_body
from image_files import exif

_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    20_000,
    20_001,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_MAGICS = (
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBP",
    b"BM",
    b"\0\0\0\x20ftypavif",
    b"\0\0\0\x20ftypheic",
    b"II*\0",
    b"MM\0*",
    b"%PDF-1.7",
)


def damage(data: bytes, seed: int) -> bytes:
    """A file made worse in one of the ways that files get worse; sometimes it survives."""
    chance = random.Random(seed)
    way = chance.choice((_truncate, _flip_bits, _wrong_magic, change_structure, _change_number))
    return way(data, chance)


def change_structure(data: bytes, chance: random.Random) -> bytes:
    """One to four changes of a file's parts; plain damage where it has none."""
    found = structure_of(data)
    if found is None:
        return _flip_bits(data, chance)
    split, join = found
    parts = split(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if parts:
            parts = chance.choice(_CHANGES)(parts, chance)
    return join(parts)


def change_bytes(data: bytes, chance: random.Random) -> bytes:
    """A part's body with a number put into it, bits turned, bytes taken away or added."""
    ways = (_change_number, _change_number, _flip_bits, _flip_bits, _flip_bits, _truncate, _insert)
    way = chance.choice(ways)
    return way(data, chance)


def _truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _flip_bits(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8)) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _wrong_magic(data: bytes, chance: random.Random) -> bytes:
    magic = chance.choice(_MAGICS)
    return magic + data[len(magic) :]


def _insert(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(chance.choice((1, 2, 4, 300))) + data[place:]


def _change_number(data: bytes, chance: random.Random) -> bytes:
    """A number that headers lie with, of one, two or four bytes, anywhere in the first 64."""
    form = chance.choice(("B", "<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    place = chance.randrange(min(len(data) - size + 1, 64))
    number = chance.choice(_NUMBERS) & (256**size - 1)
    return data[:place] + struct.pack(form, number) + data[place + size :]


Parts = list[Part]


def _change_body(parts: Parts, chance: random.Random) -> Parts:
    return _at_one(parts, chance, lambda part: with_body(part, change_bytes(part.body, chance)))


def _change_tail(parts: Parts, chance: random.Random) -> Parts:
    return _at_one(
        parts, chance, lambda part: Part(part.kind, part.body, change_bytes(part.tail, chance))
    )


def _change_kind(parts: Parts, chance: random.Random) -> Parts:
    others = [part.kind for part in parts if part.kind != RAW] + [b"tRNS", b"EXIF", b"\xff\xdd"]

    def renamed(part: Part) -> Part:
        wanted = [kind for kind in others if len(kind) == len(part.kind)]
        return Part(chance.choice(wanted or [part.kind]), part.body, part.tail)

    return _at_one(parts, chance, renamed)


def _change_inflated(parts: Parts, chance: random.Random) -> Parts:
    """The compressed rows of a PNG, changed before they are compressed again."""

    def changed(part: Part) -> Part:
        try:
            rows = zlib.decompressobj().decompress(part.body, 1 << 20)
        except zlib.error:
            return part
        return with_body(part, zlib.compress(change_bytes(rows, chance), 1))

    return [changed(part) if part.kind == b"IDAT" else part for part in parts]


def _change_exif(parts: Parts, chance: random.Random) -> Parts:
    """One entry of the directory inside an EXIF part, or of the file where it is a TIFF."""

    def changed(part: Part) -> Part:
        head = part.body[:6] if part.body.startswith(b"Exif\0\0") else b""
        tiff = part.body[len(head) :]
        if tiff[:4] not in (b"II*\0", b"MM\0*"):
            return part
        entries = _change_body(split_tiff(tiff), chance)
        return with_body(part, head + b"".join(entry.body for entry in entries))

    return [changed(part) for part in parts]


def _drop(parts: Parts, chance: random.Random) -> Parts:
    place = chance.randrange(len(parts))
    return parts[:place] + parts[place + 1 :]


def _repeat(parts: Parts, chance: random.Random) -> Parts:
    place = chance.randrange(len(parts))
    times = chance.choice((2, 2, 2, 3, 100))
    return parts[:place] + [parts[place]] * times + parts[place + 1 :]


def _move(parts: Parts, chance: random.Random) -> Parts:
    moved = list(parts)
    part = moved.pop(chance.randrange(len(moved)))
    moved.insert(chance.randrange(len(moved) + 1), part)
    return moved


def _add(parts: Parts, chance: random.Random) -> Parts:
    """A part that files of this format may have, where it is hardly expected."""
    kinds = {len(part.kind) for part in parts}
    fitting = [part for part in extra_parts() if len(part.kind) in kinds]
    if not fitting:
        return parts
    place = chance.randrange(len(parts) + 1)
    return [*parts[:place], chance.choice(fitting), *parts[place:]]


def _at_one(parts: Parts, chance: random.Random, change: Callable[[Part], Part]) -> Parts:
    place = chance.randrange(len(parts))
    return [*parts[:place], change(parts[place]), *parts[place + 1 :]]


@functools.cache
def extra_parts() -> tuple[Part, ...]:
    """Parts that a file may have and a small one rarely does: EXIF, palettes, animation, loops."""
    turned = exif(6)
    png = (
        (b"tRNS", b"\0\1" * 3),
        (b"eXIf", turned[6:]),
        (b"PLTE", bytes(range(48))),
        (b"acTL", b"\0\0\0\2\0\0\0\0"),
        (b"fcTL", struct.pack(">5I2H2B", 0, 1, 1, 0, 0, 1, 1, 0, 0)),
        (b"IDAT", b""),
        (b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000))),
    )
    webp = (
        (b"VP8X", b"\x18\0\0\0\0\0\0\0\0\0"),
        (b"EXIF", turned),
        (b"ALPH", b"\0\xff\xff"),
        (b"ANIM", bytes(6)),
        (b"ANMF", bytes(24)),
    )
    avif = (
        (b"irot", b"\1"),
        (b"imir", b"\0"),
        (b"clap", struct.pack(">8I", 1, 1, 1, 1, 0, 1, 0, 1)),
        (b"ispe", struct.pack(">3I", 0, 20_000, 20_000)),
        (b"pixi", b"\0\0\0\0\3\x08\x08\x08"),
    )
    jpeg = (
        (b"\xff\xe1", turned),
        (b"\xff\xdd", b"\0\2"),
        (b"\xff\xee", b"Adobe\0d\0\0\0\0\2"),
        (b"\xff\xdc", b"\0\x10"),
        (b"\xff\xfe", b"note"),
    )
    control = Part(b"!", b"\xf9", b"\4\1\0\0\0\0")
    loop = Part(b"!", b"\xff", b"\x0bNETSCAPE2.0\3\1\0\0\0")
    return (*(Part(kind, body) for kind, body in (*png, *webp, *avif, *jpeg)), control, loop)


_CHANGES = (
    _change_body,
    _change_body,
    _change_body,
    _change_tail,
    _change_kind,
    _change_inflated,
    _change_exif,
    _drop,
    _repeat,
    _move,
    _add,
)
