"""Bounds of rates: against exact fractions, and against what they promise over many draws."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_builder.store.rates import (
    at_most,
    choose_threshold,
    events_allowed,
    pictures_wanted,
    trials_needed,
    upper_bound,
)


def exactly_at_most(count, total, rate):
    rate = Fraction(rate)
    terms = (comb(total, i) * rate**i * (1 - rate) ** (total - i) for i in range(count + 1))
    return float(sum(terms))


@given(st.integers(0, 60), st.integers(1, 60), st.floats(1e-6, 1 - 1e-6))
def test_the_distribution_is_the_binomial_one(count, total, rate):
    wanted = exactly_at_most(min(count, total), total, rate)
    assert at_most(count, total, rate) == pytest.approx(wanted, rel=1e-9, abs=1e-300)


@given(st.integers(0, 80), st.integers(1, 80))
def test_at_the_bound_so_few_events_would_be_seen_in_one_case_of_twenty(count, total):
    if count >= total:
        assert upper_bound(total, total) == 1.0
        return
    bound = upper_bound(count, total)
    assert count / total < bound < 1.0
    assert exactly_at_most(count, total, bound) == pytest.approx(0.05, rel=1e-9)


def test_at_the_ends_nothing_is_left_to_chance():
    assert at_most(-1, 10, 0.3) == 0.0
    assert at_most(10, 10, 0.3) == at_most(0, 10, 0.0) == 1.0
    assert at_most(9, 10, 1.0) == 0.0


def test_bounds_known_from_the_literature():
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(0, 100) == pytest.approx(0.02951305, rel=1e-6)
    assert upper_bound(3, 5000) == pytest.approx(0.00154999, rel=1e-5)
    assert upper_bound(1000, 100_000) == pytest.approx(0.0105332, rel=1e-5)
    # "Rule of three": 3 / n.
    assert upper_bound(0, 1_000_000) == pytest.approx(2.9957e-6, rel=1e-4)


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5), (1, 0)])
def test_counts_that_no_trials_give_are_refused(count, total):
    with pytest.raises(ValueError, match="wanted 0 <= count <= total"):
        upper_bound(count, total)


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 299), (0.001, 2995), (0.5, 5)])
def test_as_many_trials_are_needed_as_prove_the_rate_without_an_event(rate, needed):
    assert trials_needed(rate) == needed
    assert upper_bound(0, needed) <= rate < upper_bound(0, needed - 1)
    assert events_allowed(needed - 1, rate) is None
    assert events_allowed(needed, rate) == 0


@given(st.integers(1, 5000), st.sampled_from([0.3, 0.05, 0.01, 0.001]))
def test_as_many_events_are_allowed_as_the_bound_bears(total, rate):
    allowed = events_allowed(total, rate)
    if allowed is None:
        assert upper_bound(0, total) > rate
    else:
        assert upper_bound(allowed, total) <= rate * (1 + 1e-9)
        assert upper_bound(allowed + 1, total) > rate


@given(st.lists(st.floats(0, 0.99), min_size=5, max_size=400), st.sampled_from([0.5, 0.1, 0.02]))
def test_no_more_values_than_allowed_reach_the_threshold_and_a_lower_one_lets_in_more(values, rate):
    threshold, allowed = choose_threshold(values, rate), events_allowed(len(values), rate)
    assert (threshold is None) == (allowed is None)
    if threshold is not None:
        assert sum(value >= threshold for value in values) <= allowed
        assert sum(value >= threshold - 1.1e-6 for value in values) > allowed


def test_the_claim_of_a_threshold_is_false_in_one_case_of_twenty_at_most():
    """Uniform values: the true rate above a threshold t is 1 - t."""
    rng = np.random.default_rng(0)
    for count, rate in ((60, 0.05), (300, 0.05), (400, 0.01)):
        true = [1.0 - choose_threshold(rng.uniform(size=count).tolist(), rate) for _ in range(1500)]
        broken = np.mean(np.array(true) > rate)
        assert broken <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
        assert broken >= 0.005, "far too cautious: recall is given away"


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_pictures_that_are_asked_for_are_nearly_always_enough(rate):
    halves = np.random.default_rng(0).binomial(pictures_wanted(rate), 0.5, 20_000)
    smaller = np.minimum(halves, pictures_wanted(rate) - halves)
    assert 0.001 < np.mean(smaller < trials_needed(rate)) < 0.012
