import contextlib
import io
import itertools
import re
import struct
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_files import (
    encoded,
    hostile_images,
    jpeg_of_three_scans,
    photo,
    png,
    png_rows,
    restarting_jpegs,
    sound_images,
)
from PIL import Image, ImageFile

from model.errors import ImageDecodeError, ImageError
from model.pixels.decode import PILLOW_FORMATS, DecodeLimits, decode_image

EVERY_FORMAT = DecodeLimits(formats=PILLOW_FORMATS)


@pytest.mark.parametrize("name", hostile_images())
def test_each_hostile_file_earns_its_own_error_and_in_little_time(name):
    data, error = hostile_images()[name]
    start = time.process_time()
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert type(caught.value) is error
    assert len(str(caught.value)) > 15
    assert time.process_time() - start < 3


@pytest.mark.parametrize("name", hostile_images())
def test_no_message_shows_the_files_bytes_or_an_address(name):
    data, _ = hostile_images()[name]
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert "0x" not in str(caught.value)
    assert "\\x" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [n for n in sound_images() if "trailing" not in n and "without" not in n]
)
def test_no_file_is_accepted_before_its_end(name):
    data, _, _ = sound_images()[name]
    end = len(data) if name != "mpo-first-picture" else data.index(b"\xff\xd9") + 2
    end -= name.startswith("gif")  # Its picture is whole without the trailer.
    end -= 2 * (name == "gif-zeros-at-its-end")
    cuts = {*range(0, end, max(1, end // 150)), *range(max(0, end - 25), end)}
    for cut in cuts:
        with pytest.raises(ImageError):
            decode_image(data[:cut])


@pytest.mark.parametrize("name", restarting_jpegs())
def test_a_jpeg_cut_at_any_restart_marker_and_closed_is_refused(name):
    data, start = restarting_jpegs()[name]
    marks = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", data) if m.start() > start]
    assert len(marks) > 6
    for mark, shift in itertools.product(marks, (-9, 0, 2)):
        for end in (b"\xff\xd9", b"\xff\xd0\xff\xd9", b"\xff\xff\xd9"):
            with pytest.raises(ImageError):
                decode_image(data[: mark + shift] + end)


@pytest.mark.parametrize("name", restarting_jpegs())
def test_a_jpeg_that_lacks_restart_intervals_in_its_middle_is_refused(name):
    data, start = restarting_jpegs()[name]
    marks = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", data) if m.start() > start]
    emptied = data[: marks[1] + 2] + data[marks[2] :]
    shortened = data[: marks[2] - 9] + data[marks[2] :]
    missing = data[: marks[0]] + data[marks[1] :]
    swapped = bytearray(data)
    swapped[marks[1] + 1], swapped[marks[2] + 1] = 0xD2, 0xD1
    for file in (emptied, shortened, missing, bytes(swapped)):
        with pytest.raises(ImageError):
            decode_image(file)


@pytest.mark.parametrize("name", restarting_jpegs())
def test_a_restarting_jpeg_with_a_taller_frame_or_another_interval_is_refused(name):
    data, _ = restarting_jpegs()[name]
    frame = re.search(rb"\xff[\xc0\xc2]", data)
    interval = data.index(b"\xff\xdd") + 4
    assert frame is not None
    for height in (129, 140, 240, 480, 16384):
        taller = data[: frame.start() + 5] + struct.pack(">H", height) + data[frame.start() + 7 :]
        with pytest.raises(ImageError):
            decode_image(taller)
    for wrong in (0, 1, 2, 30_000):
        with pytest.raises(ImageError):
            decode_image(data[:interval] + struct.pack(">H", wrong) + data[interval + 2 :])


def test_a_jpeg_whose_interval_changes_between_scans_is_counted_scan_by_scan():
    head, tables, plain = jpeg_of_three_scans()
    _, _, restarting = jpeg_of_three_scans(interval=2)
    on, off = b"\xff\xdd\0\x04\0\x02", b"\xff\xdd\0\x04\0\0"
    whole = [head, tables, plain[0], on, restarting[1], off, plain[2], b"\xff\xd9"]
    expected = [head, tables, *plain, b"\xff\xd9"]
    np.testing.assert_array_equal(
        decode_image(b"".join(whole)).pixels, decode_image(b"".join(expected)).pixels
    )
    for index in (3, 5):  # Without one of the two definitions the markers do not fit.
        with pytest.raises(ImageError):
            decode_image(b"".join(whole[:index] + whole[index + 1 :]))
    cut = restarting[1][: restarting[1].index(b"\xff\xd3")]
    with pytest.raises(ImageError):
        decode_image(b"".join([*whole[:4], cut, *whole[5:]]))


LENIENT = DecodeLimits(accept_truncated=True)


def through_pillow(data, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("kept", [0.3, 0.7, 1.0])
def test_a_cut_jpeg_is_drawn_as_far_as_it_goes_where_that_is_accepted(options, kept, monkeypatch):
    data = encoded(photo(120, 160), "JPEG", quality=95, **options)
    begins = data.index(b"\xff\xda") + 14
    cut = data[: begins + int(kept * (len(data) - 2 - begins))]
    with pytest.raises(ImageDecodeError, match="ends early"):
        decode_image(cut)
    image = decode_image(cut, LENIENT)
    assert image.is_truncated
    np.testing.assert_array_equal(image.pixels, through_pillow(cut, monkeypatch))
    closed = decode_image(cut + b"\xff\xd9", LENIENT)
    np.testing.assert_array_equal(closed.pixels, image.pixels)
    assert closed.is_truncated == (kept < 1.0)


def test_what_is_whole_is_the_same_where_cut_files_are_accepted():
    for data, _, pixels in sound_images().values():
        image = decode_image(data, LENIENT)
        assert not image.is_truncated
        np.testing.assert_array_equal(image.pixels, pixels)


def test_what_no_decoder_draws_is_refused_where_cut_files_are_accepted():
    jpeg = encoded(photo(), "JPEG")
    for cut in (jpeg[:4], jpeg[:200], jpeg[: jpeg.index(b"\xff\xda") + 3]):
        with pytest.raises(ImageDecodeError):
            decode_image(cut, LENIENT)
    for file_format in ("PNG", "WEBP", "AVIF", "GIF"):
        data = encoded(photo(), file_format)
        with pytest.raises(ImageError):
            decode_image(data[: len(data) * 3 // 4], LENIENT)
    for data, _ in hostile_images().values():
        with contextlib.suppress(ImageError):
            assert decode_image(data, LENIENT).is_truncated


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_first_scan_that_is_cut_is_refused_though_the_others_are_whole(share):
    head, tables, scans = jpeg_of_three_scans(share=share)
    with pytest.raises(ImageError):
        decode_image(b"".join([head, tables, *scans, b"\xff\xd9"]))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_progressive_jpeg_cut_in_its_last_scan_is_refused(share):
    data = encoded(photo(120, 160), "JPEG", quality=95, progressive=True)
    start = data.rindex(b"\xff\xda") + 10
    with pytest.raises(ImageError):
        decode_image(data[: start + int(share * (len(data) - start))] + b"\xff\xd9")


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("sides", [(120, 160), (117, 157), (8, 33), (1, 1)])
@pytest.mark.parametrize("is_progressive", [False, True])
def test_whole_jpegs_with_any_restart_interval_decode_as_without(
    subsampling, sides, is_progressive
):
    options = {"subsampling": subsampling, "progressive": is_progressive}
    plain = decode_image(encoded(photo(*sides), "JPEG", **options)).pixels
    for restarts in ({"restart_marker_rows": 2}, *({"restart_marker_blocks": n} for n in (1, 7))):
        file = encoded(photo(*sides), "JPEG", **options, **restarts)
        np.testing.assert_array_equal(decode_image(file).pixels, plain)
        filled = re.sub(rb"(\xff[\xd0-\xd7])", lambda mark: b"\xff\xff" + mark[0], file[600:])
        np.testing.assert_array_equal(decode_image(file[:600] + filled).pixels, plain)


def test_a_declared_size_takes_no_memory_before_it_is_refused():
    data, _ = hostile_images()["png-bomb-20000x20000"]
    tracemalloc.start()
    with pytest.raises(ImageError):
        decode_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(data) + (1 << 20)


def test_threads_that_mix_sound_and_hostile_files_do_not_disturb_each_other(recwarn):
    jobs = list(sound_images().values()) * 3
    hostile = [data for data, _ in hostile_images().values() if len(data) < 10**6]
    stop = threading.Event()

    def attack():
        while not stop.is_set():
            for data in hostile:
                with pytest.raises(ImageError):
                    decode_image(data)

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            decoded = list(pool.map(lambda job: decode_image(job[0]), jobs))
    finally:
        stop.set()
        attacker.join()
    for (_, file_format, pixels), image in zip(jobs, decoded, strict=True):
        assert image.format == file_format
        np.testing.assert_array_equal(image.pixels, pixels)
    assert not recwarn.list


def test_decoding_leaves_pillows_own_limit_alone():
    before = Image.MAX_IMAGE_PIXELS
    for data, _ in hostile_images().values():
        with pytest.raises(ImageError):
            decode_image(data)
    assert before == Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_set_by_someone_else_is_still_an_image_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError):
        decode_image(png(50, 36, 8, 2, png_rows(photo())))


@pytest.mark.parametrize("file_format", ["BMP", "TIFF"])
def test_formats_of_the_operator_are_checked_before_they_are_decoded(file_format):
    data = encoded(photo(60, 80), file_format)
    assert decode_image(data, EVERY_FORMAT).pixels.shape == (60, 80, 3)
    small = DecodeLimits(max_side=79, formats=EVERY_FORMAT.formats)
    with pytest.raises(ImageError, match="79 pixels are accepted, 80 x 60 came"):
        decode_image(data, small)
    for cut in range(0, len(data), len(data) // 40):
        with pytest.raises(ImageError):
            decode_image(data[:cut], EVERY_FORMAT)
