import numpy as np
import pytest
from image_files import photo

from model.train.distortions import FAMILIES, distort

PICTURE = photo(90, 120, seed=3)


def change(family, severity, seed=0):
    distorted = distort(PICTURE, family, severity, np.random.default_rng(seed))
    return float(np.abs(distorted.astype(int) - PICTURE).mean())


def test_there_are_nine_families():
    assert len(FAMILIES) == 9


@pytest.mark.parametrize("family", FAMILIES)
def test_severity_zero_is_nothing_and_more_is_more(family):
    assert change(family, 0.0) == 0.0
    for seed in range(5):
        changes = [change(family, severity, seed) for severity in (0.1, 0.25, 0.6)]
        assert changes == sorted(changes)
        assert changes[0] < changes[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_state_does_the_same_thing_and_leaves_the_picture_alone(family):
    before = PICTURE.copy()
    first, again = (distort(PICTURE, family, 0.5, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == PICTURE.shape
    assert np.array_equal(PICTURE, before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (40, 3)])
def test_any_size_is_kept(family, shape):
    picture = np.full((*shape, 3), 200, np.uint8)
    assert distort(picture, family, 1.0, np.random.default_rng(0)).shape == (*shape, 3)


def test_severities_draw_alike_so_only_the_strength_differs():
    for family in FAMILIES:
        states = []
        for severity in (0.1, 0.3, 1.0):
            rng = np.random.default_rng(1)
            distort(PICTURE, family, severity, rng)
            states.append(rng.bit_generator.state)
        assert states[0] == states[1] == states[2]


def test_an_occluding_box_holds_the_weaker_one():
    weak, strong = (
        distort(PICTURE, "occlusion", severity, np.random.default_rng(5)) != PICTURE
        for severity in (0.3, 0.8)
    )
    assert (strong.any(axis=2) | ~weak.any(axis=2)).mean() > 0.999
