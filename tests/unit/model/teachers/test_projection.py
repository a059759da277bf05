"""Principal axes: the right ones, in the right order, with the same signs every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import MetricError
from model.teachers.projection import principal_axes


def cloud(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    points = rng.standard_normal((rows, 5)) * [5, 3, 1, 0.3, 0.1] @ basis + 7
    return points.astype(np.float32)


def in_chunks(vectors, size):
    return lambda: (vectors[start : start + size] for start in range(0, len(vectors), size))


def test_axes_are_those_of_the_singular_value_decomposition():
    vectors = cloud()
    found = principal_axes(in_chunks(vectors, 64), 3)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(np.abs(found.axes @ rows[:3].T), np.eye(3), atol=1e-6)
    assert np.allclose(found.axes @ found.axes.T, np.eye(3), atol=1e-12)
    assert found.kept == pytest.approx((values[:3] ** 2).sum() / (values**2).sum(), abs=1e-9)
    assert np.allclose(np.linalg.norm(found.apply(vectors), axis=0), values[:3], rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200), st.integers(0, 5))
def test_how_the_rows_are_cut_does_not_matter(size, seed):
    vectors = cloud(seed=seed)
    whole = principal_axes(in_chunks(vectors, 200), 2)
    cut = principal_axes(in_chunks(vectors, size), 2)
    assert np.allclose(cut.axes, whole.axes, atol=1e-6)
    largest = np.abs(whole.axes).argmax(axis=1)
    assert (np.take_along_axis(whole.axes, largest[:, None], axis=1) > 0).all()


def test_the_same_rows_give_the_same_bits():
    vectors = cloud()
    first, second = (principal_axes(in_chunks(vectors, 50), 4) for _ in range(2))
    assert np.array_equal(first.axes, second.axes)
    assert np.array_equal(first.apply(vectors), second.apply(vectors))


def test_distances_never_grow_and_are_kept_by_all_axes():
    vectors = cloud()
    few, all_of_them = (
        principal_axes(in_chunks(vectors, 64), count).apply(vectors) for count in (2, 5)
    )
    apart = np.linalg.norm(vectors[0] - vectors[1])
    assert np.linalg.norm(few[0] - few[1]) <= apart * (1 + 1e-5)
    assert np.linalg.norm(all_of_them[0] - all_of_them[1]) == pytest.approx(apart, rel=1e-5)


def test_equal_rows_have_no_axis_but_no_trouble_either():
    found = principal_axes(in_chunks(np.ones((9, 3), np.float32), 4), 2)
    assert found.kept == 1
    assert np.allclose(found.apply(np.ones((2, 3), np.float32)), 0)


@pytest.mark.parametrize("count", [0, 6, -1])
def test_more_axes_than_there_can_be_are_refused(count):
    with pytest.raises(MetricError, match="axes were wanted"):
        principal_axes(in_chunks(cloud(), 64), count)
    with pytest.raises(MetricError, match="axes were wanted"):
        principal_axes(in_chunks(cloud(3), 64), 4)
