import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_files import encoded, hostile_images, photo, png, png_rows, sound_images
from PIL import Image

from model.errors import ImageError
from model.image import DecodeLimits, decode_image

EVERY_FORMAT = DecodeLimits(
    formats=frozenset({"JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"})
)


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


@pytest.mark.parametrize("name", [n for n in sound_images() if "trailing" not in n])
def test_no_file_is_accepted_before_its_end(name):
    data, _, _ = sound_images()[name]
    end = len(data) if name != "mpo-first-picture" else data.index(b"\xff\xd9") + 2
    cuts = {*range(0, end, max(1, end // 150)), *range(max(0, end - 25), end)}
    for cut in cuts:
        with pytest.raises(ImageError):
            decode_image(data[:cut])


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
