"""The probe: it knows whose input it is shown, and keeps the best of a run, not the last."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attack.block import Block
from model.attack.probe import AllTurnedError, Probe, apart


def probe_of(block: Block, epsilon: float = 1.0, **options) -> Probe:
    return Probe(
        block.subject.network,
        block.decision,
        torch.arange(len(block.ids)),
        torch.from_numpy(block.pictures.astype(np.float32)),
        epsilon=epsilon,
        norm="l2",
        **options,
    )


def toward(block: Block, length: float) -> torch.Tensor:
    """Each picture moved so far straight to its near twin's half-space."""
    gallery = block.decision._galleries[0].astype(np.float64)
    difference = gallery[6:] - gallery[:6]
    steps = length * difference / np.linalg.norm(difference, axis=1, keepdims=True)
    moved = block.pictures + steps.reshape(block.pictures.shape)
    return torch.from_numpy(moved.astype(np.float32))


def test_questions_are_known_by_their_input_in_any_order_and_number(
    block: Block, true_radii: np.ndarray
):
    probe = probe_of(block)
    x = toward(block, 0.5 * true_radii.min())
    order = [4, 2, 2, 5]
    scores = probe(x[order])
    alone = [probe_of(block)(x[i : i + 1])[0] for i in order]
    assert torch.allclose(scores, torch.stack(alone), atol=1e-5)
    assert (probe.best[order] == x[order]).all()
    untouched = [0, 1, 3]
    assert (probe.best[untouched].double().numpy() - block.pictures[untouched]).max() < 1e-6
    assert probe.gaps[untouched].isinf().all()


def test_the_best_input_is_kept_when_a_run_ends_elsewhere(block: Block, true_radii: np.ndarray):
    probe = probe_of(block)
    near, far = (toward(block, factor * true_radii.min()) for factor in (0.8, 0.2))
    probe(near)
    probe(far)
    assert (probe.best == near).all()


def test_an_input_over_budget_is_answered_but_not_kept(block: Block, true_radii: np.ndarray):
    length = 0.5 * float(true_radii.min())
    probe = probe_of(block, epsilon=0.9 * length)
    assert probe(toward(block, length)).shape == (6, 13)
    assert probe.gaps.isinf().all()


def test_a_turned_question_costs_nothing_and_gives_no_gradient(
    block: Block, true_radii: np.ndarray
):
    probe = probe_of(block)
    x = toward(block, 0.5 * float(true_radii.min()))
    x[0] = toward(block, 1.1 * float(true_radii[0]))[0]
    probe(x)
    assert probe.passes == 6
    x.requires_grad_(True)
    scores = probe(x)
    assert probe.passes == 11
    assert scores[0].argmax() == 1
    assert (scores[1:].argmax(dim=1) == 0).all()
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), x)
    assert not gradient[0].any()
    assert gradient[1:].flatten(1).any(dim=1).all()


def test_the_attack_ends_when_every_decision_is_turned(block: Block, true_radii: np.ndarray):
    probe = probe_of(block)
    x = toward(block, 1.1 * float(true_radii.max()))
    probe(x)
    with pytest.raises(AllTurnedError):
        probe(x)
    patient = probe_of(block, stop_when_turned=False)
    patient(x)
    patient(x)
    assert patient.passes == 12


def test_levels_are_approached_from_the_picture(block: Block):
    probe = probe_of(block, has_levels=True)
    x = toward(block, 1.0)
    probe(x)
    levels = 255.0 * (probe.best.double().numpy() - block.pictures)
    assert np.abs(levels - np.rint(levels)).max() < 1e-3
    wanted = 255.0 * (x.double().numpy() - block.pictures)
    assert (np.abs(np.rint(levels)) <= np.abs(wanted) + 2e-3).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.floats(0.01, 2.0), st.sampled_from(["l2", "linf"]), st.integers(1, 4))
def test_parts_hold_each_question_once_and_only_pictures_that_are_apart(count, epsilon, norm, most):
    pictures = np.random.default_rng(count).uniform(0.0, 1.0, (count, 3, 2, 2))
    parts = list(apart(pictures, epsilon, norm, most))
    assert sorted(row for part in parts for row in part) == list(range(count))
    for part in parts:
        assert 1 <= len(part) <= most
        for i in part:
            for j in part:
                difference = pictures[i] - pictures[j]
                size = np.linalg.norm(difference) if norm == "l2" else np.abs(difference).max()
                assert i == j or size > 2.0 * epsilon
