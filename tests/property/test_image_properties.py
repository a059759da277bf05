import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import hostile_images, jpeg_with, png, sound_images

from model.errors import ImageError
from model.pixels.decode import PILLOW_FORMATS, DecodeLimits, decode_image

# Small limits: what is tried here is the variety of files, not their size.
LIMITS = DecodeLimits(max_pixels=100_000, formats=PILLOW_FORMATS)
FILES = [data for data, _, _ in sound_images().values()]
HOSTILE = [data[:20_000] for data, _ in hostile_images().values()]
MAGICS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\xff\0\0\0WEBPVP8 ",
    b"RIFF\xff\0\0\0WEBPVP8X",
    b"\0\0\0\x18ftypavif\0\0\0\0avifmif1",
    b"BM",
    b"II*\0",
    b"MM\0*",
]


def is_image_or_image_error(data):
    try:
        image = decode_image(data, LIMITS)
    except ImageError:
        return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.ndim == 3
    assert image.pixels.shape[2] == 3
    assert 1 <= image.height * image.width <= LIMITS.max_pixels
    assert image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(decode_image(data, LIMITS).pixels, image.pixels)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_an_image_error(data):
    is_image_or_image_error(data)


@given(st.sampled_from(MAGICS), st.binary(max_size=300))
def test_any_bytes_after_a_formats_magic_are_an_image_or_an_image_error(magic, data):
    is_image_or_image_error(magic + data)


@settings(max_examples=400)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_real_files_with_changed_bytes(data, changes):
    damaged = bytearray(data)
    for share, value in changes:
        damaged[int(share * (len(data) - 1))] = value
    is_image_or_image_error(bytes(damaged))


@settings(max_examples=200)
@given(
    st.sampled_from(FILES),
    st.integers(0, 200),
    st.sampled_from(
        [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff"]
    ),
)
def test_real_files_with_extreme_numbers_in_their_headers(data, offset, number):
    is_image_or_image_error(data[:offset] + number + data[offset + len(number) :])


@settings(max_examples=200)
@given(st.sampled_from(FILES), st.sampled_from(FILES + HOSTILE), st.floats(0, 1), st.floats(0, 1))
def test_two_files_spliced(first, second, cut, resume):
    is_image_or_image_error(first[: int(cut * len(first))] + second[int(resume * len(second)) :])


@settings(max_examples=150)
@given(st.sampled_from(FILES), st.floats(0, 1), st.floats(0, 1), st.integers(1, 3))
def test_a_stretch_repeated_or_left_out(data, start, stop, times):
    low, high = sorted((int(start * len(data)), int(stop * len(data))))
    is_image_or_image_error(data[:low] + data[low:high] * times + data[high:])
    is_image_or_image_error(data[:low] + data[high:])


@given(st.sampled_from(FILES), st.sampled_from(FILES))
def test_of_two_files_in_one_the_first_is_read(first, second):
    alone = decode_image(first).pixels
    try:
        both = decode_image(first + second)
    except ImageError:
        return  # AVIF boxes go on to the end of a file, so another file inside them is damage.
    np.testing.assert_array_equal(both.pixels, alone)


@given(st.integers(0, 0xEF), st.binary(max_size=200))
def test_any_jpeg_segment_is_ignored_or_refused(marker, body):
    try:
        image = decode_image(jpeg_with(0xE0 + marker % 16, body))
    except ImageError:
        return
    assert {image.height, image.width} == {36, 50}


@given(st.binary(max_size=120))
def test_any_exif_turns_a_picture_or_leaves_it(tiff):
    shape = decode_image(jpeg_with(0xE1, b"Exif\0\0" + tiff)).pixels.shape
    assert shape in ((36, 50, 3), (50, 36, 3))


@given(
    width=st.integers(1, 20),
    height=st.integers(1, 20),
    depth=st.sampled_from([1, 2, 4, 8, 16]),
    color=st.sampled_from([0, 2, 4, 6]),
    missing=st.integers(0, 30),
)
def test_a_png_decodes_if_and_only_if_all_its_rows_are_there(width, height, depth, color, missing):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    row = b"\0" + b"\0" * ((width * channels * depth + 7) // 8)
    rows = row * height
    whole = missing == 0
    data = png(width, height, depth, color, rows[: len(rows) - missing] if missing else rows)
    if depth < 8 and color:
        with pytest.raises(ImageError):
            decode_image(data)
    elif whole:
        assert decode_image(data).pixels.shape == (height, width, 3)
    else:
        with pytest.raises(ImageError):
            decode_image(data)
