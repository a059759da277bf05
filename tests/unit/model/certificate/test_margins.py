"""Every safety margin of a radius is there, and as large as its formula says.

Rounding is far kinder than its worst case: of a bound that forgot a margin, no attack that random
data can mount would notice. So each margin is pinned here by itself: the module's number is held
against the formula of docs/certificate.md, evaluated in exact arithmetic from inputs whose own
rounding is far smaller than the margin. The margin is there even where rounding happens to be kind.
"""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from model.certificate.bounds import (
    cholesky_norm_bound,
    conv_sll_scaling,
    dense_sll_scaling,
    euclidean_norm_bound,
    inflate,
    nonnegative_norm_bound,
    orthonormal_norm_bound,
    product_bound,
    wavelet_norm_bound,
)
from model.certificate.distances import CentredRows
from model.certificate.geometry import (
    Norm,
    angular_slack,
    cap_half_angle,
    cosine_error,
    embedding_norm,
    flip_radius,
    pixel_scale,
    radius_in_pixels,
)
from model.certificate.pairs import Candidates, Slack, compare, compare_pairs, score
from model.certificate.scan import PairScan
from model.certificate.search import certify_search
from model.certificate.similarity import certify_pair
from model.certificate.tail import Tail

U = Fraction(1, 2**53)
D = 512
ALMOST = Fraction(999, 1000)
"""What the inputs' own rounding may take of a margin of many roundings."""


def gamma(n: int) -> Fraction:
    return n * U / (1 - n * U)


def long(*values: float) -> np.ndarray:
    """A vector of 512 numbers, zeros behind the given ones: products and sums of it are exact."""
    return np.concatenate((values, np.zeros(D - len(values))))


def arcsin(x: Decimal) -> Decimal:
    """The power series, to 40 digits; for |x| <= 0.9."""
    with localcontext() as context:
        context.prec = 45
        term = total = x
        n = 1
        while abs(term) > Decimal("1e-42"):
            term *= x * x * n / (n + 1)
            n += 2
            total += term / n
        return total


def angle(distance: Fraction) -> Fraction:
    """2 asin(sqrt(distance / 2)), to 40 digits."""
    with localcontext() as context:
        context.prec = 45
        half = Decimal(distance.numerator) / Decimal(distance.denominator) / 2
        return 2 * Fraction(arcsin(half.sqrt()))


def near_rows(step: float) -> np.ndarray:
    """Three rows this far from the first, one on each side, all sums and products exact."""
    return np.stack([long(1.0), long(1.0, step), long(1.0, -step)]).astype(np.float32)


QUERY = long(3.0, -0.5)
LEAST_NORM = Fraction(304, 100)  # below |(3, 1/2)| = 3.0414


@pytest.mark.parametrize(
    ("step", "centre", "is_gram"),
    [
        (2.0**-12, 0.0, False),
        (2.0**-8, 0.0, False),
        (2.0**-6, 0.0, True),
        (0.25, 0.0, True),
        (2.0**-12, 1.0, True),
        (2.0**-12, 1.0 - 2.0**-7, True),
        (2.0**-20, 1.0, True),
    ],
)
@pytest.mark.parametrize("error", [0.0, 2.0**-20])
@pytest.mark.parametrize("scale", [None, 0.25])
def test_a_pair_radius_is_lowered_by_all_of_its_slack(step, centre, is_gram, error, scale):
    """Of squared distances formed from offsets, by what they cancelled; of differences, without."""
    vectors, norm = near_rows(step), embedding_norm(QUERY).high
    assert norm >= LEAST_NORM
    scales = None if scale is None else np.full(D, scale)
    rows = CentredRows.around(long(centre), vectors, np.arange(3), scales)
    scores = score(vectors, QUERY, 0.1).values
    # Ranks: (1, -step), (1, 0), (1, step). Each is step * 0.5 ahead of the next: a radius of 1/2.
    gap = scores[2] - scores[[0]]
    pairs = compare(rows.take(np.array([2])), rows.take(np.array([0])), gap[None].copy())
    unit, apart = gamma(D + 8), Fraction(step)
    c = Fraction(1 if scale is None else scale)
    spread = 2 * Fraction(1 - centre) ** 2 + apart**2 if is_gram else Fraction(0)
    distance, scaled = Fraction(float(pairs.distance[0, 0])), Fraction(float(pairs.scaled[0, 0]))
    least = apart**2 + ALMOST * 2 * unit * spread
    assert least <= distance**2 <= least * (1 + 3 * unit) + 2 * unit * spread
    assert c**2 * least <= scaled**2 <= c**2 * (least * (1 + 3 * unit) + 2 * unit * spread)
    taken = slack_of(apart / 2, distance, error)
    slack = Slack.of(norm, dimension=D, forward_error=error, norm_deviation=0.1)
    assert Fraction(float(pairs.lower(slack)[0, 0])) <= taken / (scaled + unit * LONGEST)
    assert Fraction(float(pairs.lower(slack)[0, 0])) >= taken / scaled * (1 - 40 * unit / apart)
    real = (apart / 2 - 2 * Fraction(error) * apart) / (c * apart)
    assert Fraction(float(pairs.upper(slack)[0, 0])) >= real
    alone = compare_pairs(gap, vectors[[2]].astype(float), vectors[[0]].astype(float), scales)
    assert Fraction(float(alone.lower(slack)[0])) <= slack_of(apart / 2, apart, error) / (
        c * apart + unit * LONGEST
    )


LONGEST = 2 * (1 + Fraction(0.1))


def slack_of(gap: Fraction, distance: Fraction, error: float) -> Fraction:
    """The numerator of a radius: what is left of a gap, docs/certificate.md."""
    e = Fraction(error)
    return gap - ALMOST * 2 * gamma(D + 8) * LONGEST * (LEAST_NORM + e) - 2 * e * distance


def test_a_distance_from_offsets_is_never_below_the_real_one():
    """However much cancels: rows of random distance and centre against exact arithmetic."""
    random = np.random.default_rng(1)
    for _ in range(300):
        row = random.normal(size=16)
        pair = np.stack([row, row + 10.0 ** random.uniform(-8, 0) * random.normal(size=16)])
        pair = (pair / np.linalg.norm(pair, axis=1, keepdims=True)).astype(np.float32)
        centre = (row / np.linalg.norm(row) * random.choice([0.0, 0.9, 1.0])).astype(np.float32)
        scales = 10.0 ** random.uniform(-6, 0, size=16)
        rows = CentredRows.around(centre.astype(np.float64), pair, np.arange(2), scales)
        if (pair[0] == pair[1]).all():
            continue
        found = compare(rows.take(np.array([0])), rows.take(np.array([1])), np.ones((1, 1)))
        differences = [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(*pair, strict=True)]
        plain = sum(d**2 for d in differences)
        scaled = sum((d * Fraction(c)) ** 2 for d, c in zip(differences, scales, strict=True))
        assert plain <= Fraction(float(found.distance[0, 0])) ** 2 <= plain * (1 + Fraction(1e-8))
        assert scaled <= Fraction(float(found.scaled[0, 0])) ** 2 <= scaled * (1 + Fraction(1e-8))


def test_a_scan_keeps_the_order_statistics_of_both_bounds():
    vectors = near_rows(2.0**-6)
    scores, norm = score(vectors, QUERY, 0.1), embedding_norm(QUERY)
    candidates = Candidates(np.arange(3), vectors, -math.inf, 3, 0.1)
    slack = Slack.of(norm.high, dimension=D)
    scan = PairScan(candidates, scores, np.array([2, 0]), k=2, norm=norm, slack=slack)
    ((block, lower),) = list(scan)
    upper = block.of_items(block.pairs.upper(slack))
    assert (scan.lower.kth() == np.sort(lower, axis=1)[:, 1]).all()
    assert (scan.upper.kth() == np.sort(upper, axis=1)[:, 1]).all()
    assert (scan.lower.kth() < scan.upper.kth()).all()


@pytest.mark.parametrize("step", [2.0**-12, 2.0**-6])
def test_the_slack_reaches_the_published_radius(step):
    vectors = near_rows(step)
    found = certify_search(
        QUERY,
        Candidates(np.arange(3), vectors, -math.inf, 3, 0.05),
        k=1,
        lipschitz_bound=1.0,
        gain=1.0,
        forward_error=0.0,
    )
    longest = 2 * (1 + Fraction(0.05))
    wanted = Fraction(1, 2) - ALMOST * 2 * gamma(D + 8) * longest * LEAST_NORM / Fraction(step)
    assert 0 < Fraction(float(found.certified_radii[0])) <= wanted
    assert Fraction(found.set_radius) <= wanted
    assert Fraction(found.order_radius) <= wanted


def tail(gap: Fraction, deviation: float, score_of: float = 2.0) -> float:
    norm, dimension = Norm(2.0, 2.0, 2.0), D
    bounds = Tail(
        scores=np.array([score_of]),
        squared_norms=np.array([1.0]),
        scaled_reach=None,
        norm=norm,
        norm_deviation=deviation,
        dimension=dimension,
        slack=Slack.of(norm.high, dimension=dimension, norm_deviation=deviation),
    )
    return float(bounds.bounds(float(Fraction(score_of) - gap)).isotropic[0])


@pytest.mark.parametrize("deviation", [0.0, 0.1])
def test_the_tail_proves_nothing_within_the_rounding_of_its_scores(deviation):
    rounding = 8 * gamma(D + 8) * (1 + Fraction(deviation)) * 2
    for part in (Fraction(1, 10), Fraction(1, 2), Fraction(99, 100)):
        assert tail(part * rounding, deviation) == 0.0
    assert tail(Fraction(11, 10) * rounding, deviation) > 0.0


@pytest.mark.parametrize("times", [2, 4, 100])
def test_the_tail_takes_rounding_off_the_gap_and_adds_it_to_the_angles(times):
    rounding = 8 * gamma(D + 8) * 2
    error = 8 * (D + 8) * U
    # Nearly parallel: there the error of a cosine is most of the angle.
    chord = (angle(error) + angle(times * rounding / 2 + error)) * ALMOST
    assert tail(times * rounding, 0.0) <= (times - 1) * rounding / chord * (2 - ALMOST)


@pytest.mark.parametrize("deviation", [0.0, 0.05])
def test_a_ranking_is_not_proved_within_the_rounding_of_its_scores(deviation):
    rounding = gamma(D + 8) * (1 + Fraction(deviation)) * 3
    rows = np.stack([long(1.0), long(0.0, 1.0)]).astype(np.float32)
    for part, is_proved in ((-1, False), (0, False), (0.5, False), (0.99, False), (1.05, True)):
        unseen = float(3 - Fraction(part) * rounding)
        found = certify_search(
            long(3.0),
            Candidates(np.array([0, 1]), rows, unseen, 3, deviation),
            k=1,
            lipschitz_bound=1.0,
            gain=1.0,
            forward_error=0.0,
        )
        assert found.is_proved is is_proved
        assert found.set_radius == found.order_radius == 0.0


@pytest.mark.parametrize("error", [0.0, 1e-12, 1e-3])
def test_a_room_loses_the_error_on_both_sides_of_both_verdicts_and_a_rounding(error):
    low, high, e = Fraction(0.25), Fraction(0.75), Fraction(error)
    wanted = angle(high - e) - angle(low + e) - Fraction(1e-14) * 9 / 10
    staying = angular_slack(np.array([0.25]), np.array([0.75]), inside=True, error=error)[0]
    out = angular_slack(np.array([0.75]), np.array([0.25]), inside=False, error=error)[0]
    assert Fraction(float(staying)) <= wanted
    assert Fraction(float(out)) <= wanted
    assert Fraction(float(staying)) >= wanted - Fraction(1e-14)


def test_the_error_of_a_cosine_is_eight_roundings_a_term():
    for dimension in (1, 64, 512, 1792):
        assert Fraction(cosine_error(dimension)) == 8 * (dimension + 8) * U


def test_a_reach_is_raised_and_a_flip_lowered_by_both_roundings():
    tiny, half = 2.0**-20, 0.5
    sine = Fraction(arcsin(Decimal(tiny)))
    assert Fraction(cap_half_angle(tiny, 1.0)) >= sine + Fraction(1e-14) * 9 / 10
    assert (
        Fraction(cap_half_angle(half, 1.0)) >= Fraction(arcsin(Decimal(half))) + Fraction(1e-12) / 2
    )
    assert Fraction(math.sin(tiny)) - Fraction(float(flip_radius(np.array([tiny]), 1.0)[0])) >= (
        Fraction(2e-14) * 9 / 10
    )
    far = Fraction(float(flip_radius(np.array([1.0]), 1.0)[0]))
    assert far <= Fraction(math.sin(1.0)) * (1 - Fraction(19, 10**13))


def pair_at(
    threshold: float | None = None,
    epsilon: float | None = None,
    error_a: float = 0.0,
    error_b: float = 0.0,
):
    """Norms 5 and 2, exact; cosine 3/5."""
    return certify_pair(
        long(3.0, 4.0),
        long(2.0),
        lipschitz_bound=1.0,
        gain_a=1.0,
        gain_b=1.0,
        forward_error_a=error_a,
        forward_error_b=error_b,
        epsilon=epsilon,
        threshold=threshold,
    )


def test_an_interval_is_widened_by_two_errors_and_three_roundings_at_each_end():
    pair = pair_at(epsilon=0.0)
    margin = 2 * Fraction(cosine_error(D)) + Fraction(25e-15) * Fraction(4, 5) - 4 * U
    for low, high in (pair.interval_a, pair.interval_both):
        assert Fraction(2, 5) - Fraction(low) >= margin
        assert Fraction(high) - Fraction(2, 5) >= margin


@pytest.mark.parametrize("threshold", [0.25, 0.75])
def test_a_flip_radius_is_lowered_by_errors_and_roundings(threshold):
    e, distance = Fraction(cosine_error(D)), Fraction(2, 5)
    low, high = sorted((distance, Fraction(threshold)))
    turn = angle(high - e) - angle(low + e) - 3 * Fraction(1e-14) * 9 / 10
    pair = pair_at(threshold=threshold)
    # sin of the turn, by its derivative from a float: both roundings are far below 1e-13.
    limit = Fraction(math.sin(float(turn))) * (1 - Fraction(19, 10**13))
    assert 0 < Fraction(pair.radius_a) <= 5 * limit
    assert 0 < Fraction(pair.radius_b) <= 2 * limit


@pytest.mark.parametrize("threshold", [0.25, 0.75])
def test_a_pair_loses_two_forward_errors_of_each_image(threshold):
    """Also those of the image that stays, which is embedded again."""
    plain, error = pair_at(threshold=threshold), 2.0**-10
    own = pair_at(threshold=threshold, error_a=error)
    assert own.radius_a == pytest.approx(plain.radius_a - 2 * error, rel=1e-9)
    turn = math.asin(plain.radius_a / 5) - math.asin(2 * error / 2)
    others = pair_at(threshold=threshold, error_b=error)
    assert others.radius_a == pytest.approx(5 * math.sin(turn), rel=1e-9)
    wide = pair_at(epsilon=0.0, error_a=error, error_b=error)
    cap = math.asin(2 * error / 5) + math.asin(2 * error / 2)
    for interval in (wide.interval_a, wide.interval_both):
        assert interval[0] <= 1 - math.cos(math.acos(0.6) - cap) + 1e-12
        assert interval[1] >= 1 - math.cos(math.acos(0.6) + cap) - 1e-12


@pytest.mark.parametrize("part", [0.0, 0.5, 1.5, 1.9])
def test_a_verdict_within_its_rounding_of_the_threshold_has_radius_zero(part):
    step = part * cosine_error(D)
    assert pair_at(threshold=0.4 + step).radius_a == 0.0
    assert pair_at(threshold=0.4 - step).radius_a == 0.0
    assert pair_at(threshold=0.4 + 3 * cosine_error(D)).radius_a > 0.0
    # The same in a search: a result about to leave, and an entry about to come in.
    everything = Candidates(
        np.arange(1), long(0.6, 0.8)[None].astype(np.float32), -math.inf, 1, 1e-6
    )
    distance = float(_search(everything, 2.0).distances[0])
    assert _search(everything, distance + step).certified_radii.tolist() == [0.0]
    assert _search(everything, distance + 3.5 * cosine_error(D)).certified_radii[0] > 0.0
    before = np.nextafter(distance, 0.0) - step
    assert _search(everything, before).positions.size == 0
    assert _search(everything, before).set_radius == 0.0
    assert _search(everything, distance - 3.5 * cosine_error(D)).set_radius > 0.0


def _search(candidates, max_distance):
    return certify_search(
        long(3.0),
        candidates,
        k=1,
        lipschitz_bound=1.0,
        gain=1.0,
        forward_error=0.0,
        max_distance=max_distance,
    )


def test_a_norm_is_known_up_to_its_rounding():
    norm = embedding_norm(long(3.0))
    margin = ALMOST * 3 * gamma(D + 8)
    assert Fraction(norm.low) <= 3 - margin
    assert Fraction(norm.high) >= 3 + margin


def test_a_published_radius_is_never_above_the_exact_quotient():
    """Two forward errors off; the subtraction and the division each rounded down."""
    random = np.random.default_rng(0)
    scales = []
    for _ in range(20_000):
        radius, scale, error = (float(x) for x in random.random(3) * (4.0, 3.0, 0.3))
        exact = (Fraction(radius) - 2 * Fraction(error)) / Fraction(scale)
        found = radius_in_pixels(radius, scale=scale, forward_error=error)
        assert Fraction(found) <= max(Fraction(0), exact)
        capped = radius_in_pixels(radius + 5.0, scale=scale, forward_error=error, limit=radius)
        assert capped == found
        scales.append(
            Fraction(pixel_scale(scale, radius, 0.0)) > Fraction(scale) * Fraction(radius)
        )
    assert all(scales)


def test_helpers_add_a_rounding_each():
    for roundings in (0, 5, 1000):
        assert Fraction(inflate(3.0, roundings)) >= 3 * (1 + 2 * gamma(roundings + 1))
    random = np.random.default_rng(0)
    for a, b in random.random((500, 2)):
        assert Fraction(product_bound(a, b)) >= Fraction(a) * Fraction(b)
    assert Fraction(euclidean_norm_bound(long(3.0))) >= 3 * (1 + gamma(D + 2))


def test_an_orthonormal_bound_adds_the_rounding_of_its_gram_matrix():
    weight = np.eye(4, D)  # no defect, and no rounding
    assert Fraction(orthonormal_norm_bound(weight)) ** 2 >= 1 + gamma(D + 1) * 4
    weight[0, 0] += 2.0**-20
    defect = (1 + Fraction(2) ** -20) ** 2 - 1
    assert Fraction(orthonormal_norm_bound(weight)) ** 2 >= 1 + defect + gamma(D + 1) * 4


def test_a_cholesky_bound_adds_the_rounding_of_gram_matrix_subtraction_and_factorisation():
    proposed = 1 + Fraction(1e-11) - 4 * U
    # A wide map: the rounding of the Gram matrix is the largest part.
    found = Fraction(cholesky_norm_bound(np.eye(4, D))) ** 2
    assert found >= proposed + gamma(D + 1) * 4
    # One large singular value of many: trace(A) = 63, and its roundings are the largest parts.
    weight = np.zeros((64, 64))
    weight[0, 0] = 1.0
    found = Fraction(cholesky_norm_bound(weight)) ** 2
    assert found >= proposed + 2 * gamma(65) * 63 + 63 * U + gamma(65)


def test_perron_and_wavelet_bounds_add_their_rounding():
    found = Fraction(nonnegative_norm_bound(np.ones((1, 1024)))) ** 2
    assert found >= 1024 * (1 + gamma(1025))
    filters = np.zeros((1, 8))
    filters[0, 0] = 1.0
    assert Fraction(wavelet_norm_bound(filters)) ** 2 >= 1 + 9 * gamma(9)


def test_t_adds_the_rounding_of_its_gram_matrix():
    for found in dense_sll_scaling(np.eye(4, D), np.ones(4)).tolist():
        assert Fraction(found) >= 1 + gamma(D + 1) + 2 * gamma(10)
    kernel = np.zeros((2, 56, 3, 3))
    kernel[0, 0, 1, 1] = kernel[1, 1, 1, 1] = 1.0
    for found in conv_sll_scaling(kernel).tolist():
        assert Fraction(found) >= 1 + gamma(56 * 9 + 1) + 2 * gamma(56)
