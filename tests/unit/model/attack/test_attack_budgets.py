"""Attacks within a budget: strong enough to find what is there, and never outside it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.attack.attacks import METHODS, attack_within, run_attack, within_budget
from model.attack.decisions import Match, Top1
from model.attack.ledger import Ledger
from model.attack.objectives import flip_objective
from model.attack.pixel_metric import PixelMetric
from model.attack.plan import ATTACKS, Plan
from model.attack.questions import Block
from model.attack.run import check_plan
from model.errors import AttackError
from model.metrics.metric import unit_rows

pytestmark = pytest.mark.without_shape_checks

GRADIENT_ATTACKS = [name for name in ATTACKS if name != "square"]
ROWS = np.arange(6)


def plan(norm: str, steps: int, restarts: int = 1, seed: int = 0) -> Plan:
    return Plan(
        data=Path("drawn"), out=Path("nowhere"), norm=norm, steps=steps, restarts=restarts,
        seed=seed,
    )  # fmt: skip


def test_each_attack_that_an_option_names_is_there():
    assert tuple(METHODS) == ATTACKS


@pytest.mark.parametrize("attack", GRADIENT_ATTACKS)
def test_a_gradient_attack_finds_the_smallest_perturbation_within_a_few_percent(
    attack: str, block: Block, true_radii: np.ndarray
):
    # A budget for each question, so that none is far above its own radius.
    for row in range(6):
        ledger = Ledger(block)
        epsilon = 1.05 * true_radii[row]
        one = np.array([row])
        attack_within(ledger, attack, epsilon, plan("l2", 30, 1), one)
        assert true_radii[row] <= ledger.attack_radii[row] * (1 + 1e-9)
        assert ledger.attack_radii[row] <= epsilon


@pytest.mark.parametrize("attack", GRADIENT_ATTACKS)
def test_a_gradient_attack_finds_the_smallest_linf_perturbation_too(attack: str, block: Block):
    gallery = block.decision._galleries[0].astype(np.float64)
    for row in range(6):
        # The margin to a rival falls by |f_i - f_j|_1 for each unit of linf, so this is the least.
        normals = np.delete(gallery[row] - gallery, row, axis=0)
        smallest = (normals @ block.vectors[row] / np.abs(normals).sum(axis=1)).min()
        for factor in (0.999, 1.05):
            ledger, one = Ledger(block), np.array([row])
            epsilon = factor * smallest
            attack_within(ledger, attack, epsilon, plan("linf", 30, 1), one)
            assert np.isfinite(ledger.flip_norms["linf"][row]) == (factor > 1.0)
            assert ledger.flip_norms["linf"][row] >= smallest * (1 - 1e-9)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_flips_a_decision_below_its_certified_radius(
    attack: str, block: Block, true_radii: np.ndarray
):
    ledger = Ledger(block)
    assert ledger.is_right.all()
    assert ledger.certified_radii == pytest.approx(true_radii, rel=1e-6)
    epsilon = 0.999 * true_radii.min()
    attack_within(ledger, attack, epsilon, plan("l2", 20, 2))
    assert np.isinf(ledger.attack_radii).all()
    assert not ledger.counter_examples


@pytest.mark.parametrize("attack", GRADIENT_ATTACKS)
def test_a_radius_that_is_three_times_too_large_is_refuted_by_every_gradient_attack(
    attack: str, block: Block, true_radii: np.ndarray
):
    inflated = replace(block, metric=replace(block.metric, lipschitz_bound=1.0 / 3.0))
    ledger = Ledger(inflated)
    epsilon = 2.0 * true_radii.max()
    attack_within(ledger, attack, epsilon, plan("l2", 20, 1))
    assert {one.fields["id"] for one in ledger.counter_examples} == set(block.ids)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_square_finds_what_is_there_with_scores_alone(
    norm: str, block: Block, true_radii: np.ndarray
):
    blind = replace(block, metric=replace(block.metric, network=None))
    ledger = Ledger(blind)
    epsilon = 4.0 * true_radii.max() / (1.0 if norm == "l2" else np.sqrt(3 * 16 * 16))
    attack_within(ledger, "square", epsilon, plan(norm, 300, 1))
    assert np.isfinite(ledger.attack_radii).all()
    assert (ledger.attack_radii >= true_radii).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_perturbation_keeps_budget_and_box_in_float64(
    attack: str, norm: str, metric: PixelMetric
):
    # Half of the values stand at an end of the box, where clipping matters.
    pictures = np.clip(np.random.default_rng(1).uniform(-0.5, 1.5, (8, 3, 16, 16)), 0.0, 1.0)
    vectors = metric.embed(pictures)
    decision = Top1(unit_rows(vectors)[None], np.arange(8), vectors)
    ledger = Ledger(Block(metric, decision, list("abcdefgh"), pictures, vectors))
    epsilon = 1.5 if norm == "l2" else 0.1
    deltas = run_attack(ledger, attack, np.arange(8), epsilon, plan(norm, 8, seed=3), 1)
    sizes = np.abs(deltas).max(axis=(1, 2, 3))
    if norm == "l2":
        sizes = np.sqrt((deltas**2).sum(axis=(1, 2, 3)))
    assert (sizes <= epsilon).all()
    assert (sizes > 0.0).all()
    moved = pictures + deltas
    assert moved.min() >= -1e-15
    assert moved.max() <= 1.0 + 1e-15


def test_a_perturbation_that_is_too_long_is_shortened_and_whole_levels_are_dropped():
    pictures = np.full((1, 3, 2, 2), 0.5)
    deltas = np.full((1, 3, 2, 2), 0.25)
    for norm, size in (("l2", np.linalg.norm), ("linf", lambda d: np.abs(d).max())):
        kept = within_budget(deltas, pictures, 0.1, norm, False)
        assert size(kept.ravel()) == pytest.approx(0.1, rel=1e-9)
        assert size(kept.ravel()) <= 0.1
        assert not within_budget(deltas, pictures, 0.1, norm, True).any()


@pytest.mark.parametrize("attack", ["apgd-ce", "pgd", "square"])
def test_the_same_seed_finds_the_same_and_another_seed_something_else(
    attack: str, block: Block, true_radii: np.ndarray
):
    epsilon = 0.5 * true_radii.min()
    first, again, other = (
        run_attack(Ledger(block), attack, ROWS, epsilon, plan("l2", 3, seed=seed), 1)
        for seed in (7, 7, 8)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_targeted_restarts_go_through_the_runners_up(block: Block):
    numbers, still = torch.arange(6), block.metric.tensor(np.zeros_like(block.pictures))
    scores = block.decision.scores(block.metric.tensor(block.vectors), numbers)
    nearest = scores[:, 1:].sort(dim=1, descending=True).values
    for restart in range(3):
        loss, gap = flip_objective(block, ROWS, runner_up=restart)(still, numbers)
        assert torch.allclose(loss, scores[:, 0] - nearest[:, restart], atol=1e-3)
        assert torch.allclose(gap, scores[:, 0] - nearest[:, 0], atol=1e-3)
    # A decision of two classes has one runner-up, and then it again.
    decision = Match(block.vectors, 0.1)
    matches = replace(block, decision=decision)
    losses = [flip_objective(matches, ROWS, runner_up=turn)(still, numbers)[0] for turn in (0, 5)]
    assert torch.equal(*losses)


def test_a_distance_is_attacked_off_the_picture_where_it_has_no_gradient(
    metric: PixelMetric, gray_pictures: np.ndarray
):
    vectors = metric.embed(gray_pictures)
    block = Block(metric, Match(vectors, 0.1), list("abcdefghijkl"), gray_pictures, vectors)
    # cos t = 0.9, and the way to that cone is |g| sin t.
    exact = np.linalg.norm(vectors, axis=1) * np.sqrt(1.0 - 0.9**2)
    assert Ledger(block).certified_radii == pytest.approx(exact, rel=1e-5)
    epsilon = 1.05 * exact.max()
    for attack in ("pgd", "apgd-margin", "momentum"):
        ledger = Ledger(block)
        attack_within(ledger, attack, epsilon, plan("l2", 40, 1))
        # The straight way up is a little longer than the shortest.
        assert (ledger.attack_radii >= exact).all()
        assert (ledger.attack_radii <= 1.06 * exact.max()).all()
        reached, bounds = ledger.reached[epsilon], ledger.reach_bounds(epsilon)
        assert (reached <= bounds).all()
        assert (reached > 0.9 * bounds).all()


def test_square_is_refused_on_pictures_that_are_not_square(metric: PixelMetric):
    with pytest.raises(AttackError, match="square pictures, got 3x16"):
        check_plan(replace(plan("l2", 1), attacks=["square"]), replace(metric, height=3))
