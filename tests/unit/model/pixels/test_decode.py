import io
import zlib

import numpy as np
import pytest
from image_files import (
    ONE_RED_PIXEL,
    THREE_PIXELS,
    chunk,
    encoded,
    exif,
    gif,
    jpeg_with,
    photo,
    png,
    png_rows,
    sound_images,
    webp_with,
)
from PIL import Image, ImageOps

from model.errors import DependencyError, ImageBytesError, ImageFormatError, ImageSizeError
from model.pixels.decode import DECODE_POLICY_VERSION, DecodeLimits, decode_image

WITH_TIFF = DecodeLimits(formats=frozenset({"TIFF", "PNG", "BMP"}))


def test_the_policy_has_its_published_version():
    assert DECODE_POLICY_VERSION == "lipsim-decode-1"


@pytest.mark.parametrize("name", sound_images())
def test_each_sound_file_gives_exactly_its_pixels(name):
    data, file_format, pixels = sound_images()[name]
    image = decode_image(data)
    assert image.format == file_format
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    assert not image.pixels.flags.writeable
    assert (image.height, image.width, 3) == image.pixels.shape
    np.testing.assert_array_equal(image.pixels, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("carrier", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_orientation_is_applied(orientation, carrier):
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"quality": 95} if carrier in ("JPEG", "AVIF") else {}
    data = encoded(photo(), carrier, exif=tags, **options)
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # Pillow turns TIFF while it loads.
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    limits = WITH_TIFF if carrier == "TIFF" else DecodeLimits()
    np.testing.assert_array_equal(decode_image(data, limits).pixels, expected)
    assert expected.shape[0] == (50 if orientation >= 5 else 36)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_an_orientation_of_either_byte_order_and_width_is_read(order, kind):
    data = jpeg_with(0xE1, exif(6, order=order, kind=kind))
    assert decode_image(data).pixels.shape == (50, 36, 3)


UNREADABLE = {
    "zero": exif(0),
    "nine": exif(9),
    "65535": exif(65535),
    "text": exif(6, kind=2),
    "rational": exif(6, kind=5),
    "signed": exif(6, kind=9),
    "two values": exif(6, count=2),
    "no value": exif(6, count=0),
    "garbage": b"Exif\0\0" + b"garbage" * 9,
    "nothing": b"Exif\0\0",
    "directory beyond the end": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "more entries than bytes": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "cut in its entry": exif(6)[:20],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_orientation_counts_as_upright(name):
    upright, _, pixels = sound_images()["jpeg"]
    assert upright
    np.testing.assert_array_equal(decode_image(jpeg_with(0xE1, UNREADABLE[name])).pixels, pixels)
    body = UNREADABLE[name][6:]
    rows = png_rows(photo())
    with_exif = png(50, 36, 8, 2, rows, before=chunk(b"eXIf", body))
    np.testing.assert_array_equal(decode_image(with_exif).pixels, photo())
    np.testing.assert_array_equal(decode_image(webp_with(b"EXIF", body)).pixels, photo())


def test_the_first_exif_block_of_a_jpeg_counts():
    data = jpeg_with(0xE1, exif(1))
    second = b"\xff\xe1" + (len(exif(6)) + 2).to_bytes(2, "big") + exif(6)
    at = 2 + 4 + len(exif(1))
    assert decode_image(data[:at] + second + data[at:]).pixels.shape == (36, 50, 3)


def test_exif_after_the_pixels_of_a_png_counts():
    data = png(50, 36, 8, 2, png_rows(photo()), after=chunk(b"eXIf", exif(6)[6:]))
    assert decode_image(data).pixels.shape == (50, 36, 3)


def over_white(color, alpha):
    exact = (color.astype(np.int64) * alpha + 255 * (255 - alpha.astype(np.int64))) / 255
    return np.floor(exact + 0.5).astype(np.uint8)


def test_alpha_is_laid_on_white_and_rounded_half_up_for_every_value():
    color, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    rgba = np.stack([color, color[::-1], color, alpha], axis=-1)
    expected = over_white(rgba[..., :3], rgba[..., 3:])
    for data in (encoded(rgba, "PNG"), encoded(rgba, "WEBP", lossless=True, exact=True)):
        np.testing.assert_array_equal(decode_image(data).pixels, expected)
    la = np.stack([color, alpha], axis=-1)
    image = decode_image(encoded(Image.fromarray(la, mode=None), "PNG"))
    np.testing.assert_array_equal(
        image.pixels, np.repeat(over_white(la[..., :1], la[..., 1:]), 3, 2)
    )


def test_colour_hidden_under_full_transparency_is_white():
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[..., 0] = 200
    assert (decode_image(encoded(rgba, "PNG")).pixels == 255).all()


def test_a_palette_with_transparency_is_laid_on_white():
    palette = chunk(b"PLTE", bytes((10, 20, 30, 100, 110, 120, 200, 0, 0)))
    some = palette + chunk(b"tRNS", bytes((0, 128)))
    image = decode_image(png(3, 1, 8, 3, b"\0\0\1\2", before=some))
    expected = [[[255, 255, 255], [177, 182, 187], [200, 0, 0]]]
    np.testing.assert_array_equal(image.pixels, expected)


def test_an_index_beyond_the_palette_is_black():
    image = decode_image(png(2, 1, 8, 3, b"\0\0\5", before=chunk(b"PLTE", b"\1\2\3")))
    np.testing.assert_array_equal(image.pixels, [[[1, 2, 3], [0, 0, 0]]])


@pytest.mark.parametrize(
    ("depth", "color", "row", "key", "expected"),
    [
        (8, 0, bytes((7, 8)), b"\0\7", [255, 8]),
        (4, 0, b"\x78", b"\0\7", [255, 136]),
        (2, 0, b"\x60", b"\0\1", [255, 170]),
        (1, 0, b"\x40", b"\0\1", [0, 255]),
        (1, 0, b"\x40", b"\0\0", [255, 255]),
    ],
)
def test_a_gray_colour_key_is_white_at_every_depth(depth, color, row, key, expected):
    data = png(2, 1, depth, color, b"\0" + row, before=chunk(b"tRNS", key))
    np.testing.assert_array_equal(decode_image(data).pixels[0, :, 0], expected)


def test_an_rgb_colour_key_is_white_where_all_three_match():
    key = chunk(b"tRNS", bytes((0, 1, 0, 2, 0, 3)))
    image = decode_image(png(2, 1, 8, 2, b"\0\1\2\3\1\2\4", before=key))
    np.testing.assert_array_equal(image.pixels, [[[255, 255, 255], [1, 2, 4]]])


@pytest.mark.parametrize(
    ("color", "row", "expected"),
    [
        (0, "abcd", [0xAB] * 3),
        (2, "abff01ffff00", [0xAB, 0x01, 0xFF]),
        (4, "abcdffff", [0xAB] * 3),
        (6, "abff01ffff00ffff", [0xAB, 0x01, 0xFF]),
        (4, "000080ff", [0x7F] * 3),
    ],
)
def test_sixteen_bits_keep_their_high_byte(color, row, expected):
    image = decode_image(png(1, 1, 16, color, b"\0" + bytes.fromhex(row)))
    np.testing.assert_array_equal(image.pixels[0, 0], expected)


def test_a_sixteen_bit_colour_key_is_not_applied():
    data = png(1, 1, 16, 0, b"\0\xab\xcd", before=chunk(b"tRNS", b"\xab\xcd"))
    assert decode_image(data).pixels[0, 0, 0] == 0xAB


def test_one_bit_is_black_and_white():
    image = decode_image(png(8, 1, 1, 0, b"\0\x0f"))
    np.testing.assert_array_equal(image.pixels[0, :, 1], [0] * 4 + [255] * 4)


def test_cmyk_becomes_rgb_by_its_rule():
    cmyk = Image.new("CMYK", (16, 16), (10, 20, 30, 40))
    pixels = decode_image(encoded(cmyk, "JPEG", quality=100)).pixels
    expected = [(255 - c) * (255 - 40) / 255 for c in (10, 20, 30)]
    np.testing.assert_allclose(pixels.reshape(-1, 3), [expected] * 256, atol=2)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt", b"gAMA", b"cHRM", b"sRGB"])
def test_profiles_and_text_change_no_pixel(kind):
    noise = np.random.default_rng(0).bytes(2000)
    data = png(50, 36, 8, 2, png_rows(photo()), before=chunk(kind, b"name\0\0" + noise))
    np.testing.assert_array_equal(decode_image(data).pixels, photo())


def test_a_text_bomb_is_never_inflated():
    bomb = b"name\0\0" + zlib.compress(bytes(64 << 20), 9)
    chunks = b"".join(chunk(b"zTXt", bomb) for _ in range(20))
    data = png(50, 36, 8, 2, png_rows(photo()), before=chunks)
    np.testing.assert_array_equal(decode_image(data).pixels, photo())


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pixels_without_a_fixed_range_or_rule_are_refused(mode):
    data = encoded(Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(Exception, match="gray, palette, RGB or CMYK of 8 or 16 bits"):
        decode_image(data, WITH_TIFF)


def test_what_the_first_frame_of_a_gif_does_not_cover_is_white():
    frame = (1, 1, 1, 1, b"", ONE_RED_PIXEL)
    pixels = decode_image(gif(3, 2, [frame])).pixels
    expected = np.full((2, 3, 3), 255)
    expected[1, 1] = (255, 0, 0)
    np.testing.assert_array_equal(pixels, expected)


def test_a_first_frame_that_reaches_over_the_screen_widens_it():
    pixels = decode_image(gif(2, 2, [(1, 1, 3, 1, b"", THREE_PIXELS)])).pixels
    assert pixels.shape == (2, 4, 3)
    assert (pixels[0] == 255).all()


def test_a_transparent_gif_index_is_white():
    control = b"!\xf9\x04\x01\0\0\x01\0"
    pixels = decode_image(gif(1, 1, [(0, 0, 1, 1, control, ONE_RED_PIXEL)])).pixels
    np.testing.assert_array_equal(pixels, [[[255, 255, 255]]])


def test_bytes_are_counted_first():
    limits = DecodeLimits(max_image_bytes=10)
    assert isinstance(limits, DecodeLimits)
    with pytest.raises(ImageBytesError, match="at most 10 bytes of image are accepted, 11 came"):
        decode_image(b"x" * 11, limits)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp-lossy", "gif", "avif"])
def test_sides_and_pixels_are_bounded_to_the_pixel(name):
    data = sound_images()[name][0]
    assert decode_image(data, DecodeLimits(max_pixels=1800, max_side=50)).width == 50
    with pytest.raises(ImageSizeError, match="sides of at most 49 pixels are accepted, 50 x 36"):
        decode_image(data, DecodeLimits(max_side=49))
    with pytest.raises(ImageSizeError, match="at most 1799 pixels are accepted, 50 x 36 = 1800"):
        decode_image(data, DecodeLimits(max_pixels=1799))


def test_a_foreign_format_is_named_with_what_to_send():
    with pytest.raises(ImageFormatError) as caught:
        decode_image(encoded(photo(), "BMP"))
    assert str(caught.value) == (
        "the content is BMP, which this service does not accept; send JPEG, PNG, WebP, AVIF or GIF"
    )
    with pytest.raises(ImageFormatError, match=r"the content is PNG, .* send JPEG$"):
        decode_image(sound_images()["png"][0], DecodeLimits(formats=frozenset({"JPEG"})))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_pixels": 0}, "at least 1"),
        ({"max_side": -1}, "at least 1"),
        ({"max_image_bytes": 0}, "at least 1"),
        ({"max_pixels": 89_478_486}, "at most 89478485"),
        ({"formats": frozenset()}, "got none"),
        ({"formats": frozenset({"EPS"})}, "got EPS"),
    ],
)
def test_limits_that_could_not_be_kept_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        DecodeLimits(**wrong)


def test_heic_needs_its_library(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DependencyError, match="pillow-heif"):
        DecodeLimits(formats=frozenset({"JPEG", "HEIF"}))


def test_an_avif_is_turned_by_its_own_property_and_not_by_its_exif():
    tags = Image.Exif()
    tags[0x0112] = 6
    data = encoded(photo(), "AVIF", exif=tags)
    at = data.index(b"irot") + 4
    unturned = data[:at] + b"\0" + data[at + 1 :]
    assert decode_image(data).pixels.shape == (50, 36, 3)
    assert decode_image(unturned).pixels.shape == (36, 50, 3)
