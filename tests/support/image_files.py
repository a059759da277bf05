"""Image files built in code: sound ones with the pixels they hold, hostile ones with their error.

Shared by the tests of the decoder and by whoever sends such files over HTTP.
"""

import functools
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from model.errors import (
    EmptyImageError,
    ImageBytesError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageSizeError,
)

HEIGHT, WIDTH = 36, 50


def photo(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """A smooth picture with some noise, nowhere near gray or black at its end."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([x * 3, y * 5, x + y], axis=-1) % 200 + 40
    noise = np.random.default_rng(seed).integers(0, 15, waves.shape)
    return (waves + noise).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: Any) -> bytes:
    """A picture or an array as a file of the format."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int,
    height: int,
    depth: int,
    color: int,
    rows: bytes,
    *,
    before: bytes = b"",
    after: bytes = b"",
    interlace: int = 0,
    deflated: bytes | None = None,
) -> bytes:
    """A PNG of raw filtered rows; `before` and `after` are chunks around its data."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    data = zlib.compress(rows) if deflated is None else deflated
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", data)
        + after
        + chunk(b"IEND", b"")
    )


def png_rows(pixels: np.ndarray) -> bytes:
    """Unfiltered PNG rows of an array."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def gif(width, height, frames, *, flags=0x80, palette=b"\0\0\0\xff\0\0"):
    """A GIF of two colours; each frame is (left, top, width, height, control block, LZW data)."""
    body = b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0) + palette
    for left, top, columns, rows, control, data in frames:
        body += control + b"," + struct.pack("<HHHHB", left, top, columns, rows, 0) + data
    return body + b";"


ONE_RED_PIXEL = b"\x02\x02\x4c\x01\x00"
THREE_PIXELS = b"\x02\x02\x84\x51\x00"


def exif(orientation: int, *, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """EXIF that holds one orientation and nothing else."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    form = {3: "HH", 4: "I"}.get(kind, "I")
    values = (orientation, 0) if form == "HH" else (orientation,)
    entry = struct.pack(order + "HHI" + form, 0x0112, kind, count, *values)
    return b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry + b"\0\0\0\0"


def jpeg_with(segment_marker, body, **options):
    """A JPEG with one more segment straight after its start."""
    file = encoded(photo(), "JPEG", **options)
    segment = bytes((0xFF, segment_marker)) + struct.pack(">H", len(body) + 2) + body
    return file[:2] + segment + file[2:]


def webp_with(kind, body):
    """A lossless WebP with one more chunk, in the extended layout."""
    plain = encoded(photo(), "WEBP", lossless=True)
    sides = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides + plain[12:]
    chunks += kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def closed_jpeg(share, **options):
    """A JPEG cut at a share of its length and closed with an end marker, as if it were whole."""
    file = encoded(photo(120, 160), "JPEG", quality=90, **options)
    return file[: int(len(file) * share)] + b"\xff\xd9"


def restarting_jpegs() -> dict[str, tuple[bytes, int]]:
    """JPEGs with restart markers, by name, and where the last scan's coded data begins."""
    files = {}
    for name, options in {
        "rows": {"restart_marker_rows": 1},
        "blocks": {"restart_marker_blocks": 3},
        "blocks-444": {"restart_marker_blocks": 3, "subsampling": 0},
        "progressive": {"restart_marker_rows": 1, "progressive": True},
    }.items():
        file = encoded(photo(120, 160), "JPEG", quality=90, **options)
        header = file.rindex(b"\xff\xda")
        files[name] = (file, header + 2 + int.from_bytes(file[header + 2 : header + 4], "big"))
    return files


def jpeg_of_three_scans(*, share=1.0, interval=0):
    """A baseline JPEG of three gray scans, Y, Cb and Cr, the first cut at a share of its length."""
    restarts = {"restart_marker_blocks": interval} if interval else {}
    gray = encoded(photo(40, 40)[..., 0], "JPEG", **restarts)
    frame, scan = gray.index(b"\xff\xc0"), gray.index(b"\xff\xda")
    tables = gray[frame + 13 : scan]
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    head = gray[:frame] + b"\xff\xc0\0\x11" + gray[frame + 4 : frame + 9] + b"\x03" + components
    coded = gray[scan + 10 : -2]
    scans = [
        b"\xff\xda\0\x08\x01" + bytes((number, 0)) + b"\0\x3f\0" + data
        for number, data in ((1, coded[: int(len(coded) * share)]), (2, coded), (3, coded))
    ]
    return head, tables, scans


def riff(body):
    """A WebP's outer frame, truthful about its length."""
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def shortened_webp(*, lossless):
    """A WebP whose coded data is cut while every length is put right again."""
    file = encoded(photo(), "WEBP", lossless=lossless)
    kind, size = struct.unpack_from("<4sI", file, 12)
    half = size // 4 * 2
    return riff(kind + struct.pack("<I", half) + file[20 : 20 + half])


@functools.cache
def sound_images() -> dict[str, tuple[bytes, str, np.ndarray]]:
    """Name to (file, format, the upright pixels that it holds)."""
    pixels = photo()
    gray = pixels[..., 0]
    images: dict[str, tuple[bytes, str, np.ndarray]] = {}

    def through_pillow(name, file, file_format):
        with Image.open(io.BytesIO(file)) as image:
            images[name] = (file, file_format, np.asarray(image.convert("RGB")))

    def exact(name, file, file_format, expected):
        images[name] = (file, file_format, np.ascontiguousarray(expected))

    for name, options in {
        "jpeg": {},
        "jpeg-444": {"subsampling": 0},
        "jpeg-progressive": {"progressive": True},
        "jpeg-restarts": {"restart_marker_blocks": 1},
        "jpeg-optimized": {"optimize": True},
    }.items():
        through_pillow(name, encoded(pixels, "JPEG", **options), "JPEG")
    through_pillow("jpeg-gray", encoded(gray, "JPEG"), "JPEG")
    through_pillow("jpeg-cmyk", encoded(Image.fromarray(pixels).convert("CMYK"), "JPEG"), "JPEG")
    through_pillow("jpeg-all-gray-128", encoded(np.full_like(pixels, 128), "JPEG"), "JPEG")
    through_pillow("jpeg-1x1", encoded(pixels[:1, :1], "JPEG"), "JPEG")
    through_pillow("jpeg-trailing-junk", encoded(pixels, "JPEG") + b"junk" * 99, "JPEG")
    second = Image.fromarray(photo(seed=9))
    mpo = encoded(pixels, "MPO", save_all=True, append_images=[second])
    through_pillow("mpo-first-picture", mpo, "JPEG")
    through_pillow("webp-lossy", encoded(pixels, "WEBP"), "WEBP")
    exact("webp-lossless", encoded(pixels, "WEBP", lossless=True), "WEBP", pixels)
    animated = encoded(pixels, "WEBP", lossless=True, save_all=True, append_images=[second])
    exact("webp-animated-first-frame", animated, "WEBP", pixels)
    through_pillow("avif", encoded(pixels, "AVIF"), "AVIF")
    two = encoded(pixels, "AVIF", save_all=True, append_images=[second])
    through_pillow("avif-animated-first-frame", two, "AVIF")
    through_pillow("gif", encoded(pixels, "GIF"), "GIF")
    through_pillow("gif-interlaced", encoded(pixels, "GIF", interlace=1), "GIF")
    through_pillow("gif-without-a-trailer", encoded(pixels, "GIF")[:-1], "GIF")
    through_pillow("gif-zeros-at-its-end", encoded(pixels, "GIF")[:-1] + b"\0\0;", "GIF")
    many = encoded(pixels, "GIF", save_all=True, append_images=[second])
    through_pillow("gif-animated-first-frame", many, "GIF")
    exact("gif-gray", encoded(gray, "GIF"), "GIF", np.repeat(gray[..., None], 3, axis=2))
    exact("png", encoded(pixels, "PNG"), "PNG", pixels)
    exact("png-1xn", encoded(pixels[:, :1], "PNG"), "PNG", pixels[:, :1])
    exact("png-nx1", encoded(pixels[:1], "PNG"), "PNG", pixels[:1])
    exact("png-1x1", encoded(pixels[:1, :1], "PNG"), "PNG", pixels[:1, :1])
    exact("png-black", encoded(np.zeros_like(pixels), "PNG"), "PNG", np.zeros_like(pixels))
    exact("png-gray", encoded(gray, "PNG"), "PNG", np.repeat(gray[..., None], 3, axis=2))
    apng = encoded(pixels, "PNG", save_all=True, append_images=[second])
    exact("apng-first-frame", apng, "PNG", pixels)
    return images


@functools.cache
def hostile_images() -> dict[str, tuple[bytes, type[ImageError]]]:
    """Name to (file, the error class that it must earn under the default limits)."""
    pixels = photo()
    jpeg, whole_png = encoded(pixels, "JPEG"), encoded(pixels, "PNG")
    webp, avif = encoded(pixels, "WEBP"), encoded(pixels, "AVIF")
    moving = encoded(pixels, "GIF")
    rows = png_rows(pixels)
    deflated = zlib.compress(rows)
    bomb = zlib.compress(b"\0" * (200 << 20), 9)
    header_at = jpeg.index(b"\xff\xc0")
    sides = bytes(4), b"\xff\xff\xff\xff", b"\x00\x01\xff\xff"
    zero, huge, wide = (jpeg[: header_at + 5] + s + jpeg[header_at + 9 :] for s in sides)
    arithmetic = jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1)
    lossless = jpeg.replace(b"\xff\xc0", b"\xff\xc3", 1)
    deep = jpeg[: header_at + 4] + b"\x0c" + jpeg[header_at + 5 :]
    progressive = encoded(pixels, "JPEG", progressive=True)
    last_scan = progressive.rindex(b"\xff\xda")
    scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    files: dict[str, tuple[bytes, type[ImageError]]] = {
        "empty": (b"", EmptyImageError),
        "too-many-bytes": (jpeg + bytes(20 * 1024 * 1024), ImageBytesError),
        "one-zero-byte": (b"\0", ImageFormatError),
        "noise": (np.random.default_rng(3).bytes(5000), ImageFormatError),
        "text": (b"this is not an image at all\n" * 20, ImageFormatError),
        "html": (b"<!DOCTYPE html><html><body>hello</body></html>", ImageFormatError),
        "svg": (
            b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
            ImageFormatError,
        ),
        "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", ImageFormatError),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ImageFormatError),
        "psd": (b"8BPS\0\x01" + bytes(40), ImageFormatError),
        "zip": (b"PK\x03\x04" + bytes(40), ImageFormatError),
        "mp4": (b"\0\0\0\x18ftypisom\0\0\x02\0isommp42" + bytes(40), ImageFormatError),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), ImageFormatError),
        "jpeg-xl": (b"\xff\x0a" + bytes(40), ImageFormatError),
        "jpeg-2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), ImageFormatError),
        "ico": (encoded(pixels, "ICO"), ImageFormatError),
        "bmp": (encoded(pixels, "BMP"), ImageFormatError),
        "tiff": (encoded(pixels, "TIFF"), ImageFormatError),
        "ppm": (encoded(pixels, "PPM"), ImageFormatError),
        "tga": (encoded(pixels, "TGA"), ImageFormatError),
        "zip-with-a-jpeg-after-it": (b"PK\x03\x04" + bytes(26) + jpeg, ImageFormatError),
        "jpeg-only-its-magic": (b"\xff\xd8\xff", ImageDecodeError),
        "jpeg-truncated": (jpeg[: len(jpeg) // 2], ImageDecodeError),
        "jpeg-without-its-last-byte": (jpeg[:-1], ImageDecodeError),
        "jpeg-cut-and-closed": (closed_jpeg(0.5), ImageDecodeError),
        "jpeg-cut-and-closed-after-a-restart": (
            closed_jpeg(0.5)[:-2] + b"\xff\xd0\xff\xd9",
            ImageDecodeError,
        ),
        "jpeg-cut-and-closed-with-restarts": (
            closed_jpeg(0.7, restart_marker_blocks=3),
            ImageDecodeError,
        ),
        "jpeg-cut-and-closed-gray": (
            encoded(photo(120, 160)[..., 0], "JPEG")[:1500] + b"\xff\xd9",
            ImageDecodeError,
        ),
        "jpeg-progressive-without-its-last-scan": (
            progressive[:last_scan] + b"\xff\xd9",
            ImageDecodeError,
        ),
        "jpeg-of-thousands-of-scans": (jpeg[:-2] + scan * 5000 + b"\xff\xd9", ImageDecodeError),
        "jpeg-of-a-million-segments": (b"\xff\xd8" + b"\xff\xfe\0\x02" * 10**6, ImageDecodeError),
        "jpeg-two-frames": (
            jpeg[:header_at] + jpeg[header_at : header_at + 19] + jpeg[header_at:],
            ImageDecodeError,
        ),
        "jpeg-0x0": (zero, ImageSizeError),
        "jpeg-65535x65535": (huge, ImageSizeError),
        "jpeg-1x65535": (wide, ImageSizeError),
        "jpeg-arithmetic": (arithmetic, ImageFormatError),
        "jpeg-lossless": (lossless, ImageFormatError),
        "jpeg-12-bit": (deep, ImageFormatError),
        "jpeg-segment-beyond-the-end": (b"\xff\xd8\xff\xe1\xff\xffExif\0\0", ImageDecodeError),
        "jpeg-no-tables": (jpeg[:2] + jpeg[header_at:], ImageDecodeError),
        "png-only-its-magic": (b"\x89PNG\r\n\x1a\n", ImageDecodeError),
        "png-truncated": (whole_png[: len(whole_png) // 2], ImageDecodeError),
        "png-without-its-end": (whole_png[:-12], ImageDecodeError),
        "png-one-bit-flipped": (
            whole_png[:70] + bytes((whole_png[70] ^ 4,)) + whole_png[71:],
            ImageDecodeError,
        ),
        "png-0x0": (png(0, 0, 8, 2, b""), ImageSizeError),
        "png-bomb-2147483647-a-side": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), ImageSizeError),
        "png-bomb-20000x20000": (png(20_000, 20_000, 1, 0, b"", deflated=bomb), ImageSizeError),
        "png-1x30000": (png(1, 30_000, 8, 0, b"\0\0" * 30_000), ImageSizeError),
        "png-no-picture": (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""),
            ImageDecodeError,
        ),
        "png-half-its-rows": (
            png(WIDTH, HEIGHT, 8, 2, rows[: len(rows) // 2 // (1 + 3 * WIDTH) * (1 + 3 * WIDTH)]),
            ImageDecodeError,
        ),
        "png-half-its-stream": (
            png(WIDTH, HEIGHT, 8, 2, b"", deflated=deflated[: len(deflated) // 2]),
            ImageDecodeError,
        ),
        "png-interlaced-short": (
            png(WIDTH, HEIGHT, 8, 2, rows[:2000], interlace=1),
            ImageDecodeError,
        ),
        "png-not-deflated": (png(WIDTH, HEIGHT, 8, 2, b"", deflated=rows), ImageDecodeError),
        "png-depth-3": (png(WIDTH, HEIGHT, 3, 2, rows), ImageDecodeError),
        "png-no-palette": (png(8, 1, 8, 3, bytes(9)), ImageDecodeError),
        "png-unknown-critical-chunk": (
            png(WIDTH, HEIGHT, 8, 2, rows, before=chunk(b"ABCD", b"")),
            ImageDecodeError,
        ),
        "png-chunk-beyond-the-end": (whole_png[:33] + b"\x7f\xff\xff\xffIDAT", ImageDecodeError),
        "png-of-a-million-chunks": (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"") * 10**6,
            ImageDecodeError,
        ),
        "webp-only-its-magic": (b"RIFF\0\0\0\0WEBP", ImageDecodeError),
        "webp-truncated": (webp[: len(webp) // 2], ImageDecodeError),
        "webp-shortened-lossy": (shortened_webp(lossless=False), ImageDecodeError),
        "webp-shortened-lossless": (shortened_webp(lossless=True), ImageDecodeError),
        "webp-16384-a-side": (riff(b"VP8L\x05\0\0\0\x2f\xff\xff\xff\x0f\0"), ImageSizeError),
        "webp-16777216-a-side": (
            riff(b"VP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff"),
            ImageSizeError,
        ),
        "webp-nothing-inside": (riff(b"VP8 \0\0\0\0"), ImageDecodeError),
        "avif-truncated": (avif[: len(avif) // 2], ImageDecodeError),
        "avif-without-its-last-byte": (avif[:-1], ImageDecodeError),
        "avif-only-its-magic": (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", ImageDecodeError),
        "gif-only-its-magic": (b"GIF89a", ImageDecodeError),
        "gif-truncated": (moving[: len(moving) // 2], ImageDecodeError),
        "gif-without-its-last-two-bytes": (moving[:-2], ImageDecodeError),
        "gif-zeros-before-the-frame": (moving[:13] + b"\0" + moving[13:], ImageDecodeError),
        "gif-no-frame": (gif(5, 5, []), ImageDecodeError),
        "gif-empty-frame": (gif(5, 5, [(0, 0, 0, 5, b"", ONE_RED_PIXEL)]), ImageDecodeError),
        "gif-cut-and-closed": (
            gif(50, 50, [(0, 0, 50, 50, b"", ONE_RED_PIXEL)]),
            ImageDecodeError,
        ),
        "gif-65535-a-side": (gif(65535, 65535, []), ImageDecodeError),
        "gif-frame-65535-a-side": (
            gif(5, 5, [(0, 0, 65535, 65535, b"", ONE_RED_PIXEL)]),
            ImageSizeError,
        ),
    }
    return files
