"""No image, whatever it holds, causes a 500: hostile bytes over HTTP, and the service lives on."""

import io
import struct
import zlib

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from service_helpers import draw_picture, encode

PICTURE = draw_picture(1, 48, 40)
FILES = {kind: encode(PICTURE, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "AVIF")}
DOCUMENTED = {
    200: {None},
    413: {"image_too_large", "body_too_large"},
    415: {"unsupported_image_format"},
    422: {"empty_image", "undecodable_image", "image_dimensions"},
}


def send(client: httpx.Client, image: bytes) -> httpx.Response:
    response = client.post(
        "/v1/search?k=1", content=image, headers={"Content-Type": "application/octet-stream"}
    )
    assert response.status_code in DOCUMENTED, response.text
    assert response.json().get("code") in DOCUMENTED[response.status_code]
    return response


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files_are_refused_or_complete(client: httpx.Client, kind: str, share: float):
    send(client, FILES[kind][: int(len(FILES[kind]) * share)])


@pytest.mark.parametrize("kind", FILES)
def test_whole_files_are_answered_whatever_follows_them(client: httpx.Client, kind: str):
    assert send(client, FILES[kind]).status_code == 200
    send(client, FILES[kind] + b"<?php system('id') ?>" + FILES["PNG"])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text", b"hello, world\n" * 100),
        ("html", b"<html><script>alert(1)</script></html>"),
        (
            "svg",
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        ),
        ("pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
        ("zip", b"PK\x03\x04" + b"\0" * 100),
        ("one byte", b"\0"),
        ("jpeg marker", b"\xff\xd8\xff"),
        ("png marker", b"\x89PNG\r\n\x1a\n"),
        ("bomb", png_claiming(60_000, 60_000)),
        ("zero width", png_claiming(0, 10)),
        ("zero height", png_claiming(10, 0)),
        ("huge side", png_claiming(2**31 - 1, 1)),
        ("long", png_claiming(1, 30_000)),
        ("too short data", png_claiming(900, 900)),
        ("bmp", encode(PICTURE, "BMP")),
        ("tiff", encode(PICTURE, "TIFF")),
        ("ico", encode(PICTURE, "ICO")),
        ("ppm", encode(PICTURE, "PPM")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_pictures_of_ours_are_refused(
    client: httpx.Client, name: str, data: bytes
):
    assert send(client, data).status_code in (415, 422), name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_pixel_mode_is_answered(client: httpx.Client, mode: str):
    if mode == "I;16":
        picture = Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13)
    else:
        picture = PICTURE.convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert send(client, buffer.getvalue()).status_code == 200


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2), (2000, 2000)])
def test_every_allowed_size_is_answered_with_finite_numbers(
    client: httpx.Client, size: tuple[int, int]
):
    answer = send(client, encode(draw_picture(5, *size))).json()
    radius = answer["results"][0]["certified_radius"]
    assert np.isfinite(radius)
    assert radius >= 0


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(min_size=0, max_size=400))
def test_random_bytes_are_refused(client: httpx.Client, data: bytes):
    assert send(client, data).status_code in (415, 422)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(sorted(FILES)),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files_get_a_documented_answer(
    client: httpx.Client, kind: str, places: list[tuple[float, int]]
):
    data = bytearray(FILES[kind])
    for share, value in places:
        data[int(share * (len(data) - 1))] = value
    send(client, bytes(data))


def test_the_service_still_answers_after_all_that(client: httpx.Client):
    assert client.get("/readyz").status_code == 200
    assert send(client, FILES["PNG"]).status_code == 200
