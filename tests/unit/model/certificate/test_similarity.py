"""Angles, intervals and flips of a pair, against closed forms and corner by corner."""

import math
from functools import partial

import numpy as np
import pytest

from model.certificate.geometry import (
    angle,
    angles,
    angular_slack,
    cap_half_angle,
    cosine_error,
    embedding_norm,
    flip_radius,
    pixel_scale,
    radius_in_pixels,
)
from model.certificate.similarity import certify_pair
from model.errors import CertificateError


def at(degrees, length=1.0):
    turn = math.radians(degrees)
    return length * np.array([math.cos(turn), math.sin(turn)])


def certify(a, b, **options):
    asked = {
        "lipschitz_bound": 1.0,
        "gain_a": 1.0,
        "gain_b": 1.0,
        "forward_error_a": 0.0,
        "forward_error_b": 0.0,
    }
    return certify_pair(np.asarray(a, float), np.asarray(b, float), **(asked | options))


def distance_of(degrees):
    return 1.0 - math.cos(math.radians(degrees))


def test_a_ball_that_holds_zero_shows_every_direction():
    assert cap_half_angle(0.5, 1.0) == pytest.approx(math.pi / 6)
    assert cap_half_angle(0.5, 1.0) > math.asin(0.5)
    for radius in (1.0, 1.0 - 1e-13, 1.5, 1e300, math.inf):
        assert cap_half_angle(radius, 1.0) == math.pi
    assert cap_half_angle(0.0, 0.0) == math.pi
    assert 0.0 <= cap_half_angle(0.0, 1.0) < 1e-13


@pytest.mark.parametrize("turn", [1e-9, 1e-5, 0.3, math.pi / 2, 3.0, math.pi])
def test_an_angle_keeps_its_digits(turn):
    distance = 2 * math.sin(turn / 2) ** 2
    assert angle(distance) == pytest.approx(turn, rel=1e-8 if turn > 3 else 1e-14)
    assert angles(np.array([distance, -1.0, 3.0])).tolist() == pytest.approx(
        [angle(distance), 0.0, math.pi]
    )


def test_a_pair_knows_its_distance_and_similarity():
    pair = certify(at(0, 2.0), at(60, 5.0))
    assert pair.distance == pytest.approx(0.5)
    assert pair.similarity == pytest.approx(0.5)
    assert pair.interval_a is pair.interval_both is pair.match is None
    assert pair.radius_a is pair.radius_b is pair.radius_both is None


def test_an_image_against_itself_is_at_distance_zero():
    rng = np.random.default_rng(0)
    for _ in range(50):
        vector = rng.normal(size=64)
        pair = certify(vector, vector, threshold=0.1, epsilon=0.0)
        assert 0.0 <= pair.distance < 1e-14
        assert pair.interval_a[0] == 0.0
        assert pair.interval_a[1] < 1e-12
        assert pair.match


def test_the_interval_is_the_angle_plus_and_minus_what_each_ball_shows():
    pair = certify(at(0, 2.0), at(60, 4.0), epsilon=1.0)
    assert pair.interval_a == pytest.approx((distance_of(30), distance_of(90)))
    both = math.degrees(math.asin(0.25))
    assert pair.interval_both == pytest.approx((distance_of(30 - both), distance_of(90 + both)))
    assert certify(at(0, 2.0), at(20, 4.0), epsilon=1.0).interval_a[0] == 0.0
    assert certify(at(0, 2.0), at(170, 4.0), epsilon=1.0).interval_a[1] == 2.0
    assert certify(at(0, 2.0), at(60, 4.0), epsilon=2.0).interval_a == (0.0, 2.0)
    assert certify(at(0, 2.0), at(60, 4.0), epsilon=3.0).interval_a == (0.0, 2.0)


def test_the_image_that_stays_is_embedded_again():
    pair = certify(at(0, 2.0), at(60, 4.0), epsilon=0.0, forward_error_b=1.0)
    assert pair.interval_a == pytest.approx((distance_of(30), distance_of(90)))


def test_gain_and_lipschitz_bound_widen_the_interval():
    wide = certify(at(0, 2.0), at(60, 4.0), epsilon=0.1, gain_a=5.0, lipschitz_bound=2.0)
    assert wide.interval_a == pytest.approx((distance_of(30), distance_of(90)))


def test_evasion_and_collision_are_the_same_formula():
    evade = certify(at(0, 2.0), at(30, 5.0), threshold=distance_of(70))
    assert evade.match
    assert evade.radius_a == pytest.approx(2 * math.sin(math.radians(40)))
    assert evade.radius_b == pytest.approx(5 * math.sin(math.radians(40)))
    collide = certify(at(0, 2.0), at(70, 5.0), threshold=distance_of(30))
    assert not collide.match
    assert collide.radius_a == pytest.approx(2 * math.sin(math.radians(40)))
    far = certify(at(0, 2.0), at(10, 5.0), threshold=distance_of(150))
    assert far.radius_a == pytest.approx(2.0)


@pytest.mark.parametrize("turn", [5, 40, 89, 91, 120, 160])
@pytest.mark.parametrize(("gain_a", "gain_b"), [(1.0, 1.0), (3.0, 0.5), (0.2, 2.0)])
def test_both_images_together_meet_the_closed_form(turn, gain_a, gain_b):
    pair = certify(
        at(0, 2.0), at(10, 5.0), threshold=distance_of(10 + turn), gain_a=gain_a, gain_b=gain_b
    )
    p, q = sorted((gain_a / 2.0, gain_b / 5.0), reverse=True)
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    apex = cosine <= -q / p
    wanted = 1 / p if apex else sine / math.sqrt(p * p + q * q + 2 * p * q * cosine)
    assert pair.radius_both == pytest.approx(wanted, rel=1e-9)
    assert pair.radius_both <= wanted
    assert pair.radius_both <= min(pair.radius_a, pair.radius_b)


def test_a_tie_matches_and_has_radius_zero():
    distance = certify(at(0), at(60)).distance
    pair = certify(at(0), at(60), threshold=distance)
    assert pair.match
    assert pair.radius_a == pair.radius_b == pair.radius_both == 0.0


@pytest.mark.parametrize(("threshold", "match"), [(2.0, True), (5.0, True), (-1e-9, False)])
def test_a_threshold_that_no_distance_crosses_cannot_flip(threshold, match):
    for degrees in (0, 60, 180):
        for error in (0.0, 3.0):
            pair = certify(at(0, 2.0), at(degrees), threshold=threshold, forward_error_a=error)
            assert pair.match is match
            assert pair.radius_a == pair.radius_b == pair.radius_both == math.inf
        # Not even on the way through zero, whose distance is 1; that it is zero proves nothing.
        pair = certify(at(degrees), 0.0 * at(0), threshold=threshold)
        assert pair.match is match
        assert pair.radius_a == pair.radius_b == pair.radius_both == 0.0


def test_an_embedding_within_its_error_of_zero_has_radius_zero():
    pair = certify(at(0, 1e-3), at(60), threshold=0.9, forward_error_a=6e-4, epsilon=0.0)
    assert pair.radius_a == pair.radius_b == pair.radius_both == 0.0
    assert pair.interval_a == pair.interval_both == (0.0, 2.0)


@pytest.mark.parametrize("tiny", [0.0, 1e-101, 5e-324])
def test_a_zero_embedding_is_at_distance_one_and_nothing_is_proved(tiny):
    for a, b in ((at(0, tiny), at(60)), (at(60), at(0, tiny)), (at(0, tiny), at(0, tiny))):
        for threshold in (-1.0, 0.5, 1.0, 2.0):
            pair = certify(a, b, threshold=threshold, epsilon=0.0)
            assert (pair.distance, pair.similarity) == (1.0, 0.0)
            assert pair.interval_a == pair.interval_both == (0.0, 2.0)
            assert pair.match is (threshold >= 1.0)
            assert pair.radius_both == 0.0
            assert 0.0 in (pair.radius_a, pair.radius_b)
            assert pair.radius_a == pair.radius_b == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e101])
def test_an_embedding_that_is_not_finite_is_refused(value):
    with pytest.raises(CertificateError, match="embedding must be finite"):
        certify([value, 1.0], at(0))
    with pytest.raises(CertificateError, match="embedding must be finite"):
        certify(at(0), [1.0, value])


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-300])
def test_a_budget_that_is_negative_or_not_finite_is_refused(value):
    with pytest.raises(CertificateError, match="epsilon must be >= 0 and finite"):
        certify(at(0), at(60), epsilon=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_threshold_that_is_not_finite_is_refused(value):
    with pytest.raises(CertificateError, match="threshold must be a finite distance"):
        certify(at(0), at(60), threshold=value)


@pytest.mark.parametrize("name", ["gain_a", "gain_b", "lipschitz_bound"])
@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0, math.inf])
def test_a_factor_that_is_no_bound_is_refused(name, value):
    with pytest.raises(CertificateError, match="must be positive and finite"):
        certify(at(0), at(60), **{name: value})


def test_a_norm_lies_between_its_bounds():
    for size in (1, 3, 512):
        vector = np.full(size, 0.1)
        norm = embedding_norm(vector)
        assert norm.low < math.sqrt(math.fsum(vector * vector)) < norm.high
        assert norm.high - norm.low < 1e-12
    assert embedding_norm(np.zeros(3)) == (0.0, 0.0, 0.0)


def test_publishing_rounds_down_and_never_below_zero():
    publish = partial(radius_in_pixels, scale=1.0, forward_error=0.25)
    assert radius_in_pixels(1.0, scale=3.0, forward_error=0.0) < 1.0 / 3.0
    assert publish(1.0) == pytest.approx(0.5)
    assert publish(0.5) == publish(-1.0) == publish(math.nan) == publish(math.nan, limit=1.0) == 0.0
    assert publish(math.inf) == publish(math.inf, limit=1.0) == math.inf
    assert publish(2.0, limit=1.0) == publish(1.0)
    assert pixel_scale(1.0, 1.0, 0.0) > 1.0


def test_the_distance_to_a_flip_agrees_with_bisection():
    for turn in (1e-6, 0.1, 1.5, 1.6, 3.0):
        distance = 0.2
        limit = 2 * math.sin((angle(distance) + turn) / 2) ** 2
        if angle(distance) + turn > math.pi:
            continue
        error = cosine_error(2)
        room = angular_slack(np.array([distance]), np.array([limit]), inside=True, error=error)
        pair = certify(at(0, 3.0), at(math.degrees(angle(distance))), threshold=limit)
        closed = flip_radius(room, 3.0)[0]
        assert closed == pytest.approx(pair.radius_a, rel=1e-6)
        assert closed <= 3.0 * math.sin(min(turn, math.pi / 2))
    assert flip_radius(np.array([-1.0, 0.0, 4.0]), 3.0) == pytest.approx([0.0, 0.0, 3.0])
