"""Pairs: no step within a budget leaves its interval, and none below a radius flips a verdict."""

import math

import numpy as np
import pytest
from attacks import move
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.certificate.similarity import certify_pair

pytestmark = pytest.mark.without_shape_checks

seeds = st.integers(0, 2**32 - 1)
dimensions = st.sampled_from([2, 3, 16, 128, 512])
# From near 0 to near 180 degrees, with both ends drawn often.
turns = st.one_of(st.floats(0, math.pi), st.floats(0, 1e-3), st.floats(math.pi - 1e-3, math.pi))
errors = st.sampled_from([0.0, 1e-9, 1e-3])


def pair_at(rng, dimension, turn):
    basis, _ = np.linalg.qr(rng.normal(size=(dimension, 2)))
    a, b = basis[:, 0], math.cos(turn) * basis[:, 0] + math.sin(turn) * basis[:, 1]
    return a * rng.uniform(0.2, 3.0), b * rng.uniform(0.2, 3.0)


def certify(a, b, error, **options):
    return certify_pair(
        a,
        b,
        lipschitz_bound=1.0,
        gain_a=2.0,
        gain_b=0.5,
        forward_error_a=error,
        forward_error_b=error,
        **options,
    )


def steps(rng, vector, other):
    """Unit steps: towards and away from the other vector, straight, leaning and at random."""
    along = vector / np.linalg.norm(vector)
    side = other - (other @ along) * along
    if np.linalg.norm(side) < 1e-12 * np.linalg.norm(other):
        side = rng.normal(size=vector.size)
        side -= (side @ along) * along
    side /= np.linalg.norm(side)
    for lean in (0.0, 0.05, 0.5, 0.99, 1.0):
        for sign in (-1.0, 1.0):
            yield sign * math.sqrt(1.0 - lean * lean) * side - lean * along
    random = rng.normal(size=vector.size)
    yield random / np.linalg.norm(random)


def tangent(vector, other, length, sign):
    """The step of this length that turns a vector most: square to where it ends."""
    norm = np.linalg.norm(vector)
    if length >= norm:
        return None
    along = vector / norm
    side = other - (other @ along) * along
    if np.linalg.norm(side) == 0.0:
        return None
    lean = length / norm
    return sign * math.sqrt(1.0 - lean * lean) * side / np.linalg.norm(side) - lean * along


def moved_pairs(rng, a, b, length_a, length_b):
    """The pair moved by less than these lengths, in every combination of steps worth trying."""
    for sign in (-1.0, 1.0):
        step_a, step_b = tangent(a, b, length_a, sign), tangent(b, a, length_b, sign)
        if step_a is not None and step_b is not None:
            yield move(a, step_a, length_a), move(b, step_b, length_b)
    for step_a, step_b in zip(steps(rng, a, b), steps(rng, b, a), strict=True):
        yield move(a, step_a, length_a), move(b, step_b, length_b)


def executed(a, b):
    """The distance as the program computes it."""
    return certify(a, b, 0.0).distance


@given(seeds, dimensions, turns, st.floats(0, 2), errors)
@settings(max_examples=40)
def test_no_step_within_the_budget_leaves_the_interval(seed, dimension, turn, epsilon, error):
    rng = np.random.default_rng(seed)
    a, b = pair_at(rng, dimension, turn)
    pair = certify(a, b, error, epsilon=epsilon)
    low, high = pair.interval_both
    assert low <= pair.interval_a[0] <= pair.distance <= pair.interval_a[1] <= high
    still = 2.0 * error
    for moved in moved_pairs(rng, a, b, 2.0 * epsilon + still, still):
        assert pair.interval_a[0] <= executed(*moved) <= pair.interval_a[1]
    for moved in moved_pairs(rng, a, b, 2.0 * epsilon + still, 0.5 * epsilon + still):
        assert low <= executed(*moved) <= high


@given(seeds, dimensions, turns, st.one_of(st.none(), turns), errors)
@example(0, 2, 1.0, math.pi, 0.0)
@settings(max_examples=40)
def test_no_step_below_a_radius_flips_the_verdict(seed, dimension, turn, limit, error):
    rng = np.random.default_rng(seed)
    a, b = pair_at(rng, dimension, turn)
    tie = limit is None
    threshold = executed(a, b) if limit is None else 2.0 * math.sin(limit / 2.0) ** 2
    pair = certify(a, b, error, threshold=threshold)
    still = 2.0 * error
    if tie and threshold < 2.0:
        assert pair.match
        assert pair.radius_both == 0.0
    assert (pair.radius_both == math.inf) is (threshold >= 2.0)
    for radius, scales in (
        (pair.radius_a, (2.0, 0.0)),
        (pair.radius_b, (0.0, 0.5)),
        (pair.radius_both, (2.0, 0.5)),
    ):
        if radius > 0.0:
            # inf where no distance crosses the threshold: any step will do then.
            lengths = [scale * min(radius, 10.0) + still for scale in scales]
            for moved in moved_pairs(rng, a, b, *lengths):
                assert (executed(*moved) <= threshold) is pair.match


@given(seeds, dimensions, st.floats(0.05, 3.0), st.floats(0.05, 3.0))
def test_a_step_a_little_longer_than_the_radius_flips_the_verdict(seed, dimension, turn, limit):
    """The radius of one image alone is not only sound but exact in embedding space."""
    rng = np.random.default_rng(seed)
    a, b = pair_at(rng, dimension, turn)
    room = abs(turn - limit)
    if not 1e-3 < room < 1.5:
        return
    threshold = 2.0 * math.sin(limit / 2.0) ** 2
    pair = certify(a, b, 0.0, threshold=threshold)
    length = 2.0 * pair.radius_a * (1 + 1e-6)
    verdicts = {
        executed(a + step * length, b) <= threshold
        for step in (tangent(a, b, length, -1.0), tangent(a, b, length, 1.0))
        if step is not None
    }
    assert (not pair.match) in verdicts


@given(seeds, dimensions, turns, st.floats(0, 3), st.floats(0, 3))
def test_a_larger_budget_never_narrows_the_interval(seed, dimension, turn, first, second):
    rng = np.random.default_rng(seed)
    a, b = pair_at(rng, dimension, turn)
    small, large = sorted((first, second))
    inner = certify(a, b, 0.0, epsilon=small).interval_both
    outer = certify(a, b, 0.0, epsilon=large).interval_both
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]
    assert 0.0 <= outer[0] <= outer[1] <= 2.0


@given(seeds, dimensions, turns, st.floats(0, 1))
def test_exchanging_the_images_exchanges_the_answer(seed, dimension, turn, threshold):
    rng = np.random.default_rng(seed)
    a, b = pair_at(rng, dimension, turn)
    options = {"lipschitz_bound": 1.0, "threshold": threshold}
    one = certify_pair(
        a, b, gain_a=2.0, gain_b=0.5, forward_error_a=1e-6, forward_error_b=1e-5, **options
    )
    other = certify_pair(
        b, a, gain_a=0.5, gain_b=2.0, forward_error_a=1e-5, forward_error_b=1e-6, **options
    )
    assert (one.distance, one.match) == (other.distance, other.match)
    assert (one.radius_a, one.radius_b) == (other.radius_b, other.radius_a)
    assert math.isclose(one.radius_both, other.radius_both, rel_tol=1e-9, abs_tol=1e-15)
