"""A record gives back what was packed, bit for bit; anything else gives nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.embedder import ImageEmbedding
from model.pixels.decode import ALL_FORMATS
from model.pixels.trim import Box, Trim
from service.work.cache.memory import CachedEmbedding
from service.work.cache.shared import RecordCodec, RecordError

DIM = 24
CONTEXT = bytes(range(32))
CODEC = RecordCodec(b"a secret of the deployment", CONTEXT, DIM)
SHA256 = "5f" * 32

finite = st.floats(allow_nan=False, allow_infinity=False)
vectors = st.lists(finite, min_size=DIM, max_size=DIM).map(np.array)
images = st.builds(
    CachedEmbedding,
    st.sampled_from(sorted(ALL_FORMATS)),
    st.builds(
        ImageEmbedding,
        vectors,
        st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        st.floats(min_value=0, allow_infinity=False),
        st.integers(1, 20_000),
        st.integers(1, 20_000),
    ),
)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
RECORD = CODEC.pack(
    SHA256, CachedEmbedding("PNG", ImageEmbedding(np.linspace(-1, 1, DIM), 0.5, 1e-11, 480, 640))
)


@given(hashes, images)
def test_a_record_gives_back_what_was_packed_bit_for_bit(sha256: str, found: CachedEmbedding):
    record = CODEC.pack(sha256, found)
    assert len(record) == CODEC.length()
    again = CODEC.unpack(sha256, record)
    one, two = found.embedding, again.embedding
    assert again.format == found.format
    assert one.vector.tobytes() == two.vector.tobytes()
    assert two.vector.dtype == np.float64
    numbers = ("gain", "forward_error", "height", "width")
    assert [getattr(one, n) for n in numbers] == [getattr(two, n) for n in numbers]
    assert not two.vector.flags.writeable


EMBEDDING = ImageEmbedding(np.linspace(-1, 1, DIM), 0.5, 1e-11, 480, 640)
CROP = ImageEmbedding(np.linspace(1, -2, DIM), 0.25, 1e-12, 480, 640)
TRIMS = {
    "whole": (Trim(Box(0, 0, 640, 480), math.inf), None),
    "cropped": (Trim(Box(3, 40, 640, 479), 0.125), CROP),
}


@pytest.mark.parametrize("kind", TRIMS)
def test_a_record_of_a_trimmed_file_gives_back_box_radius_and_crop_bit_for_bit(kind: str):
    trim, crop = TRIMS[kind]
    record = CODEC.pack(SHA256, CachedEmbedding("PNG", EMBEDDING, trim, crop))
    assert len(record) == CODEC.length(is_trimmed=True)
    again = CODEC.unpack(SHA256, record, is_trimmed=True)
    assert again.trim == trim
    assert again.embedding.vector.tobytes() == EMBEDDING.vector.tobytes()
    if crop is None:
        assert again.crop is None
    else:
        assert again.crop.vector.tobytes() == crop.vector.tobytes()
        for name in ("gain", "forward_error", "height", "width"):
            assert getattr(again.crop, name) == getattr(crop, name)


def test_a_record_of_a_trimmed_file_is_none_of_the_file_as_it_is_nor_the_other_way_round():
    record = CODEC.pack(SHA256, CachedEmbedding("PNG", EMBEDDING, *TRIMS["cropped"]))
    for question, answer in ((False, record), (True, RECORD), (True, record[: len(RECORD)])):
        with pytest.raises(RecordError):
            CODEC.unpack(SHA256, answer, is_trimmed=question)
    assert CODEC.name(SHA256, is_trimmed=True) != CODEC.name(SHA256)


@pytest.mark.parametrize(
    "trim",
    [
        Trim(Box(0, 0, 641, 480), 0.1),
        Trim(Box(0, 0, 640, 481), 0.1),
        Trim(Box(5, 0, 5, 480), 0.1),
        Trim(Box(0, 9, 640, 8), 0.1),
        Trim(Box(0, 1, 640, 480), math.nan),
        Trim(Box(0, 1, 640, 480), -1.0),
    ],
)
def test_a_box_that_no_picture_has_is_a_miss_even_under_the_true_secret(trim: Trim):
    record = CODEC.pack(SHA256, CachedEmbedding("PNG", EMBEDDING, trim, CROP))
    with pytest.raises(RecordError):
        CODEC.unpack(SHA256, record, is_trimmed=True)


def test_every_single_bit_flip_is_a_miss():
    for place in range(8 * len(RECORD)):
        flipped = bytearray(RECORD)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(RecordError):
            CODEC.unpack(SHA256, bytes(flipped))


@given(st.binary(max_size=2 * len(RECORD)))
def test_any_bytes_are_a_miss(data: bytes):
    with pytest.raises(RecordError):
        CODEC.unpack(SHA256, data)


@given(st.data())
def test_any_change_of_a_record_is_a_miss(data: st.DataObject):
    place = data.draw(st.integers(0, len(RECORD)))
    gone = data.draw(st.integers(0, len(RECORD) - place))
    put = data.draw(st.binary(max_size=40))
    changed = RECORD[:place] + put + RECORD[place + gone :]
    if changed != RECORD:
        with pytest.raises(RecordError):
            CODEC.unpack(SHA256, changed)


@given(hashes)
def test_a_record_is_worth_nothing_for_another_file(other: str):
    if other != SHA256:
        with pytest.raises(RecordError):
            CODEC.unpack(other, RECORD)
        assert CODEC.name(other) != CODEC.name(SHA256)


@pytest.mark.parametrize(
    "other",
    [
        RecordCodec(b"another secret", CONTEXT, DIM),
        RecordCodec(b"", CONTEXT, DIM),
        RecordCodec(b"a secret of the deployment", bytes(32), DIM),
    ],
)
def test_a_record_is_worth_nothing_to_other_deployments(other: RecordCodec):
    with pytest.raises(RecordError):
        other.unpack(SHA256, RECORD)
    with pytest.raises(RecordError):
        CODEC.unpack(SHA256, other.pack(SHA256, CODEC.unpack(SHA256, RECORD)))
    assert other.name(SHA256) != CODEC.name(SHA256)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("member", ["vector", "gain", "forward_error"])
def test_numbers_that_no_embedding_has_are_a_miss_even_under_the_true_secret(
    poison: float, member: str
):
    """A replica may have faults of its own; no certificate may rest on them."""
    values: dict = {"vector": np.ones(DIM), "gain": 1.0, "forward_error": 0.0}
    values[member] = np.full(DIM, poison) if member == "vector" else poison
    faulty = CachedEmbedding("PNG", ImageEmbedding(**values, height=1, width=1))
    with pytest.raises(RecordError):
        CODEC.unpack(SHA256, CODEC.pack(SHA256, faulty))


@pytest.mark.parametrize(
    ("gain", "error", "height", "width", "name"),
    [
        (0.0, 0.0, 1, 1, "PNG"),
        (-1.0, 0.0, 1, 1, "PNG"),
        (1.0, -1e-300, 1, 1, "PNG"),
        (1.0, 0.0, 0, 1, "PNG"),
        (1.0, 0.0, 1, 0, "PNG"),
        (1.0, 0.0, 1, 1, ""),
        (1.0, 0.0, 1, 1, "a\n"),
    ],
)
def test_sizes_and_bounds_that_no_image_has_are_a_miss(
    gain: float, error: float, height: int, width: int, name: str
):
    faulty = CachedEmbedding(name, ImageEmbedding(np.ones(DIM), gain, error, height, width))
    with pytest.raises(RecordError):
        CODEC.unpack(SHA256, CODEC.pack(SHA256, faulty))
