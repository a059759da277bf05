import json
from dataclasses import replace

import numpy as np
import pytest

from model.pixels.network_input import NetworkInput
from model.pixels.trim import Box, Trim
from service.decoding.protocol import ANSWER, pack_image, unpack
from service.decoding.query_image import QueryImage

IMAGE = QueryImage("PNG", NetworkInput(np.zeros((3, 2, 2)), 0.1, 1e-13, 5, 7))


CROP = QueryImage("PNG", NetworkInput(np.ones((3, 2, 2)), 0.2, 2e-13, 5, 7))
TRIMMED = replace(IMAGE, trim=Trim(Box(0, 1, 7, 4), 0.5), crop=CROP)


def parts(image: QueryImage = IMAGE) -> tuple[dict[str, object], bytes]:
    packed = pack_image(image)
    length, _ = ANSWER.unpack(packed[: ANSWER.size])
    rest = packed[ANSWER.size :]
    return json.loads(rest[:length]), rest[length:]


def test_bounds_come_back_bit_for_bit():
    header, array = parts()
    found = unpack(json.dumps(header).encode(), array, 2).input
    assert (found.gain, found.input_error) == (IMAGE.input.gain, IMAGE.input.input_error)


@pytest.mark.parametrize("name", ["gain", "input_error"])
@pytest.mark.parametrize("bound", [float("nan"), float("inf"), 0.0, -1.0, "0.1", None])
def test_a_bound_that_is_no_number_never_reaches_a_radius(name: str, bound: object):
    header, array = parts()
    with pytest.raises(ValueError, match="bounds that are no numbers"):
        unpack(json.dumps(header | {name: bound}).encode(), array, 2)


def test_a_trimmed_image_comes_back_with_its_crop():
    header, array = parts(TRIMMED)
    found = unpack(json.dumps(header).encode(), array, 2, wants_trim=True)
    assert found.trim == TRIMMED.trim
    np.testing.assert_array_equal(found.crop.input.values, CROP.input.values)
    assert (found.crop.input.gain, found.crop.input.input_error) == (0.2, 2e-13)
    np.testing.assert_array_equal(found.input.values, IMAGE.input.values)


@pytest.mark.parametrize("radius", [0.0, float("inf")])
def test_an_image_that_is_all_of_its_box_has_no_crop(radius: float):
    header, array = parts(replace(IMAGE, trim=Trim(Box(0, 0, 7, 5), radius)))
    found = unpack(json.dumps(header).encode(), array, 2, wants_trim=True)
    assert (found.trim.radius, found.crop) == (radius, None)


@pytest.mark.parametrize(
    "trim",
    [
        None,
        [[0, 1, 8, 4], 0.5],
        [[0, 1, 7, 6], 0.5],
        [[0, -1, 7, 4], 0.5],
        [[3, 1, 3, 4], 0.5],
        [[0, 1.5, 7, 4], 0.5],
        [[0, 1, 7], 0.5],
        [[0, 1, 7, 4], -1.0],
        [[0, 1, 7, 4], float("nan")],
        [[0, 1, 7, 4], None],
    ],
)
def test_a_box_or_trim_radius_that_is_none_never_reaches_an_answer(trim: object):
    header, array = parts(TRIMMED)
    with pytest.raises((ValueError, TypeError)):
        unpack(json.dumps(header | {"trim": trim}).encode(), array, 2, wants_trim=True)


def test_a_crop_without_its_pixels_or_bounds_is_no_answer():
    header, array = parts(TRIMMED)
    half = array[: len(array) // 2]
    with pytest.raises(ValueError, match="reshape"):
        unpack(json.dumps(header).encode(), half, 2, wants_trim=True)
    del header["crop"]
    with pytest.raises(KeyError):
        unpack(json.dumps(header).encode(), half, 2, wants_trim=True)


def test_pixels_come_back_as_they_were_and_only_where_they_were_wanted():
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    for image in (IMAGE, TRIMMED):
        header, array = parts(replace(image, pixels=pixels))
        given = {"wants_trim": image is TRIMMED, "wants_image": True}
        found = unpack(json.dumps(header).encode(), array, 2, **given)
        np.testing.assert_array_equal(found.pixels, pixels)
        np.testing.assert_array_equal(found.input.values, image.input.values)
        with pytest.raises(ValueError, match=r"reshape|buffer"):
            unpack(json.dumps(header).encode(), array, 2, wants_trim=image is TRIMMED)
        with pytest.raises(ValueError, match=r"reshape|buffer"):
            unpack(json.dumps(header | {"height": 6}).encode(), array, 2, **given)
