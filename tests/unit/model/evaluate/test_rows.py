import numpy as np

from model.evaluate.radii import PROVED, UPLOAD
from model.evaluate.rows import certified_rows, groups_of, mean_rows


def test_groups_are_by_name_and_an_empty_name_is_in_none():
    groups = groups_of({"edit": ["b", "a", "", "b"]}, 4)
    assert [(fields, mask.tolist()) for fields, mask in groups] == [
        ({"by": "all"}, [True] * 4),
        ({"by": "edit", "group": "a"}, [False, True, False, False]),
        ({"by": "edit", "group": "b"}, [True, False, False, True]),
    ]


def test_a_group_without_cases_has_no_row():
    assert mean_rows({}, np.zeros(0), groups_of({}, 0)) == []


def test_a_certified_share_counts_the_cases_with_a_larger_radius():
    claims = [(PROVED, np.array([0.5, 1.0, np.inf])), (UPLOAD, np.array([0.0, 0.0, 2.0]))]
    rows = certified_rows(
        {"figure": "f"}, np.array([1.0, 0.25, 0.5]), claims, (0.5, 1.0), groups_of({}, 3)
    )
    assert [(row["unit"], row["epsilon"], row["value"], row["count"]) for row in rows] == [
        ("input", 0.5, 0.25, 3),
        ("input", 1.0, 0.5 / 3, 3),
        ("upload", 0.5, 0.5 / 3, 3),
        ("upload", 1.0, 0.5 / 3, 3),
    ]
