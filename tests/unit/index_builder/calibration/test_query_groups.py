"""What belongs to one picture: known groups and equal pixels, and whatever hangs together."""

import random

import numpy as np

from index_builder.calibration.query_groups import merged_groups, pixels_name


def test_equal_pixels_join_groups_and_a_chain_of_joints_is_one_group():
    groups = ["row 4", "row 4", "row 9", "c", "d", "row 9"]
    pixels = ["p", "q", "q", "r", "s", "t"]
    assert merged_groups(groups, pixels) == ["row 4", "row 4", "row 4", "c", "d", "row 4"]


def test_the_order_of_the_queries_changes_no_group():
    dice = random.Random(2)
    queries = [(f"g{dice.randrange(40)}", f"p{dice.randrange(60)}") for _ in range(60)]
    expected = dict(zip(queries, merged_groups(*zip(*queries, strict=True)), strict=True))
    assert 1 < len(set(expected.values())) < 40
    for _ in range(10):
        dice.shuffle(queries)
        found = dict(zip(queries, merged_groups(*zip(*queries, strict=True)), strict=True))
        assert found == expected


def test_a_group_that_is_called_like_pixels_is_not_taken_for_them():
    assert merged_groups(["p", "q"], ["x", "p"]) == ["p", "q"]


def test_pixels_are_called_by_their_values_and_their_shape():
    grey = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert pixels_name(grey) == pixels_name(np.asfortranarray(grey))
    assert pixels_name(grey) != pixels_name(grey.reshape(4, 3, 3))
    assert pixels_name(grey) != pixels_name(grey + np.uint8(1))
