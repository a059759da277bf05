import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_builder.faiss_backend import CpuFlatSearch
from index_builder.format import norm_deviation
from index_builder.unseen import float32_query, unseen_bound


def exact_dot(a, b):
    return sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True))


def unit_rows(rng, n, d, spread):
    base = rng.standard_normal(d)
    raw = base + spread * rng.standard_normal((n, d))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    d=st.sampled_from([1, 2, 3, 17, 64, 200]),
    n=st.integers(2, 30),
    spread=st.sampled_from([1e-9, 1e-7, 1e-4, 1.0]),
    scale=st.sampled_from(
        [5e-324, 1e-310, 1e-150, 1e-40, 1e-5, 1.0, 3.7, 1e30, 1e39, 1e200, 1e307]
    ),
    m=st.integers(1, 8),
)
def test_no_unseen_row_scores_above_the_bound_in_exact_arithmetic(  # noqa: PLR0917
    seed, d, n, spread, scale, m
):
    rng = np.random.default_rng(seed)
    rows = unit_rows(rng, n, d, spread)
    m = min(m, n - 1)
    # Values of very different sizes: some vanish in float32 beside the largest.
    query = rng.standard_normal(d) * 10.0 ** rng.integers(-60, 1, d) * scale
    scaled = float32_query(query)
    scores, found = CpuFlatSearch(rows).search(scaled.vector[None], m)
    bound = unseen_bound(scaled, float(scores.min()), norm_deviation(rows))
    unseen = set(range(n)) - set(found[0].tolist())
    assert len(unseen) == n - m
    assert not math.isnan(bound)
    if bound < math.inf:
        assert max(exact_dot(query, rows[row]) for row in unseen) <= Fraction(bound)


@pytest.mark.parametrize("d", [64, 512, 1792])
def test_the_bound_is_tight_to_a_few_float32_roundings(d):
    rng = np.random.default_rng(d)
    rows = unit_rows(rng, 500, d, 1.0)
    query = rng.standard_normal(d)
    scaled = float32_query(query)
    scores, found = CpuFlatSearch(rows).search(scaled.vector[None], 20)
    bound = unseen_bound(scaled, float(scores.min()), norm_deviation(rows))
    last = float(rows[found[0, -1]].astype(np.float64) @ query)
    assert 0 < bound - last < 3 * d * 2.0**-24 * np.linalg.norm(query)


def test_scaling_by_a_power_of_two_changes_nothing_but_the_scale():
    rng = np.random.default_rng(0)
    rows = unit_rows(rng, 50, 16, 1.0)
    query = rng.standard_normal(16)
    bounds = []
    for exponent in (0, 300, -300):
        scaled = float32_query(np.ldexp(query, exponent))
        scores, _ = CpuFlatSearch(rows).search(scaled.vector[None], 5)
        bound = unseen_bound(scaled, float(scores.min()), norm_deviation(rows))
        bounds.append(math.ldexp(bound, -exponent))
    assert max(bounds) - min(bounds) < 1e-15


def test_a_zero_query_scores_zero_everywhere():
    scaled = float32_query(np.zeros(4))
    assert scaled.is_zero
    assert unseen_bound(scaled, 0.0, 1e-7) == 0.0
