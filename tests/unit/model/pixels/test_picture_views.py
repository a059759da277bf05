import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.pixels.views import VIEW_SETS, VIEWS, WHITE, View, border_colour


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 255, (height, width, 3), np.uint8)


def test_the_whole_picture_is_seen_as_it_is():
    pixels = picture(7, 5)
    assert np.array_equal(VIEWS["whole"].of(pixels), pixels)


def test_a_shifted_view_holds_what_stays_and_has_the_borders_colour_where_the_picture_left():
    pixels = picture(200, 100)
    seen = VIEWS["move-right-down"].of(pixels)
    assert seen.shape == pixels.shape
    assert np.array_equal(seen[17:, 8:], pixels[:-17, :-8])
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert border_colour(pixels) == tuple(edges.mean(axis=0).round())
    assert (seen[:17] == border_colour(pixels)).all()
    assert (seen[:, :8] == border_colour(pixels)).all()


def test_a_crop_is_the_middle_and_a_border_puts_the_picture_there():
    pixels = picture(100, 200)
    assert np.array_equal(View(0.1, 0.2, 0.9, 0.8).of(pixels), pixels[20:80, 20:180])
    grown = VIEWS["border-116"].of(pixels)
    assert grown.shape == (116, 232, 3)
    assert np.array_equal(grown[8:108, 16:216], pixels)
    assert (grown == WHITE).sum() >= 3 * (116 * 232 - 100 * 200)


def test_a_rotated_view_is_turned_about_its_middle_and_rotating_back_undoes_it():
    down, across = np.mgrid[0:90, 0:120]
    pixels = np.stack([down, across, down + across], axis=2).astype(np.uint8)
    left = VIEWS["rotate-left-8"].of(pixels)
    assert left.shape == pixels.shape
    assert (left[0, 0] == border_colour(pixels)).all()
    # Anticlockwise: what was right of the middle is higher now.
    assert left[45, 100, 0] > pixels[45, 100, 0] + 4
    back = VIEWS["rotate-right-8"].of(left)
    assert np.abs(back[30:60, 40:80].astype(int) - pixels[30:60, 40:80]).max() <= 2


def test_mirror_and_turns():
    pixels = picture(4, 6)
    assert np.array_equal(VIEWS["mirror"].of(pixels), pixels[:, ::-1])
    assert VIEWS["turn-90"].of(pixels).shape == (6, 4, 3)
    assert np.array_equal(VIEWS["turn-180"].of(pixels), pixels[::-1, ::-1])


@pytest.mark.parametrize("name", VIEWS)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_every_view_of_the_smallest_pictures_holds_a_pixel_of_them(
    name: str, height: int, width: int
):
    pixels = np.full((height, width, 3), 7, np.uint8)
    seen = VIEWS[name].of(pixels)
    assert seen.dtype == np.uint8
    assert seen.flags.c_contiguous
    assert (seen == 7).any()


def test_a_trimmed_view_is_without_borders_and_the_whole_where_there_are_none():
    pixels = picture(60, 60)
    letterboxed = np.zeros((90, 60, 3), np.uint8)
    letterboxed[15:75] = pixels
    assert np.array_equal(VIEWS["trimmed"].of(letterboxed), pixels)
    assert np.array_equal(VIEWS["trimmed"].of(pixels), pixels)


def test_sets_name_views_that_there_are_and_see_the_whole_picture_first():
    for names in VIEW_SETS.values():
        assert names[0] == "whole"
        assert set(names) <= set(VIEWS)
        assert len(set(names)) == len(names)
