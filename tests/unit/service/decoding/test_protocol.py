import json

import numpy as np
import pytest

from model.pixels.network_input import NetworkInput
from service.decoding.protocol import ANSWER, pack_image, unpack
from service.decoding.query_image import QueryImage

IMAGE = QueryImage("PNG", NetworkInput(np.zeros((3, 2, 2)), 0.1, 1e-13, 5, 7))


def parts() -> tuple[dict[str, object], bytes]:
    packed = pack_image(IMAGE)
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
