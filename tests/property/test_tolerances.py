"""Tolerances: bisection finds what a look at every table does, distances are those of pixels."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.pixels.tolerances.measure import Measurement
from model.pixels.tolerances.tables import (
    TABLE_FAMILIES,
    count_values,
    largest_square,
    squared_distance,
    squared_pixel_distance,
)

FAMILIES = st.sampled_from(sorted(TABLE_FAMILIES))
PICTURES = st.builds(
    lambda seed, spread, side: np.random.default_rng(seed).integers(
        spread // 2, 256 - spread // 2, (side, side + 1, 3), dtype=np.uint8
    ),
    st.integers(0, 2**32),
    st.integers(0, 250),
    st.integers(1, 12),
)


@pytest.fixture(scope="module")
def all_tables():
    """Every table of each family, in the order of its parameters."""
    return {
        name: np.stack([family.table(a) for a in family.parameters.tolist()])
        for name, family in TABLE_FAMILIES.items()
    }


@pytest.mark.without_shape_checks
@pytest.mark.parametrize("name", sorted(TABLE_FAMILIES))
def test_no_entry_of_a_table_ever_turns_back(all_tables, name: str):
    tables, family = all_tables[name].astype(np.int16), TABLE_FAMILIES[name]
    steps = np.diff(tables, axis=0)
    rises, falls = (steps > 0).any(axis=0), (steps < 0).any(axis=0)
    assert not (rises & falls).any()
    np.testing.assert_array_equal(tables[family.identity], np.arange(256))
    assert np.abs(steps).max() == 1, "a table between two neighbours was left out"


@pytest.mark.without_shape_checks
@settings(max_examples=60, deadline=None)
@given(name=FAMILIES, pixels=PICTURES, radius=st.floats(0.01, 30.0), data=st.data())
def test_bisection_finds_what_a_look_at_every_table_finds(
    all_tables, name: str, pixels, radius: float, data
):
    family, tables = TABLE_FAMILIES[name], all_tables[name].astype(np.int64)
    counts, limit = count_values(pixels), largest_square(radius)
    center = data.draw(st.one_of(st.just(family.identity), st.integers(0, len(tables) - 1)))
    squares = ((tables - tables[center]) ** 2) @ counts
    for step in (-1, 1):
        side = squares[center::step]
        outside = np.flatnonzero(side > limit)
        expected = center + step * (int(outside[0]) - 1 if outside.size else len(side) - 1)
        assert family.reach(counts, center, step, limit) == expected


@settings(max_examples=50, deadline=None)
@given(name=FAMILIES, pixels=PICTURES, a=st.floats(0.05, 4.0), b=st.floats(0.05, 4.0))
def test_a_distance_from_counts_is_that_of_the_pixels(name: str, pixels, a: float, b: float):
    one, other = (TABLE_FAMILIES[name].table(parameter) for parameter in (a, b))
    pictures = [np.asarray(Image.fromarray(pixels).point([*t] * 3)) for t in (one, other)]
    by_hand = sum(
        (int(p) - int(q)) ** 2 for p, q in zip(pictures[0].flat, pictures[1].flat, strict=True)
    )
    assert squared_distance(count_values(pixels), one, other) == by_hand
    assert squared_pixel_distance(*pictures) == by_hand


@given(st.floats(0.0, 1e4))
def test_a_square_is_within_exactly_if_its_root_is_below_the_radius(radius: float):
    most = int(largest_square(radius))
    assert Fraction(most, 65025) < Fraction(radius) ** 2 or most == -1
    assert Fraction(most + 1, 65025) >= Fraction(radius) ** 2


def test_infinite_radii_leave_every_member_within():
    assert largest_square(math.inf) == math.inf
    pixels = np.zeros((3, 4, 3), np.uint8)
    measurement = Measurement(
        pixels, math.inf, [*TABLE_FAMILIES], chain=0, radius_of=lambda *_: 0.0, cpu_s=5.0
    )
    while not measurement.go_on(1.0):
        pass
    found = measurement.tolerances()
    assert (found["brightness"].low, found["brightness"].high) == (0.0, 255.0)
    assert (found["contrast"].low, found["contrast"].high) == (0.0, 128.0)


def step_radius(edge: float):
    """A statement about a picture's mean level, true below an edge, with its exact radius."""

    def radius_of(edited, table) -> float:
        values = (edited if table is None else table[edited]).astype(np.float64) / 255.0
        return max(0.0, (edge - float(values.mean())) * math.sqrt(values.size))

    return radius_of


@settings(max_examples=30, deadline=None)
@given(pixels=PICTURES, edge=st.floats(0.4, 0.9), chain=st.integers(0, 32), name=FAMILIES)
def test_a_chain_claims_nothing_false_and_ends_at_the_edge_of_its_last_center(
    pixels, edge: float, chain: int, name: str
):
    radius_of, family = step_radius(edge), TABLE_FAMILIES[name]
    radius, counts = radius_of(pixels, None), count_values(pixels)
    measurement = Measurement(pixels, radius, [name], chain=chain, radius_of=radius_of, cpu_s=60.0)
    while not measurement.go_on(1.0):
        pass
    found = measurement.tolerances()[name]
    assert found.passes <= chain
    assert found.is_complete
    if radius == 0.0:
        assert (found.low, found.high) == (None, None)
        return
    for a in np.linspace(found.low, min(found.high, 20.0), 40).tolist():
        assert radius_of(pixels, family.table(a)) > 0.0, "a member within the range must hold"
    for (_, step), end in measurement.ends.items():
        own = family.table_at(family.identity if end.center is None else end.center)
        assert squared_distance(counts, own, family.table_at(end.at)) <= end.limit
        beyond = end.at + step
        if 0 <= beyond < family.parameters.size:
            assert squared_distance(counts, own, family.table_at(beyond)) > end.limit
