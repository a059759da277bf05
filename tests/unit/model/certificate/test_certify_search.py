"""The corners of a search certificate, one by one."""

import math

import numpy as np
import pytest

from model.certificate.match import MatchRule
from model.certificate.pairs import Candidates, score
from model.certificate.search import certify_search
from model.errors import CertificateError


def rows(*vectors):
    return np.array(vectors, dtype=np.float32)


def gallery_of(vectors):
    return Candidates(np.arange(len(vectors)), vectors, -math.inf, len(vectors), 1e-6)


def certify(query, candidates, k=1, **options):
    asked = {"lipschitz_bound": 1.0, "gain": 1.0, "forward_error": 0.0} | options
    return certify_search(np.array(query, dtype=np.float64), candidates, k=k, **asked)


PLANE = rows([1, 0], [0, 1], [-1, 0])
NONE = gallery_of(np.zeros((0, 2), dtype=np.float32))


def test_a_radius_is_the_distance_to_the_plane_between_two_rows():
    certificate = certify([3.0, 1.0], gallery_of(PLANE))
    assert certificate.positions.tolist() == [0]
    assert certificate.certified_radii[0] == pytest.approx(2 / math.sqrt(2), rel=1e-12)
    assert certificate.certified_radii[0] < 2 / math.sqrt(2)
    assert certificate.top1_radius == certificate.set_radius == certificate.certified_radii[0]


def test_lipschitz_bound_gain_and_forward_error_each_take_their_part():
    certificate = certify([3.0, 1.0], gallery_of(PLANE), lipschitz_bound=2.0, gain=5.0)
    assert certificate.certified_radii[0] == pytest.approx(math.sqrt(2) / 10, rel=1e-12)
    certificate = certify([3.0, 1.0], gallery_of(PLANE), gain=5.0, forward_error=0.1)
    assert certificate.certified_radii[0] == pytest.approx((math.sqrt(2) - 0.2) / 5, rel=1e-12)
    certificate = certify([3.0, 1.0], gallery_of(PLANE), forward_error=0.8)
    assert certificate.certified_radii[0] == certificate.margins[0] == 0.0


def test_a_margin_knows_neither_image_size_nor_brightness():
    small = certify([3.0, 1.0], gallery_of(PLANE), gain=0.1)
    bright = certify([300.0, 100.0], gallery_of(PLANE), gain=7.0)
    assert small.margins[0] == pytest.approx(bright.margins[0], rel=1e-12)
    assert small.margins[0] == pytest.approx(math.sqrt(2) / math.sqrt(10), rel=1e-12)


def test_a_tie_gives_radius_zero_and_ranks_by_entry_number():
    certificate = certify([1.0, 1.0], gallery_of(PLANE))
    assert certificate.positions.tolist() == [0]
    assert certificate.certified_radii.tolist() == [0.0]
    assert certificate.set_radius == certificate.order_radius == 0.0


@pytest.mark.parametrize("k", [3, 4, 10**9])
def test_with_k_from_the_gallery_size_on_nothing_can_be_displaced(k):
    certificate = certify([3.0, 1.0], gallery_of(PLANE), k=k)
    assert certificate.positions.tolist() == [0, 1, 2]
    assert certificate.certified_radii.tolist() == [math.inf] * 3
    assert certificate.margins.tolist() == [math.inf] * 3
    assert certificate.set_radius == math.inf
    assert certificate.order_radius == pytest.approx(math.sqrt(2), rel=1e-12)
    assert certificate.exact.all()


def test_one_entry_stays_for_ever():
    certificate = certify([3.0, 1.0], gallery_of(PLANE[:1]))
    assert certificate.certified_radii.tolist() == [math.inf]
    assert certificate.top1_radius == certificate.order_radius == math.inf


@pytest.mark.parametrize("max_distance", [None, 0.5, -1.0, 3.0])
def test_an_empty_gallery_gives_an_empty_answer_that_nothing_can_enter(max_distance):
    certificate = certify([3.0, 1.0], NONE, k=5, max_distance=max_distance)
    assert certificate.is_proved
    assert certificate.positions.size == certificate.certified_radii.size == 0
    assert certificate.top1_radius is None
    assert certificate.set_radius == certificate.order_radius == math.inf


@pytest.mark.parametrize("k", [1, 2, 3, 50])
@pytest.mark.parametrize("query", [[0.0, 0.0], [-0.0, 0.0], [5e-324, 0.0], [1e-101, -1e-150]])
def test_a_zero_query_proves_nothing_even_where_k_is_the_whole_gallery(query, k):
    certificate = certify(query, gallery_of(PLANE), k=k)
    assert certificate.is_proved
    assert certificate.positions.tolist() == [0, 1, 2][:k]
    assert not certificate.certified_radii.any()
    assert not certificate.margins.any()
    assert certificate.distances.tolist() == [1.0] * min(k, 3)
    assert certificate.top1_radius == certificate.set_radius == certificate.order_radius == 0.0


@pytest.mark.parametrize("length", [1.0001e-100, 1.5e-100, 1e-99])
def test_a_query_cannot_be_moved_below_its_radius_onto_what_counts_as_zero(length):
    """There the answer is the first entry by number, which is not this query's."""
    opposite = gallery_of(PLANE[[2, 0]])
    certificate = certify([length, 0.0], opposite)
    assert certificate.positions.tolist() == [1]
    radius = certificate.certified_radii[0]
    assert 0.0 <= radius <= length - 1e-100
    moved = certify([length - radius * (1 - 1e-9), 0.0], opposite)
    assert moved.positions.tolist() == [1]


def test_a_zero_query_is_at_distance_one_of_everything():
    assert certify([0.0, 0.0], gallery_of(PLANE), k=2, max_distance=1.0).positions.size == 2
    empty = certify([0.0, 0.0], gallery_of(PLANE), k=2, max_distance=0.99)
    assert empty.positions.size == 0
    assert empty.top1_radius is None
    assert empty.set_radius == 0.0
    assert certify([0.0, 0.0], NONE).set_radius == 0.0


def test_a_zero_query_is_proved_only_by_the_first_entries():
    wrong = Candidates(np.array([1, 2]), PLANE[1:], 0.0, 3, 1e-6)
    assert not certify([0.0, 0.0], wrong).is_proved
    right = Candidates(np.array([2, 0]), PLANE[[2, 0]], 0.0, 3, 1e-6)
    certificate = certify([0.0, 0.0], right)
    assert certificate.is_proved
    assert right.rows[certificate.positions].tolist() == [0]


def test_equal_rows_keep_their_order_for_good():
    same = np.repeat(PLANE[:1], 5, axis=0)
    certificate = certify([3.0, 1.0], gallery_of(same), k=3)
    assert certificate.positions.tolist() == [0, 1, 2]
    # Equal rows score equal at every query, so the first three stay the first three.
    assert certificate.certified_radii.tolist() == [math.inf] * 3
    assert certificate.set_radius == certificate.order_radius == math.inf
    mixed = gallery_of(np.concatenate((PLANE[1:2], same)))
    certificate = certify([3.0, 1.0], mixed, k=3)
    assert certificate.positions.tolist() == [1, 2, 3]
    assert certificate.certified_radii == pytest.approx([math.inf, math.inf, math.sqrt(2)])


def test_the_tail_bound_limits_a_radius_and_says_so():
    part = Candidates(np.array([0]), PLANE[:1], 1.0, 3, 0.0)
    certificate = certify([3.0, 1.0], part)
    angles = math.acos(3 / math.sqrt(10)), math.acos(1 / math.sqrt(10))
    wanted = math.sqrt(10) * math.sin((angles[1] - angles[0]) / 2)
    assert certificate.is_proved
    assert certificate.certified_radii[0] == pytest.approx(wanted, rel=1e-9)
    assert not certificate.exact[0]


def test_the_tail_bound_holds_for_rows_longer_than_one():
    """Two rows on either side of the query, both as long as the gallery allows."""
    near, far, longest = math.radians(10), math.radians(25), 1.05
    first = rows([longest * math.cos(near), longest * math.sin(near)])
    unseen = longest * math.cos(far) * (1 + 1e-7)
    certificate = certify([1.0, 0.0], Candidates(np.array([0]), first, unseen, 2, 0.0501))
    truth = math.sin((far - near) / 2)
    assert 0.7 * truth < certificate.certified_radii[0] <= truth


@pytest.mark.parametrize("unseen", [3.0, 3.5, math.inf])
def test_unseen_entries_that_may_be_ahead_leave_nothing_proved(unseen):
    part = Candidates(np.array([0, 1]), PLANE[:2], unseen, 3, 0.0)
    certificate = certify([3.0, 1.0], part)
    assert not certificate.is_proved
    assert certificate.certified_radii.tolist() == [0.0]
    assert certificate.top1_radius == certificate.set_radius == certificate.order_radius == 0.0


def test_fewer_candidates_than_asked_for_prove_no_answer():
    part = Candidates(np.array([0, 1]), PLANE[:2], -3.0, 3, 0.0)
    certificate = certify([3.0, 1.0], part, k=3)
    assert not certificate.is_proved
    assert certificate.set_radius == certificate.order_radius == 0.0


def test_a_threshold_replaces_null_by_the_distance_to_the_exit():
    certificate = certify([3.0, 1.0], gallery_of(PLANE), k=3, max_distance=0.5)
    assert certificate.positions.tolist() == [0]
    turn = math.acos(0.5) - math.acos(3 / math.sqrt(10))
    wanted = math.sqrt(10) * math.sin(turn)
    assert certificate.certified_radii[0] == pytest.approx(wanted, rel=1e-9)
    assert certificate.exact[0]
    entering = math.sqrt(10) * math.sin(math.acos(1 / math.sqrt(10)) - math.acos(0.5))
    assert certificate.set_radius == pytest.approx(min(wanted, entering), rel=1e-9)


def test_an_empty_answer_is_certified_until_an_entry_comes_within_the_threshold():
    certificate = certify([3.0, 1.0], gallery_of(PLANE), k=2, max_distance=0.01)
    assert certificate.positions.size == 0
    assert certificate.top1_radius is None
    wanted = math.sqrt(10) * math.sin(math.acos(3 / math.sqrt(10)) - math.acos(0.99))
    assert certificate.set_radius == pytest.approx(wanted, rel=1e-9)


def test_unseen_entries_count_as_the_nearest_that_could_enter():
    part = Candidates(np.array([0]), PLANE[:1], 1.0, 3, 1e-6)
    certificate = certify([3.0, 1.0], part, max_distance=0.01)
    everything = certify([3.0, 1.0], gallery_of(PLANE), max_distance=0.01)
    assert certificate.set_radius == pytest.approx(everything.set_radius, rel=1e-5)
    close = Candidates(np.array([0]), PLANE[:1], 2.999, 3, 1e-6)
    limit = 1.0 - 2.998 / math.sqrt(10)
    assert certify([3.0, 1.0], close, k=2, max_distance=limit).set_radius == 0.0


def test_a_threshold_that_no_distance_crosses_still_ends_at_the_zero_embedding():
    always = certify([3.0, 1.0], gallery_of(PLANE), k=3, max_distance=2.0)
    assert always.certified_radii == pytest.approx([math.sqrt(10)] * 3, rel=1e-9)
    never = certify([3.0, 1.0], gallery_of(PLANE), k=3, max_distance=-0.1)
    assert never.positions.size == 0
    assert never.set_radius == pytest.approx(math.sqrt(10), rel=1e-9)


def test_an_exit_on_the_threshold_itself_has_radius_zero():
    distance = float(certify([3.0, 1.0], gallery_of(PLANE)).distances[0])
    certificate = certify([3.0, 1.0], gallery_of(PLANE), max_distance=distance)
    assert certificate.positions.tolist() == [0]
    assert certificate.certified_radii.tolist() == [0.0]


POISON = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", [*POISON, 1e101, -1e300])
def test_a_query_that_is_no_finite_embedding_is_refused(value):
    with pytest.raises(CertificateError, match="embedding must be finite"):
        certify([value, 1.0], gallery_of(PLANE))


@pytest.mark.parametrize("name", ["lipschitz_bound", "gain"])
@pytest.mark.parametrize("value", [*POISON, 0.0, -1.0, 1e-300, 1e300])
def test_a_factor_that_is_no_bound_is_refused(name, value):
    with pytest.raises(CertificateError, match=f"{name} must be positive and finite, got"):
        certify([3.0, 1.0], gallery_of(PLANE), **{name: value})


@pytest.mark.parametrize("value", [*POISON, -1e-9])
def test_a_forward_error_that_is_no_bound_is_refused(value):
    with pytest.raises(CertificateError, match="forward_error must be >= 0 and finite"):
        certify([3.0, 1.0], gallery_of(PLANE), forward_error=value)


@pytest.mark.parametrize("value", POISON)
def test_a_threshold_that_is_no_number_is_refused(value):
    with pytest.raises(CertificateError, match="max_distance must be a finite distance"):
        certify([3.0, 1.0], gallery_of(PLANE), max_distance=value)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k):
    with pytest.raises(CertificateError, match="k must be at least 1"):
        certify([3.0, 1.0], gallery_of(PLANE), k=k)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (Candidates(np.arange(3), PLANE, -math.inf, 2, 0.0), "3 candidates cannot come from 2"),
        (Candidates(np.arange(2), PLANE[:2], -math.inf, 3, 0.0), "cannot be bounded by -inf"),
        (Candidates(np.arange(2), PLANE[:2], math.nan, 3, 0.0), "cannot be bounded by nan"),
        (Candidates(np.arange(3), PLANE, -math.inf, 3, 0.5), "norm_deviation must be in"),
        (Candidates(np.arange(3), PLANE, -math.inf, 3, math.nan), "norm_deviation must be in"),
        (gallery_of(PLANE * np.float32(1.001)), "norms within"),
        (gallery_of(rows([1, 0], [math.nan, 0])), "norms within"),
        (gallery_of(rows([1, 0, 0])), "do not belong together"),
    ],
)
def test_candidates_that_cannot_be_true_are_refused(candidates, message):
    with pytest.raises(CertificateError, match=message):
        certify([3.0, 1.0], candidates)


@pytest.mark.parametrize("dimension", [1, 7, 64, 129, 1000, 1793])
def test_equal_rows_score_bit_equal_wherever_they_stand(dimension):
    rng = np.random.default_rng(dimension)
    row = rng.normal(size=dimension)
    row = (row / np.linalg.norm(row)).astype(np.float32)
    query = rng.normal(size=dimension)
    alone = score(row[None], query, 1e-6).values[0]
    many = np.repeat(row[None], 700, axis=0)
    many[::3] = np.roll(row, 1)
    for start in (0, 1, 2):
        values = score(many[start:], query, 1e-6).values
        same = (many[start:] == row).all(axis=1)
        assert (values[same] == alone).all()
    strided = np.asfortranarray(many)
    assert (score(strided, query, 1e-6).values[1] == alone).all()


def test_a_memory_map_of_many_blocks_gives_what_one_block_gives(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 512))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors.tofile(tmp_path / "vectors.f32")
    mapped = np.memmap(tmp_path / "vectors.f32", dtype=np.float32, shape=vectors.shape)
    query = rng.normal(size=512)
    whole = certify(query, gallery_of(mapped), k=10)
    best = np.sort(np.argsort(-(vectors @ query.astype(np.float32)))[:100])
    few = certify(query, Candidates(best, vectors[best], -math.inf, 100, 1e-6), k=10)
    assert whole.positions.tolist() == best[few.positions].tolist()
    assert whole.certified_radii == pytest.approx(few.certified_radii, rel=1e-9)
    assert whole.top1_radius == pytest.approx(few.top1_radius, rel=1e-9)
    assert whole.set_radius == pytest.approx(few.set_radius, rel=1e-9)
    assert whole.order_radius == pytest.approx(few.order_radius, rel=1e-9)


def test_a_query_equal_to_an_entry_is_exact_within_a_threshold_too():
    """Its angle is lost in rounding, which no more candidates would bring back."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(40, 512))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    for limit in (0.05, 0.1, 0.3):
        certificate = certify(rows[7].astype(float), gallery_of(rows), k=1, max_distance=limit)
        assert certificate.certified_radii[0] > 0.0
        assert certificate.exact.all()


def test_a_certificate_within_a_radius_has_none_above_it_and_leaves_what_nothing_can_change():
    rule = MatchRule(k=1, threshold=0.1)
    two = certify([3.0, 1.0], gallery_of(PLANE), k=2, rule=rule)
    limited = two.within(0.25)
    for name in ("certified_radii", "top1_radius", "set_radius", "order_radius"):
        np.testing.assert_array_equal(
            getattr(limited, name), np.minimum(getattr(two, name), 0.25), err_msg=name
        )
    np.testing.assert_array_equal(limited.verdicts.radii, np.minimum(two.verdicts.radii, 0.25))
    np.testing.assert_array_equal(limited.margins, two.margins)
    everything = certify([3.0, 1.0], gallery_of(PLANE), k=3).within(0.25)
    assert everything.certified_radii.tolist() == [math.inf] * 3
    assert everything.set_radius == math.inf
    assert everything.order_radius <= 0.25
    assert certify([3.0, 1.0], NONE).within(0.25).top1_radius is None
