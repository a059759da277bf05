"""Randomised smoothing: its statistics against exact facts, its votes against a known search."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.smoothed_search import (
    SmoothedSearch,
    largest_radius,
    lower_confidence_bound,
    smoothed_radius,
)
from model.metrics.pixels import BlockMeans

ALPHAS = (0.001, 0.01, 0.05, 0.3)


def tail(trials, successes, p):
    """P(X >= successes) for X ~ Binomial(trials, p), exactly."""
    q = 1 - p
    terms = range(successes, trials + 1)
    return sum(math.comb(trials, k) * p**k * q ** (trials - k) for k in terms)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data(), st.sampled_from(ALPHAS))
def test_at_the_bound_so_many_successes_have_a_chance_of_exactly_alpha(trials, data, alpha):
    successes = data.draw(st.integers(1, trials))
    bound = lower_confidence_bound(successes, trials, alpha)
    assert float(tail(trials, successes, Fraction(bound))) == pytest.approx(alpha, rel=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 100), st.sampled_from(ALPHAS))
def test_the_bound_exceeds_the_truth_with_a_chance_of_at_most_alpha(trials, percent, alpha):
    truth = Fraction(percent, 100)
    chance = sum(
        math.comb(trials, k) * truth**k * (1 - truth) ** (trials - k)
        for k in range(trials + 1)
        if lower_confidence_bound(k, trials, alpha) > truth
    )
    assert float(chance) <= alpha * (1 + 1e-9)


def test_known_values():
    assert lower_confidence_bound(0, 10, 0.05) == 0
    assert lower_confidence_bound(10, 10, 0.05) == pytest.approx(0.05**0.1)
    assert lower_confidence_bound(8, 10, 0.05) == pytest.approx(0.493099, abs=1e-6)
    # Cohen et al. 2019: 100,000 samples that all agree prove at most about 3.8 sigma.
    assert largest_radius(100_000, 1.0) == pytest.approx(3.81, abs=0.01)
    assert smoothed_radius(0.99, 0.5) == pytest.approx(0.5 * 2.326348, abs=1e-6)


@given(st.integers(1, 200), st.data())
def test_more_successes_never_prove_less_and_never_more_than_was_seen(trials, data):
    k = data.draw(st.integers(0, trials - 1))
    low, high = (lower_confidence_bound(n, trials, 0.01) for n in (k, k + 1))
    assert 0 <= low <= high < (k + 1) / trials


def test_half_and_less_abstains():
    for p in (0.0, 0.3, 0.5):
        assert smoothed_radius(p, 0.25) == 0.0
    assert smoothed_radius(np.nextafter(0.5, 1), 0.25) > 0.0


@pytest.mark.parametrize(
    ("successes", "trials", "alpha"),
    [(-1, 5, 0.1), (6, 5, 0.1), (0, 0, 0.1), (1, 2, 0.0), (1, 2, 1.0), (1, 2, math.nan)],
)
def test_numbers_that_mean_nothing_are_refused(successes, trials, alpha):
    with pytest.raises(ValueError, match="mean nothing"):
        lower_confidence_bound(successes, trials, alpha)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_sigma_that_is_none_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma"):
        SmoothedSearch(BlockMeans(4, 4), np.eye(48, dtype=np.float32), sigma=sigma)


class Line:
    """A metric of one pixel: (x, 1), so that two entries are parted where x is 0."""

    name, dim, input_size, lipschitz_bound, forward_error = "line", 2, 1, 1.0, 0.0

    def embed(self, pictures):
        raise NotImplementedError

    def network(self, x):
        first = x.flatten(1)[:, :1]
        return torch.cat([first, torch.ones_like(first)], dim=1)


ENTRIES = np.array([[-1, 0], [1, 0]], dtype=np.float32)


def query(value):
    return np.array([value, 0.0, 0.0]).reshape(3, 1, 1)


def test_votes_have_the_probability_that_theory_gives_them():
    search = SmoothedSearch(Line(), ENTRIES, sigma=0.5, batch=1000)
    votes = search.count(query(0.25), 20_000, np.random.default_rng(0))
    assert votes.sum() == 20_000
    expected = 0.5 * (1 + math.erf(0.25 / 0.5 / math.sqrt(2)))
    assert votes[1] / 20_000 == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 20_000))


def test_a_radius_never_reaches_past_the_true_boundary_more_often_than_alpha():
    # The smoothed answer to x > 0 really changes at 0: the radius may exceed x with chance alpha.
    search = SmoothedSearch(Line(), ENTRIES, sigma=0.5, batch=1000)
    rng = np.random.default_rng(1)
    runs, alpha = 400, 0.1
    answers = [
        search.ask(query(0.2), samples=200, selection=20, alpha=alpha, rng=rng) for _ in range(runs)
    ]
    wrong = sum(answer.entry == 1 and answer.radius > 0.2 for answer in answers)
    assert 0 < wrong <= runs * alpha + 4 * math.sqrt(runs * alpha * (1 - alpha))
    assert sum(answer.entry == 1 for answer in answers) > runs / 2


def test_on_the_boundary_it_abstains_and_far_from_it_the_samples_are_the_limit():
    search = SmoothedSearch(Line(), ENTRIES, sigma=0.1, batch=64)
    on = search.ask(query(0.0), samples=300, rng=np.random.default_rng(2))
    assert (on.entry, on.radius) == (None, 0.0)
    far = search.ask(query(9.0), samples=300, rng=np.random.default_rng(3))
    assert (far.entry, far.votes) == (1, 300)
    assert far.radius == pytest.approx(largest_radius(300, 0.1))


def test_the_same_seed_gives_the_same_votes_and_every_sample_is_counted():
    metric = BlockMeans(4, 8)
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((5, metric.dim)).astype(np.float32)
    x = rng.random((3, 8, 8))
    search = SmoothedSearch(metric, vectors, sigma=0.3, batch=7)
    first, second = (search.count(x, 50, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.sum() == 50
    # However the samples are cut into batches, they are the same samples.
    whole = SmoothedSearch(metric, vectors, sigma=0.3, batch=50)
    assert np.array_equal(whole.count(x, 50, np.random.default_rng(5)), first)
