"""What the network saw of an image, for people: the very input, rounded to 8 bits."""

import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image
from service_helpers import draw_picture, encode

from model.embedder import Embedder
from model.pixels.decode import decode_image
from model.pixels.network_input import network_input

PICTURE = encode(draw_picture(3, 130, 70))


def shown(member: dict) -> np.ndarray:
    content = base64.b64decode(member["input_png"], validate=True)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


@pytest.mark.parametrize(("path", "member"), [("/v1/search", "query"), ("/v1/embed", "image")])
def test_it_is_the_input_of_the_network_whether_a_cache_knows_the_image_or_not(
    client: httpx.Client, path: str, member: str
):
    expected = network_input(decode_image(PICTURE), Embedder.load().input_size).values
    for _ in range(2):
        answer = client.post(path, files={"image": PICTURE}, data={"include_input": "true"}).json()
        levels = shown(answer[member])
        assert np.abs(levels.transpose(2, 0, 1) - 255 * expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("path", "member"), [("/v1/search", "query"), ("/v1/embed", "image")])
def test_it_changes_nothing_else_and_is_absent_where_nobody_asks(
    client: httpx.Client, path: str, member: str
):
    plain, asked = (
        client.post(path, files={"image": PICTURE}, params=params).json()
        for params in ({}, {"include_input": "true"})
    )
    assert "input_png" not in plain[member]
    del asked[member]["input_png"], asked["timings_ms"], plain["timings_ms"]
    assert plain == asked


def test_it_goes_into_no_record(client: httpx.Client):
    both = {"include_input": "true", "include_audit": "true"}
    refused = client.post("/v1/search", files={"image": PICTURE}, data=both)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_parameter")
    assert refused.json()["errors"][0]["field"] == "include_input"
