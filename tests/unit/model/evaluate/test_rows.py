import numpy as np
import pytest

from model.evaluate.radii import PROVED, UPLOAD
from model.evaluate.rows import certified_rows, groups_of, mean_rows


def test_groups_are_by_name_and_an_empty_name_is_in_none():
    groups = groups_of({"edit": ["b", "a", "", "b"]}, np.arange(4))
    assert [(group.fields, group.mask.tolist()) for group in groups] == [
        ({"by": "all"}, [True] * 4),
        ({"by": "edit", "group": "a"}, [False, True, False, False]),
        ({"by": "edit", "group": "b"}, [True, False, False, True]),
    ]


def test_a_group_without_cases_has_no_row():
    assert mean_rows({}, np.zeros(0), groups_of({}, np.arange(0))) == []


def test_a_certified_share_counts_the_cases_with_a_larger_radius():
    claims = [(PROVED, np.array([0.5, 1.0, np.inf])), (UPLOAD, np.array([0.0, 0.0, 2.0]))]
    rows = certified_rows(
        {"figure": "f"}, np.array([1.0, 0.25, 0.5]), claims, (0.5, 1.0), groups_of({}, np.arange(3))
    )
    assert [(row["unit"], row["epsilon"], row["value"], row["count"]) for row in rows] == [
        ("input", 0.5, 0.25, 3),
        ("input", 1.0, 0.5 / 3, 3),
        ("upload", 0.5, 0.5 / 3, 3),
        ("upload", 1.0, 0.5 / 3, 3),
    ]


def test_the_error_is_that_of_drawing_pictures_not_cases(rng):
    """Four copies of a picture that are always alike say no more than one."""
    of_pictures = (rng.random(400) < 0.7).astype(np.float64)
    wanted = np.sqrt(0.7 * 0.3 / 400)
    for copies in (1, 4):
        pictures = np.repeat(np.arange(400), copies)
        (row,) = mean_rows({}, of_pictures[pictures], groups_of({}, pictures))
        assert row["error"] == pytest.approx(wanted, rel=0.2)
        assert row["count"] == 400 * copies
    # Of a group only its own cases count, whatever the others are.
    groups = groups_of({"edit": ["a"] * 100 + [""] * 300}, np.arange(400))
    values = np.where(np.arange(400) < 100, of_pictures, 5.0)
    assert mean_rows({}, values, groups)[1]["error"] == pytest.approx(2.0 * wanted, rel=0.3)


def test_a_number_that_depends_on_the_sample_varies_by_that_too():
    groups = groups_of({}, np.arange(50))
    sampled = np.repeat(np.linspace(0.0, 1.0, 200)[:, None], 50, axis=1)
    (row,) = mean_rows({}, np.ones(50), groups, sampled)
    assert row["value"] == 1.0
    assert row["error"] == pytest.approx(np.linspace(0.0, 1.0, 200).std())
