"""Edited copies: every kind changes the picture, repeatably, at any size."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.edits import EDIT_KINDS, edit, query_kinds


def _picture(height, width, seed=0):
    """A smooth coloured picture with some texture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    fine = np.kron(coarse, np.ones((4, 4, 1)))[:height, :width] + rng.normal(
        0, 6, (height, width, 3)
    )
    return np.clip(fine, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_a_kind_changes_the_picture_and_the_same_seed_gives_the_same_copy(kind):
    pixels = _picture(48, 64)
    before = pixels.copy()
    copies = [edit(pixels, kind, np.random.default_rng([7, seed])) for seed in (1, 1, 2)]
    assert np.array_equal(pixels, before)
    assert np.array_equal(copies[0], copies[1])
    assert copies[0].shape != pixels.shape or (copies[0] != pixels).any()
    if kind != "gray":
        assert copies[0].shape != copies[2].shape or (copies[0] != copies[2]).any()


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(EDIT_KINDS),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_any_size_is_edited(kind, height, width, seed):
    copy = edit(_picture(height, width), kind, np.random.default_rng(seed))
    assert copy.dtype == np.uint8
    assert copy.ndim == 3
    assert copy.shape[2] == 3
    assert min(copy.shape[:2]) >= 1


def test_query_kinds_are_balanced_and_differ():
    pairs = Counter(query_kinds(index) for index in range(132))
    assert len(pairs) == 132
    assert all(first != second for first, second in pairs)
    for count in (5, 12):
        kinds = [query_kinds(index, count) for index in range(132)]
        assert [of_one[:2] for of_one in kinds] == list(pairs)
        assert all(len(set(of_one)) == count for of_one in kinds)
        assert set(Counter(kind for of_one in kinds for kind in of_one).values()) == {11 * count}


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(ValueError, match=r"kind must be one of jpeg, .*, got 'solarise'"):
        edit(_picture(8, 8), "solarise", np.random.default_rng(0))
