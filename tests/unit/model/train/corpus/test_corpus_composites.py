import io
from itertools import pairwise

import numpy as np
import pytest
from corpus_tools import drawing, picture
from PIL import Image

from model.train.corpus.composites import (
    Material,
    draw_background,
    draw_composite,
    noise,
)
from model.train.corpus.files import FileEntry
from model.train.corpus.pictures import Prepared, crop_boxes, encode, prepare
from model.train.corpus.recipe import Source

CUTOUTS = tuple(
    Material(encode(Image.fromarray(drawing(n)), None), f"cut-{n}", "public domain")
    for n in range(4)
)
PHOTOS = tuple(
    Material(encode(Image.fromarray(picture(n, 200, 300)), 90), f"photo-{n}", "BSD-3-Clause")
    for n in range(2)
)


def pixels_of(prepared):
    return np.asarray(Image.open(io.BytesIO(prepared.image)).convert("RGB"))


def slope(gray):
    """Of log power over log frequency, over rings."""
    power = np.abs(np.fft.fft2(gray - gray.mean())) ** 2
    y, x = np.fft.fftfreq(gray.shape[0])[:, None], np.fft.fftfreq(gray.shape[1])[None]
    frequency = np.hypot(y, x)
    edges = np.geomspace(0.02, 0.5, 12)
    rings = [power[(frequency >= a) & (frequency < b)].mean() for a, b in pairwise(edges)]
    return np.polyfit(np.log(edges[1:]), np.log(rings), 1)[0]


def test_the_noise_falls_as_natural_pictures_do():
    slopes = [
        slope(noise(128, 128, np.random.default_rng(seed)).astype(float).mean(axis=2))
        for seed in range(40)
    ]
    # Amplitude 1/f^0.9 to 1/f^1.9 is power f^-1.8 to f^-3.8; clipping and steps add some.
    assert min(slopes) > -4.2
    assert max(slopes) < -1.2
    assert np.ptp(slopes) > 1


def test_a_number_draws_one_picture_and_the_next_another():
    again = [draw_composite(CUTOUTS, PHOTOS, 0, 7).image for _ in range(2)]
    assert again[0] == again[1]
    assert draw_background(0, 7).image == draw_background(0, 7).image
    drawn = [
        draw_composite(CUTOUTS, PHOTOS, seed, number).image for seed in (0, 1) for number in (0, 1)
    ]
    assert len(set(drawn)) == 4


def test_a_composite_shows_what_it_says_it_is_made_of():
    plain = encode(Image.new("RGBA", (64, 64), (255, 0, 255, 255)), None)
    pink = 0
    for number in range(20):
        composite = draw_composite([Material(plain, "pink", "PD")], (), 0, number)
        assert set(composite.parts) == {"pink"}
        assert (composite.licence, composite.label, composite.split) == ("PD", None, "train")
        pixels = pixels_of(composite).astype(int)
        assert max(pixels.shape[:2]) == 128
        pink += (np.abs(pixels - (255, 0, 255)).max(axis=2) < 40).mean() > 0.02
    assert pink >= 18


def corner(prepared):
    """Colours of a band along the upper edge, where cut-outs seldom lie."""
    return pixels_of(prepared)[:3].reshape(-1, 3).astype(int)


def test_half_lie_on_one_colour_and_a_quarter_on_photographs():
    drawn = [draw_composite(CUTOUTS, PHOTOS, 3, number) for number in range(200)]
    on_photos = [one for one in drawn if one.parts[0].startswith("photo")]
    others = [one for one in drawn if not one.parts[0].startswith("photo")]
    on_plain = [one for one in others if np.ptp(corner(one), axis=0).max() < 12]
    on_white = [one for one in on_plain if corner(one).min() > 240]
    assert 30 <= len(on_photos) <= 70
    assert 55 <= len(on_plain) <= 120  # some are hidden by a cut-out on the edge
    assert len(on_plain) / 2 < len(on_white) < len(on_plain)
    assert {one.licence for one in on_photos} == {"BSD-3-Clause; public domain"}


def test_without_photographs_the_rest_lie_on_noise():
    drawn = [draw_composite(CUTOUTS, (), 3, number) for number in range(40)]
    assert all(part.startswith("cut") for one in drawn for part in one.parts)
    assert 8 <= sum(np.ptp(corner(one), axis=0).max() > 40 for one in drawn) <= 36


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (200, 900), (900, 200), (70, 70)])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_crops_are_disjoint_inside_and_large_enough(shape, count):
    source = Source(name="s", licence="CC0-1.0", folder=".", crops=count, min_side=60)
    boxes = crop_boxes(*shape, source, np.random.default_rng(0))
    assert len(boxes) <= count
    if min(shape) >= 200:
        assert boxes
    seen = np.zeros(shape, dtype=int)
    for left, top, right, bottom in boxes:
        assert 0 <= left <= right - 60
        assert 0 <= top <= bottom - 60
        assert right <= shape[1]
        assert bottom <= shape[0]
        seen[top:bottom, left:right] += 1
    assert seen.max(initial=0) <= 1


@pytest.fixture
def only(tmp_path):
    """What a file of one training source gives."""

    def prepared(image, **fields):
        image.save(tmp_path / "a.png")
        source = Source(name="s", licence="CC0-1.0", folder=".", shares={"train": 1.0}, **fields)
        (found,) = prepare((FileEntry("a.png", tmp_path / "a.png"), source, 0))
        assert isinstance(found, Prepared)
        return found

    return prepared


def test_a_cutout_is_the_drawing_without_the_space_around_it(only):
    canvas = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    canvas.paste(Image.fromarray(drawing(3, 100)), (250, 150))
    found = only(canvas, cutouts=True)
    cutout = Image.open(io.BytesIO(found.cutout))
    assert cutout.mode == "RGBA"
    assert max(cutout.size) <= 100
    alpha = np.asarray(cutout)[..., 3] >= 128
    assert alpha[0].any()
    assert alpha[-1].any()
    assert alpha[:, 0].any()
    assert alpha[:, -1].any()


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(picture(1)),
        Image.fromarray(picture(1)).convert("RGBA"),
    ],
    ids=["no alpha", "all opaque"],
)
def test_what_has_no_shape_of_its_own_is_no_cutout(image, only):
    assert only(image, cutouts=True).cutout is None


def test_what_is_partly_transparent_is_clip_art(only):
    assert only(Image.fromarray(drawing(2)), kind="auto").kind == "clipart"
    assert only(Image.fromarray(picture(2)), kind="auto").kind == "photo"
    assert only(Image.fromarray(picture(2)).convert("RGBA"), kind="auto").kind == "photo"
