"""The library's attacks: strong enough to find what is there, and never outside their budget."""

from dataclasses import replace

import numpy as np
import pytest

from model.attack.block import Block, Budget
from model.attack.campaign import attack_within
from model.attack.decisions import FirstPlace, StaysNear
from model.attack.ledger import Ledger
from model.attack.library import ATTACKS, check_attack, run_attack, within_budget
from model.attack.subjects import Subject, unit_rows
from model.errors import AttackError

GRADIENT_ATTACKS = [name for name in ATTACKS if name != "square"]
ROWS = np.arange(6)


@pytest.mark.parametrize("attack", GRADIENT_ATTACKS)
def test_a_gradient_attack_finds_the_smallest_perturbation_within_a_few_percent(
    attack: str, block: Block, true_radii: np.ndarray
):
    # A budget for each question, so that none is far above its own radius.
    for row in range(6):
        one = _only(block, row)
        ledger = Ledger(one)
        attack_within(ledger, attack, Budget(1.05 * true_radii[row], "l2", 30), restarts=1, seed=0)
        assert true_radii[row] <= ledger.attack_radii[0] * (1 + 1e-9)
        assert ledger.attack_radii[0] <= 1.05 * true_radii[row]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_turns_a_decision_below_its_certified_radius(
    attack: str, block: Block, true_radii: np.ndarray
):
    ledger = Ledger(block)
    assert ledger.is_right.all()
    assert ledger.certified_radii == pytest.approx(true_radii, rel=1e-6)
    attack_within(ledger, attack, Budget(0.999 * true_radii.min(), "l2", 20), restarts=2, seed=0)
    assert np.isinf(ledger.attack_radii).all()
    assert not ledger.counter_examples


def test_square_finds_what_is_there_with_scores_alone(block: Block, true_radii: np.ndarray):
    ledger = Ledger(block)
    attack_within(ledger, "square", Budget(4.0 * true_radii.max(), "l2", 300), restarts=1, seed=0)
    assert np.isfinite(ledger.attack_radii).all()
    assert (ledger.attack_radii >= true_radii).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_perturbation_keeps_budget_and_box_in_float64(attack: str, norm: str, subject: Subject):
    # Half of the values stand at an end of the box, where clipping matters.
    pictures = np.clip(np.random.default_rng(1).uniform(-0.5, 1.5, (8, 3, 16, 16)), 0.0, 1.0)
    vectors = subject.embed(pictures)
    decision = FirstPlace(unit_rows(vectors)[None], np.arange(8), vectors)
    block = Block(subject, decision, list("abcdefgh"), pictures, vectors)
    budget = Budget(1.5 if norm == "l2" else 0.1, norm, 8)
    deltas = run_attack(attack, block, np.arange(8), budget, restart=1, seed=3)
    sizes = np.abs(deltas).max(axis=(1, 2, 3))
    if norm == "l2":
        sizes = np.sqrt((deltas**2).sum(axis=(1, 2, 3)))
    assert (sizes <= budget.epsilon).all()
    assert (sizes > 0.0).all()
    moved = pictures + deltas
    assert moved.min() >= -1e-15
    assert moved.max() <= 1.0 + 1e-15


def test_a_perturbation_that_is_too_long_is_shortened_and_whole_levels_are_dropped():
    pictures = np.full((1, 3, 2, 2), 0.5)
    deltas = np.full((1, 3, 2, 2), 0.25)
    for norm, size in (("l2", np.linalg.norm), ("linf", lambda d: np.abs(d).max())):
        kept = within_budget(deltas, pictures, Budget(0.1, norm, 1))
        assert size(kept.ravel()) == pytest.approx(0.1, rel=1e-9)
        assert size(kept.ravel()) <= 0.1
        levels = within_budget(deltas, pictures, Budget(0.1, norm, 1), has_levels=True)
        assert not levels.any()


@pytest.mark.parametrize("attack", ["apgd-ce", "pgd", "square"])
def test_the_same_seed_finds_the_same_and_numpys_global_state_stays_as_it_was(
    attack: str, block: Block, true_radii: np.ndarray
):
    budget = Budget(0.5 * true_radii.min(), "l2", 3)
    np.random.seed(12)  # noqa: NPY002
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = (
        run_attack(attack, block, ROWS, budget, restart=1, seed=seed) for seed in (7, 7, 8)
    )
    assert (first == again).all()
    assert (first != other).any()
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_targeted_restarts_go_through_the_runners_up(block: Block):
    vector = block.vectors[0]
    nearest = block.decision.rivals(vector, 0, 3)
    assert len(set(nearest)) == 3
    # Class 0 is the decision, and entry 0 stands again as class 1.
    assert 1 not in nearest
    assert block.decision.rivals(vector, 0, 1) == nearest[:1]


def test_a_distance_is_attacked_off_the_picture_where_it_has_no_gradient(
    subject: Subject, gray_pictures: np.ndarray
):
    vectors = subject.embed(gray_pictures)
    block = Block(subject, StaysNear(vectors, 0.1), list("abcdefghijkl"), gray_pictures, vectors)
    ledger = Ledger(block)
    # cos t = 0.9, and the way to that cone is |g| sin t.
    exact = np.linalg.norm(vectors, axis=1) * np.sqrt(1.0 - 0.9**2)
    assert ledger.certified_radii == pytest.approx(exact, rel=1e-5)
    for attack in ("pgd", "apgd-margin", "momentum"):
        ledger = Ledger(block)
        budget = Budget(1.05 * exact.max(), "l2", 40)
        attack_within(ledger, attack, budget, restarts=1, seed=0)
        # The straight way up is a little longer than the shortest.
        assert (ledger.attack_radii >= exact).all()
        assert (ledger.attack_radii <= 1.06 * exact.max()).all()
        reached, bounds = ledger.reached[budget.epsilon], ledger.reach_bounds(budget.epsilon)
        assert (reached <= bounds).all()
        assert (reached > 0.9 * bounds).all()


def test_what_cannot_be_run_is_refused_by_name(subject: Subject):
    with pytest.raises(AttackError, match="'cw'"):
        check_attack("cw", subject, "l2")
    with pytest.raises(AttackError, match="'l1'"):
        check_attack("pgd", subject, "l1")
    with pytest.raises(AttackError, match="no gradients"):
        check_attack("pgd", replace(subject, network=None), "l2")
    with pytest.raises(AttackError, match="square pictures, got 3x16"):
        check_attack("square", replace(subject, height=3), "l2")


def _only(block: Block, row: int) -> Block:
    """One question of a block; its decision is asked by place."""
    part = slice(row, row + 1)
    decision = FirstPlace(
        block.decision._galleries, block.decision._entries[part], block.vectors[part]
    )
    return replace(
        block,
        decision=decision,
        ids=block.ids[part],
        pictures=block.pictures[part],
        vectors=block.vectors[part],
    )
