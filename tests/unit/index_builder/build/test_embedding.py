import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from index_tools import TinyEmbedder, black_picture, picture
from PIL import Image

from index_builder.build.embedding import (
    THUMBNAIL_SIDE,
    EmbeddingPipeline,
    Rejected,
    draw_thumbnail,
    image_problem,
    unit_vector,
)
from index_builder.sources.base import Problem
from model import errors
from model.pixels.decode import DecodedImage, DecodeLimits, decode_image


@given(
    hnp.arrays(
        np.float64, st.integers(1, 50), elements=st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_any_finite_embedding_gives_a_unit_vector_or_is_named(embedding):
    unit = unit_vector(embedding, 0.0)
    if isinstance(unit, Problem):
        assert not embedding.any()
        return
    vector = np.frombuffer(unit, "<f4").astype(np.float64)
    assert abs(np.linalg.norm(vector) - 1) < 1e-7
    assert not np.signbit(vector[vector == 0]).any()


@pytest.mark.parametrize(
    ("embedding", "code"),
    [
        ([0.0, -0.0], "zero_embedding"),
        ([1e-9, 0.0], "zero_embedding"),
        ([np.nan, 1.0], "bad_embedding"),
        ([np.inf, 1.0], "bad_embedding"),
    ],
)
def test_an_embedding_without_a_direction_is_named(embedding, code):
    problem = unit_vector(np.array(embedding), 1e-8)
    assert isinstance(problem, Problem)
    assert problem.code == code


@pytest.mark.parametrize("size", [(1, 1), (500, 20), (3, 4000), (96, 96), (97, 50)])
def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape(size):
    height, width = size
    jpeg = draw_thumbnail(DecodedImage(np.full((height, width, 3), 77, np.uint8), "PNG"))
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        assert max(image.size) <= THUMBNAIL_SIDE
        assert image.size[0] >= image.size[1] if width >= height else True


def test_every_image_error_has_its_own_code():
    kinds = errors.ImageError.__subclasses__()
    codes = {image_problem(kind("x")).code for kind in kinds}
    assert len(kinds) >= 5
    assert len(codes) == len(kinds)
    assert "image" not in codes


def test_the_pipeline_gives_each_file_once_in_order_with_bad_ones_named():
    pipeline = EmbeddingPipeline(TinyEmbedder(), limits=DecodeLimits(), threads=3)
    wanted, got = [], []
    for n in range(75):
        data = (
            b""
            if n % 9 == 4
            else b"junk"
            if n % 9 == 5
            else black_picture()
            if n % 9 == 6
            else picture(n)
        )
        pipeline.submit(f"{n:03d}", data)
        wanted.append(f"{n:03d}")
        got += pipeline.ready()
    got += pipeline.rest()
    pipeline.close()
    assert sorted(result.content_sha256 for result in got) == wanted
    reasons = {r.content_sha256: r.problem.code for r in got if isinstance(r, Rejected)}
    assert [reasons.get(f"{n:03d}") for n in range(4, 8)] == [
        "empty",
        "format",
        "zero_embedding",
        None,
    ]
    good = {r.content_sha256: r for r in got if not isinstance(r, Rejected)}
    pixels = decode_image(picture(7))
    assert (good["007"].width, good["007"].height) == (pixels.width, pixels.height)


class CountingEmbedder(TinyEmbedder):
    def __init__(self):
        super().__init__()
        self.sizes = []

    def embed_pixels(self, x):
        self.sizes.append(len(x))
        return super().embed_pixels(x)


def test_large_files_go_through_the_network_in_whole_batches():
    """Where bytes under way are bounded, the oldest file is waited for, not all of them."""
    embedder, data = CountingEmbedder(), picture(1)
    limits = DecodeLimits()
    pipeline = EmbeddingPipeline(embedder, limits=limits, threads=2, max_bytes_ahead=4 * len(data))
    got = []
    for number in range(64):
        pipeline.submit(f"{number}", data)
        got += pipeline.ready()
        assert sum(task.size for task in pipeline._undecoded) < 4 * len(data)
    got += pipeline.rest()
    pipeline.close()
    assert embedder.sizes == [16, 16, 16, 16]
    assert [one.content_sha256 for one in got] == [f"{number}" for number in range(64)]
