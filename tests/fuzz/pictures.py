"""Valid image files by number: five formats, every mode that has a rule, sides from 1 to 300.

The same number is the same file, so that whatever fails with it can be made again.
"""

import functools
import random
from collections.abc import Callable

import numpy as np
from image_files import encoded, exif, png, png_rows
from PIL import Image

_SIDES = (1, 1, 2, 3, 7, 8, 9, 16, 17, 31, 33, 48, 64, 65, 100, 128, 157, 300)


@functools.lru_cache(maxsize=1024)
def valid_file(number: int) -> bytes:
    """A whole image file that the decode policy accepts."""
    chance = random.Random(number)
    width, height = chance.choice(_SIDES), chance.choice(_SIDES)
    blots = np.frombuffer(chance.randbytes(6 * 8 * 3), np.uint8).reshape(6, 8, 3)
    picture = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
    return _WRITERS[number % len(_WRITERS)](picture, chance)


def _jpeg(picture: Image.Image, chance: random.Random) -> bytes:
    picture = picture.convert(chance.choice(("RGB", "RGB", "L", "CMYK")))
    options: dict[str, object] = {"quality": chance.choice((30, 75, 95))}
    options |= {"progressive": chance.random() < 0.4, "subsampling": chance.choice((0, 1, 2))}
    if chance.random() < 0.3:
        options["restart_marker_blocks"] = chance.choice((1, 3))
    if chance.random() < 0.5:
        options["exif"] = _orientation(chance)
    return encoded(picture, "JPEG", **options)


def _png(picture: Image.Image, chance: random.Random) -> bytes:
    mode = chance.choice(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "RGB;16"))
    rgb = np.asarray(picture)
    if mode == "RGB;16":
        wide = (rgb.astype(">u2") * 257).astype(">u2")
        return png(picture.width, picture.height, 16, 2, png_rows(wide))
    if mode == "I;16":
        picture = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    elif mode == "PA":
        return encoded(picture.convert("P"), "PNG", transparency=chance.randrange(256))
    elif mode == "RGBA":
        picture = _with_alpha(picture)
    else:
        picture = picture.convert(mode)
    options = {"exif": _orientation(chance)} if chance.random() < 0.3 else {}
    return encoded(picture, "PNG", **options)


def _webp(picture: Image.Image, chance: random.Random) -> bytes:
    options: dict[str, object] = {"lossless": chance.random() < 0.5, "method": 0}
    if chance.random() < 0.4:
        picture = _with_alpha(picture)
    if chance.random() < 0.3:
        options["exif"] = _orientation(chance)
    if chance.random() < 0.2:
        options |= {"save_all": True, "append_images": [picture.rotate(180)]}
    return encoded(picture, "WEBP", **options)


def _avif(picture: Image.Image, chance: random.Random) -> bytes:
    options: dict[str, object] = {"speed": 10, "max_threads": 1}
    if chance.random() < 0.3:
        picture = _with_alpha(picture)
    if chance.random() < 0.3:
        options["exif"] = _orientation(chance)
    return encoded(picture, "AVIF", **options)


def _gif(picture: Image.Image, chance: random.Random) -> bytes:
    palette = picture.convert(
        "P", palette=Image.Palette.ADAPTIVE, colors=chance.choice((2, 16, 256))
    )
    options: dict[str, object] = {"interlace": chance.randrange(2)}
    if chance.random() < 0.4:
        options["transparency"] = 0
    if chance.random() < 0.3:
        options |= {"save_all": True, "append_images": [palette.rotate(180)]}
    return encoded(palette, "GIF", **options)


def _with_alpha(picture: Image.Image) -> Image.Image:
    alpha = Image.linear_gradient("L").resize(picture.size)
    return Image.merge("RGBA", (*picture.split(), alpha))


def _orientation(chance: random.Random) -> bytes:
    return exif(chance.randint(1, 8), order=chance.choice("<>"))


_WRITERS: tuple[Callable[[Image.Image, random.Random], bytes], ...] = (
    _jpeg,
    _png,
    _webp,
    _avif,
    _gif,
)
