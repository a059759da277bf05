import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_builder.search.faiss_flat import CpuFlatSearch
from index_builder.search.unseen import Float32Query, float32_query, unseen_bound
from index_builder.store.vectors import norm_deviation


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


def gamma(n, unit_roundoff):
    return n * unit_roundoff / (1 - n * unit_roundoff)


@pytest.mark.parametrize("exponent", [0, 40, -40])
@pytest.mark.parametrize("d", [1, 64, 1792])
@pytest.mark.parametrize("deviation", [0.0, 1e-6, 0.1])
def test_the_bound_adds_each_of_its_terms_in_full(d, deviation, exponent):
    """The margin is there even where rounding happens to be kind: held against the formula.

    One component is not 0, so that both norms of the formula are rational numbers.
    """
    for component in (1 / 3, 0.75, -0.9):
        query = np.zeros(d)
        query[0] = math.ldexp(component, exponent)
        found = float32_query(query)
        long = abs(Fraction(float(found.vector[0])))
        cut = abs(
            Fraction(query[0]) / Fraction(2) ** found.exponent - Fraction(float(found.vector[0]))
        )
        assert (cut > 0) == (component != 0.75)
        assert Fraction(found.rounding) >= cut
        # The norms' own float64 sums are covered as well.
        assert Fraction(found.norm) >= long * (1 + gamma(d, Fraction(1, 2**53)))
        for score in (0.0, 0.5, -0.25):
            terms = gamma(d, Fraction(1, 2**24)) * long + cut
            wanted = (
                Fraction(score) + terms * (1 + Fraction(deviation)) + 2 * d * Fraction(1, 2**126)
            )
            bound = Fraction(unseen_bound(found, score, deviation))
            assert bound >= wanted * Fraction(2) ** found.exponent


def test_what_underflows_in_float32_is_added():
    """Beside any other term it is lost in rounding up, so it is asked for alone."""
    query = Float32Query(np.full(64, 0.5, np.float32), 0, rounding=0.0, norm=0.0, is_zero=False)
    assert unseen_bound(query, 0.0, 0.0) >= 2 * 64 * 2.0**-126


def test_a_rounding_whose_square_underflows_is_kept():
    found = float32_query(np.array([0.75, 1e-170]))
    assert found.vector.tolist() == [0.75, 0.0]
    assert found.rounding >= 1e-170


def test_a_zero_query_scores_zero_everywhere():
    scaled = float32_query(np.zeros(4))
    assert scaled.is_zero
    assert unseen_bound(scaled, 0.0, 1e-7) == 0.0
