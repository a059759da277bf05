"""Losses against their formulas, and the radius against a search for what it forbids."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.certificate.pairs import Slack, compare_pairs
from model.train.finetune import certified_share
from model.train.losses import (
    cosine_hinge,
    decision,
    distillation,
    radius_hinge,
    root_mean_square,
    signed_radius,
)

SEEDS = st.integers(0, 2**32 - 1)


def triplet(seed: int, rows: int = 5, dim: int = 4) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(seed)
    return tuple(torch.from_numpy(random.standard_normal((rows, dim))) for _ in range(3))


def unit(h: np.ndarray) -> np.ndarray:
    return h / np.linalg.norm(h, axis=1, keepdims=True)


def test_distillation_is_the_mean_of_two_roots():
    plain, edited, targets = triplet(1)
    wanted = np.mean([np.sqrt(np.mean((view - targets).numpy() ** 2)) for view in (plain, edited)])
    assert float(distillation(plain, edited, targets)) == pytest.approx(wanted)
    assert float(root_mean_square(plain, plain)) == 0.0


@given(SEEDS, st.sampled_from([0.05, 0.2, 0.5]))
@settings(max_examples=30, deadline=None)
def test_the_hinge_is_the_published_sum(seed, margin):
    reference, left, right = triplet(seed)
    votes = np.random.default_rng(seed).integers(0, 2, 5)
    a, b, c = (unit(h.numpy()) for h in (reference, left, right))
    d0, d1 = 1 - (a * b).sum(1), 1 - (a * c).sum(1)
    wanted = np.maximum(0, margin - (2 * votes - 1) * (d0 - d1)).sum()
    found = cosine_hinge(reference, left, right, torch.from_numpy(votes).double(), margin)
    assert float(found) == pytest.approx(wanted)


def test_a_divided_vote_teaches_nothing_and_a_narrow_one_little():
    reference, left, right = triplet(3, rows=1)
    for loss in (cosine_hinge, radius_hinge):
        whole = float(loss(reference, left, right, torch.ones(1), 9.0))
        assert whole > 0
        assert float(loss(reference, left, right, torch.tensor([0.5]), 9.0)) == 0.0
        narrow = float(loss(reference, left, right, torch.tensor([0.6]), 9.0))
        assert narrow == pytest.approx(0.2 * whole, rel=1e-6)
    chosen, weight = decision(torch.tensor([0.0, 0.2, 0.5, 0.75, 1.0]))
    assert chosen.tolist() == [-1, -1, -1, 1, 1]
    assert weight.tolist() == pytest.approx([1, 0.6, 0, 0.5, 1])


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_radius_is_the_distance_to_where_the_choice_changes(seed):
    """For the identity, a 1-Lipschitz network, embeddings move exactly as inputs do."""
    reference, left, right = triplet(seed, rows=1)
    radius = float(signed_radius(reference, left, right))
    a, b = unit(left.numpy())[0], unit(right.numpy())[0]
    x = reference.numpy()[0]
    assert (x @ b > x @ a) == (radius > 0)
    towards = -np.sign(radius) * (b - a) / np.linalg.norm(b - a)
    for share, flips in ((0.999, False), (1.001, True)):
        y = x + share * abs(radius) * towards
        assert ((y @ b > y @ a) != (x @ b > x @ a)) == flips
    random = np.random.default_rng(seed)
    for _ in range(50):
        step = random.standard_normal(4)
        y = x + 0.999 * abs(radius) * step / np.linalg.norm(step)
        assert (y @ b > y @ a) == (x @ b > x @ a)


def test_the_radius_grows_with_the_reference_and_not_with_the_others():
    reference, left, right = triplet(8)
    radius = signed_radius(reference, left, right)
    assert torch.allclose(signed_radius(3 * reference, 5 * left, 0.1 * right), 3 * radius)
    assert torch.allclose(signed_radius(reference, right, left), -radius)


@given(st.integers(0, 10**6))
def test_the_differentiable_radius_is_the_certificates(seed):
    reference, left, right = triplet(seed)
    units = unit(right.numpy()), unit(left.numpy())
    gap = (reference.numpy() * (units[0] - units[1])).sum(axis=1)
    slack = Slack.of(np.linalg.norm(reference, axis=1), dimension=reference.shape[1])
    pairs = compare_pairs(np.abs(gap), *units)
    found = signed_radius(reference, left, right).numpy() * np.sign(gap)
    assert np.all(found >= pairs.lower(slack))
    assert np.all(found <= pairs.upper(slack))
    np.testing.assert_allclose(pairs.lower(slack), found, rtol=1e-9, atol=1e-9)


def test_left_and_right_alike_have_no_radius_and_harm_no_gradient():
    reference, left, _ = triplet(2)
    left = left.requires_grad_()
    radius = signed_radius(reference, left, left)
    assert radius.tolist() == [0.0] * 5
    radius_hinge(reference, left, left, torch.ones(5), 1.0).backward()
    assert left.grad is not None
    assert bool(left.grad.isfinite().all())


def test_shares_count_those_who_chose_what_is_certified():
    radius = torch.tensor([0.5, -0.5, 0.1, 0.0])
    vote = torch.tensor([0.8, 0.8, 1.0, 0.9])
    assert certified_share(radius, vote, 0.3).tolist() == pytest.approx([0.8, 0.2, 0.0, 0.0])
    assert certified_share(radius, vote, 0.0).tolist() == pytest.approx([0.8, 0.2, 1.0, 0.0])
    natural = certified_share(radius, vote, 0.0, ties=True)
    assert natural.tolist() == pytest.approx([0.8, 0.2, 1.0, 0.5])
