"""What is found is confirmed, shortened, and held against what is proved."""

from dataclasses import replace

import numpy as np
import pytest

from model.attack.attacks import hunt, search_shortest
from model.attack.decisions import Match, Top1
from model.attack.ledger import Ledger
from model.attack.pixel_metric import PixelMetric
from model.attack.questions import Block
from model.certificate.pairs import Candidates
from model.certificate.search import certify_search
from model.metrics.metric import unit_rows

pytestmark = pytest.mark.without_shape_checks


def claiming(block: Block, lipschitz_bound: float) -> Block:
    """The same questions to a metric that claims another bound than it has."""
    return replace(block, metric=replace(block.metric, lipschitz_bound=lipschitz_bound))


def test_the_search_for_the_shortest_comes_within_two_percent_of_the_truth(
    block: Block, true_radii: np.ndarray
):
    ledger = Ledger(block)
    search_shortest(ledger, steps=60, restarts=2, seed=0)
    assert (ledger.attack_radii >= true_radii).all()
    assert (ledger.attack_radii <= 1.02 * true_radii).all()
    assert ledger.ratios() == pytest.approx(1.0, abs=0.02)
    assert ledger.found_by == ["shortest"] * 6
    assert not ledger.counter_examples


def test_a_hunt_below_a_sound_radius_finds_nothing(block: Block):
    ledger = Ledger(block)
    hunt(ledger, np.arange(6), steps=30, restarts=3, seed=0)
    assert np.isinf(ledger.attack_radii).all()
    assert not ledger.counter_examples


def test_a_bound_that_is_too_small_by_a_hundredth_is_caught(block: Block, true_radii: np.ndarray):
    ledger = Ledger(claiming(block, 0.99))
    hunt(ledger, np.arange(6), steps=60, restarts=1, seed=0)
    assert {one.fields["id"] for one in ledger.counter_examples} == set(block.ids)
    for one in ledger.counter_examples:
        row = block.ids.index(one.fields["id"])
        assert true_radii[row] <= one.fields["length"] < one.fields["certified_radius"]
        assert np.linalg.norm(one.delta) == pytest.approx(one.fields["length"], rel=1e-12)
        moved = block.metric.embed((one.picture + one.delta)[None])
        assert not block.decision.holds(moved, np.array([row])).any()


def test_only_what_float64_confirms_is_written_down(block: Block):
    ledger = Ledger(block)
    nothing = np.full_like(block.pictures, 1e-4)
    ledger.record(np.arange(6), nothing, "a liar")
    assert np.isinf(ledger.attack_radii).all()
    assert ledger.standing(10.0, "l2").all()


def test_a_perturbation_is_shortened_to_where_its_decision_turns(
    block: Block, true_radii: np.ndarray
):
    gallery = block.decision._galleries[0].astype(np.float64)
    difference = (gallery[6:] - gallery[:6]).reshape(block.pictures.shape)
    length = np.linalg.norm(difference.reshape(6, -1), axis=1)
    far = difference * (3.0 * true_radii / length)[:, None, None, None]
    ledger = Ledger(block)
    ledger.record(np.arange(6), far, "straight")
    assert ledger.attack_radii == pytest.approx(true_radii, rel=2e-3)
    assert (ledger.attack_radii >= true_radii).all()
    largest = np.abs(far).max(axis=(1, 2, 3)) * ledger.attack_radii / (3.0 * true_radii)
    assert ledger.flip_norms["linf"] == pytest.approx(largest, rel=1e-9)


def test_a_wrong_answer_proves_nothing_and_is_not_attacked(block: Block):
    decision = Top1(block.decision._galleries, np.full(6, 11), block.vectors)
    ledger = Ledger(replace(block, decision=decision))
    assert not ledger.is_right.any()
    assert not ledger.certified_radii.any()
    search_shortest(ledger, steps=3, restarts=1, seed=0)
    assert np.isinf(ledger.attack_radii).all()
    assert not ledger.standing(0.0, "l2").any()


def test_the_radius_is_the_certificate_of_a_search(block: Block, metric: PixelMetric):
    gallery = block.decision._galleries[0]
    everything = Candidates(np.arange(12), gallery, -np.inf, 12, 1e-6)
    for row, vector in enumerate(block.vectors):
        answer = certify_search(
            vector, everything, k=1, lipschitz_bound=1.0, gain=1.0, forward_error=1e-12
        )
        radius = block.decision.certified_radius(vector, row, replace(metric, forward_error=1e-12))
        assert radius == pytest.approx(answer.certified_radii[0], rel=1e-12)


@pytest.mark.parametrize("views", [1, 4])
def test_a_decision_is_that_of_a_search_to_the_last_bit(views):
    rng = np.random.default_rng(8)
    gallery = unit_rows(rng.integers(-1, 2, (40, 8)).astype(np.float64) + 1e-9)
    # Whole numbers tie all the time, and a tie is decided by number.
    vectors = rng.integers(-2, 3, (300, 8)).astype(np.float64)
    items = np.arange(40) // views
    entries = rng.integers(0, 40 // views, 300)
    decision = Top1(gallery[None], entries, vectors, views=views)
    everything = Candidates(np.arange(40), gallery, -np.inf, 40, 1e-6, items, 40 // views)
    held = decision.holds(vectors, np.arange(300))
    ones = {"k": 1, "lipschitz_bound": 1.0, "gain": 1.0, "forward_error": 0.0}
    for vector, entry, holds in zip(vectors, entries, held, strict=True):
        if vector.any():
            first = certify_search(vector, everything, **ones).positions[0]
            assert holds == (items[first] == entry)
    assert 0 < held.sum() < 300


def test_equal_rows_rank_by_number_and_do_not_draw_the_attack(block: Block, true_radii: np.ndarray):
    gallery = block.decision._galleries[0]
    doubled = np.concatenate([gallery, gallery[:6]])
    decision = Top1(doubled[None], np.arange(6), block.vectors)
    ledger = Ledger(replace(block, decision=decision))
    assert ledger.is_right.all()
    search_shortest(ledger, steps=60, restarts=1, seed=0)
    assert (ledger.attack_radii <= 1.02 * true_radii).all()
    later = Top1(doubled[None], np.arange(12, 18), block.vectors)
    assert not Ledger(replace(block, decision=later)).is_right.any()


def test_an_entry_of_several_views_falls_at_its_radius_and_not_before(
    block: Block, metric: PixelMetric, gray_pictures: np.ndarray
):
    """The originals as they are and mirrored, and the radius by the way to each other view."""
    views = np.stack([gray_pictures, gray_pictures[..., ::-1]], axis=1)
    gallery = unit_rows(metric.embed(views.reshape(24, *gray_pictures.shape[1:])))
    decision = Top1(gallery[None], np.arange(6), block.vectors, views=2)
    ledger = Ledger(replace(block, decision=decision))
    assert ledger.is_right.all()
    rows = gallery.astype(np.float64).reshape(12, 2, -1)
    for entry, vector in enumerate(block.vectors):
        normals = rows[entry][:, None] - np.delete(rows, entry, axis=0).reshape(1, 22, -1)
        leads = (normals @ vector / np.linalg.norm(normals, axis=2)).max(axis=0)
        assert ledger.certified_radii[entry] == pytest.approx(leads.min(), rel=1e-6)
        assert ledger.certified_radii[entry] <= leads.min()
    search_shortest(ledger, steps=60, restarts=1, seed=0)
    assert not ledger.counter_examples
    assert (ledger.attack_radii >= ledger.certified_radii).all()
    assert (ledger.attack_radii <= 1.05 * ledger.certified_radii).all()


def test_two_alternatives_a_question_are_decided_each_by_its_own(block: Block):
    vectors = block.vectors
    pairs = np.stack([unit_rows(vectors), unit_rows(-vectors)], axis=1)
    ledger = Ledger(replace(block, decision=Top1(pairs, np.zeros(6, np.int64), vectors)))
    assert ledger.is_right.all()
    # The half-space between a direction and its opposite passes through zero.
    assert ledger.certified_radii == pytest.approx(np.linalg.norm(vectors, axis=1), rel=1e-6)
    wrong = Top1(pairs, np.ones(6, np.int64), vectors)
    assert not Ledger(replace(block, decision=wrong)).is_right.any()


def test_a_distance_beyond_its_threshold_is_a_flipped_decision(block: Block):
    vectors = block.vectors
    decision = Match(vectors, 0.5)
    ledger = Ledger(replace(block, decision=decision))
    ledger.record(np.arange(6), 1.0 - 2.0 * block.pictures, "mirror", within=5.0)
    assert np.isfinite(ledger.attack_radii).all()
    assert ledger.reached[5.0] == pytest.approx(2.0, abs=1e-9)


def test_a_metric_without_a_certificate_cannot_be_refuted(block: Block):
    ledger = Ledger(claiming(block, None))
    assert np.isnan(ledger.certified_radii).all()
    hunt(ledger, np.arange(6), steps=30, restarts=1, seed=0)
    assert np.isinf(ledger.attack_radii).all()
    search_shortest(ledger, steps=40, restarts=1, seed=0)
    assert np.isfinite(ledger.attack_radii).all()
    assert np.isnan(ledger.ratios()).all()
    assert not ledger.counter_examples
