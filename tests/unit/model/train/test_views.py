"""The two views: geometry, colours, and how often each thing happens."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import photo
from torch.utils.data import default_collate

from model.pixels import resize
from model.pixels.resize import resize_operator
from model.train.views import draws, framed, square, turn_hue, two_views


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def view(seed: int = 0, side: int = 12) -> np.ndarray:
    return random(seed).random((3, side, side), dtype=np.float32)


def batch_of(squares: list[np.ndarray], seeds: list[int]) -> dict[str, torch.Tensor]:
    """As a task makes it: squares, and what is drawn for each."""
    drawn = default_collate([draws(random(seed)) for seed in seeds])
    return {"square": torch.from_numpy(np.stack(squares)), **drawn}


def views_of(squares: list[np.ndarray], seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    plain, edited = two_views(batch_of(squares, seeds))
    return plain.numpy(), edited.numpy()


def jittered(whole: np.ndarray, seeds: range) -> np.ndarray:
    """Every picture jittered, none mirrored or gray."""
    batch = batch_of([whole] * len(seeds), list(seeds))
    batch["mirrored"][:], batch["order"][:, 4] = False, -1
    return two_views(batch)[1][batch["order"][:, 0] >= 0].numpy()


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(10, 13, 2, 4), (9, 12, 2, 3), (6, 6, 0, 0)]
)
def test_a_centre_crop_is_the_middle_of_the_picture_as_it_is(height, width, top, left):
    pixels = photo(height, width)
    wanted = pixels[top : top + 6, left : left + 6].transpose(2, 0, 1) / 255
    assert framed(pixels, 6, "center-crop") == pytest.approx(wanted)


def test_a_smaller_picture_stands_in_black_with_the_odd_pixel_after_it():
    pixels = photo(4, 5)
    found = framed(pixels, 8, "center-crop")
    assert found[:, 2:6, 1:6] == pytest.approx(pixels.transpose(2, 0, 1) / 255)
    assert found.sum() == pytest.approx(pixels.sum() / 255)


def test_the_other_framing_is_the_resize_of_serving():
    pixels = photo(20, 33)
    wanted = resize_operator(20, 33, 8).apply(pixels)
    assert framed(pixels, 8, "resize") == pytest.approx(wanted, abs=1e-6)


def test_a_size_seen_for_the_first_time_costs_no_proof_that_training_does_not_ask_for(monkeypatch):
    def proves(_):
        raise AssertionError("a gain was proved")

    monkeypatch.setattr(resize, "nonnegative_norm_bound", proves)
    assert framed(photo(123, 457), 32, "resize").shape == (3, 32, 32)


@given(st.integers(0, 999), st.floats(-0.5, 0.5))
@settings(max_examples=20, deadline=None)
def test_a_turned_hue_is_the_textbooks(seed, turn):
    picture = view(seed, side=3)
    found = turn_hue(torch.from_numpy(picture)[None], torch.full((1, 1, 1, 1), turn))[0].numpy()
    for y in range(3):
        for x in range(3):
            hue, saturation, value = colorsys.rgb_to_hsv(*picture[:, y, x].astype(float))
            wanted = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
            assert found[:, y, x] == pytest.approx(wanted, abs=1e-5)


def test_gray_has_no_hue_to_turn():
    gray = torch.full((1, 3, 4, 4), 0.3)
    assert torch.equal(turn_hue(gray, torch.full((1, 1, 1, 1), 0.4)), gray)


def test_jitter_stays_in_range_and_brightness_saturation_and_contrast_do_what_they_say():
    whole = view()
    found = jittered(whole, range(400))
    assert found.dtype == np.float32
    assert 0.0 <= found.min() <= found.max() <= 1.0
    changes = found.mean(axis=(1, 2, 3)) / whole.mean()
    # Brightness by 0.6 to 1.4, cut at 1; the other three move the mean little.
    assert 0.55 < min(changes) < 0.75
    assert 1.15 < max(changes) < 1.45
    assert np.mean(changes) == pytest.approx(0.98, abs=0.04)


def test_a_constant_gray_picture_only_changes_brightness():
    found = jittered(np.full((3, 5, 5), 0.5, dtype=np.float32), range(9))
    assert found.std(axis=(1, 2, 3)) == pytest.approx(0.0, abs=1e-6)
    assert 0.3 <= found.min() <= found.max() <= 0.7


def test_each_operation_is_the_usual_one():
    """By the definitions: brightness, contrast, saturation, in that order."""
    whole = view(side=2)
    batch = {
        "square": torch.from_numpy(whole)[None],
        "mirrored": torch.tensor([[False, True]]),
        "order": torch.tensor([[0, 1, 2, -1, -1]]),
        "amounts": torch.tensor([[1.2, 0.7, 1.1, 0.0, 0.0]]),
    }
    wanted = np.clip(1.2 * whole[:, :, ::-1].astype(np.float64), 0, 1)
    luma = np.array([0.2989, 0.587, 0.114])[:, None, None]
    wanted = np.clip(0.7 * wanted + 0.3 * (luma * wanted).sum(axis=0).mean(), 0, 1)
    wanted = np.clip(1.1 * wanted - 0.1 * (luma * wanted).sum(axis=0), 0, 1)
    plain, edited = two_views(batch)
    assert torch.equal(plain, batch["square"])
    assert edited[0].numpy() == pytest.approx(wanted, abs=1e-6)


def test_pictures_of_8_bits_become_the_views_of_framed_ones_whatever_else_is_in_the_batch():
    squares = [square(photo(16, 16, seed), 16, "center-crop") for seed in range(20)]
    assert squares[0].dtype == np.uint8
    together = views_of(squares, list(range(20)))
    for seed in range(20):
        whole = framed(photo(16, 16, seed), 16, "center-crop")
        alone = views_of([whole], [seed])
        for ours, theirs in zip(together, alone, strict=True):
            assert ours[seed] == pytest.approx(theirs[0], abs=1e-6)


def test_views_happen_as_often_as_they_should_and_the_teachers_view_keeps_its_colours():
    pixels = photo(16, 16, seed=4)
    whole = framed(pixels, 16, "center-crop")
    mirror = whole[:, :, ::-1]
    mirrored = both = gray = plain_colours = 0
    count = 1500
    made = views_of([square(pixels, 16, "center-crop")] * count, list(range(count)))
    for plain, edited in zip(*made, strict=True):
        assert np.array_equal(plain, whole) or np.array_equal(plain, mirror)
        mirrored += np.array_equal(plain, mirror)
        gray += np.ptp(edited, axis=0).max() < 1e-6
        unchanged = np.array_equal(edited, whole) or np.array_equal(edited, mirror)
        plain_colours += unchanged
        both += np.array_equal(edited, mirror) and np.array_equal(plain, mirror)
    assert mirrored / count == pytest.approx(0.5, abs=0.05)
    assert gray / count == pytest.approx(0.2, abs=0.04)
    assert plain_colours / count == pytest.approx(0.2 * 0.8, abs=0.04)
    assert both / count == pytest.approx(0.04, abs=0.02)  # the second view is mirrored on its own


def test_the_same_draw_gives_the_same_views():
    whole = square(photo(), 20, "resize")
    first, again = views_of([whole], [9]), views_of([whole], [9])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
