import numpy as np
import pytest

from index_builder.calibration import self_match
from index_builder.calibration.self_match import own_margins, self_matches


def unit_vectors(count=40, dim=6):
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((count, dim))
    vectors[7] = vectors[8] + 1e-3 * vectors[9]  # near-duplicates
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def starts(vectors):
    """One row an entry."""
    return np.arange(len(vectors) + 1)


@pytest.mark.parametrize("k", [1, 3])
def test_it_is_the_margin_of_a_search_with_the_entry_itself(k):
    vectors = unit_vectors()
    found = own_margins(vectors, starts(vectors), np.arange(len(vectors)), k)
    for row, margin in enumerate(found):
        query = vectors[row].astype(np.float64)
        apart = np.linalg.norm(query - vectors, axis=1)
        others = np.arange(len(vectors)) != row
        radii = ((query - vectors) @ query)[others] / apart[others]
        assert margin == pytest.approx(np.sort(radii)[k - 1], abs=1e-3)


def test_those_below_the_threshold_are_counted():
    vectors = unit_vectors()
    assert self_matches(vectors, starts(vectors), 1, {"low": 0.01, "all": 1.0}).unmatched == {
        "low": 2,
        "all": 40,
    }
    assert self_matches(vectors, starts(vectors), 2, {"low": 0.01}).unmatched == {"low": 0}


def test_a_large_gallery_is_sampled_and_a_zero_vector_never_matches(monkeypatch):
    monkeypatch.setattr(self_match, "MOST_LOOKED_AT", 10)
    vectors = unit_vectors()
    vectors[0] = 0.0
    found = self_matches(vectors, starts(vectors), 1, {"any": 1e-9})
    assert (found.pictures, found.unmatched) == (10, {"any": 1})


def test_own_views_do_not_compete_and_the_nearest_view_of_another_does():
    vectors = unit_vectors()[10:16]
    first = np.array([0, 2, 3, 6])
    found = own_margins(vectors, first, np.arange(3), 1)
    for entry, margin in enumerate(found):
        own = np.arange(first[entry], first[entry + 1])
        others = np.setdiff1d(np.arange(6), own)
        cosine = (vectors[others] @ vectors[own[0]]).max()
        assert margin == pytest.approx(np.sqrt((1 - cosine) / 2), abs=1e-3)
