"""The objective is the certified radius: held to plain loops, and to its own gradient."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model.certificate.pairs import Slack, compare_pairs
from model.train.config import CopiesSettings
from model.train.copies.objective import (
    copies_loss,
    pairwise_radii,
    radius_loss,
    relational_loss,
)


def _rows(count, dim, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, dim)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(2, 6), st.integers(0, 10**6))
def test_pairwise_radii_are_distances_to_half_spaces(count, first, dim, seed):
    queries, keys = _rows(count, dim, [seed, 1]), _rows(first + count + 2, dim, [seed, 2])
    radii, counts = pairwise_radii(queries, keys[:, None], first)
    units = keys / keys.norm(dim=1, keepdim=True)
    for i, query in enumerate(queries):
        for j in range(len(keys)):
            difference = units[first + i] - units[j]
            apart = float(difference.norm())
            assert bool(counts[i, j]) == (j != first + i and apart**2 > 1e-4)
            if counts[i, j]:
                expected = float(query @ difference) / apart
                assert float(radii[i, j]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_pairwise_radii_are_those_of_the_certificate():
    queries, keys = _rows(6, 8, 1), _rows(9, 8, 2)
    radii, counts = pairwise_radii(queries, keys[:, None], 2)
    units = (keys / keys.norm(dim=1, keepdim=True)).numpy()
    difference = units[2:8, None] - units[None]
    gap = np.einsum("bd,bnd->bn", queries.numpy(), difference)
    norm = queries.norm(dim=1, keepdim=True).expand(6, 9)[counts].numpy()
    pairs = compare_pairs(gap[counts], difference[counts], np.zeros((6 * 8, 8)))
    expected = pairs.lower(Slack.of(norm, dimension=8))
    assert counts.sum() == 6 * 8
    assert np.allclose(radii[counts], expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5), st.integers(0, 10**6))
def test_radii_of_views_are_least_over_theirs_of_largest_over_own(count, views, dim, seed):
    keys, head = _rows((count + 1) * views, dim, [seed, 1]), _rows(dim, dim + 2, [seed, 3])
    keys, queries = keys.view(-1, views, dim), _rows(count, dim, [seed, 2])
    units = keys / keys.norm(dim=2, keepdim=True)
    assume(float(torch.pdist(units.flatten(0, 1) @ head).min()) > 0.02)
    radii, counts = pairwise_radii(queries, keys, 1, head @ head.T)
    assert torch.equal(counts, ~torch.eye(count + 1, dtype=torch.bool)[1:])
    for i, query in enumerate(queries):
        for j in set(range(count + 1)) - {i + 1}:
            ahead = [
                [query @ (a - b) / ((a - b) @ head).norm() for a in units[i + 1]] for b in units[j]
            ]
            expected = float(min(max(over_own) for over_own in ahead))
            assert float(radii[i, j]) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_radii_of_a_head_do_not_change_with_its_scale():
    queries, keys, head = _rows(8, 5, 1), _rows(8, 5, 2)[:, None], _rows(5, 9, 3)
    once, _ = pairwise_radii(queries, keys, 0, head @ head.T)
    thrice, _ = pairwise_radii(3.0 * queries, 3.0 * keys, 0, 9.0 * (head @ head.T))
    assert torch.allclose(once, thrice, rtol=1e-9)


def test_a_move_shorter_than_the_smallest_radius_keeps_the_original_first():
    keys = _rows(20, 6, 3)
    queries = keys[:10] + 0.3 * _rows(10, 6, 4)
    radii, counts = pairwise_radii(queries, keys[:, None], 0)
    smallest = radii.masked_fill(~counts, torch.inf).min(dim=1).values
    units = keys / keys.norm(dim=1, keepdim=True)
    certain = smallest > 0
    assert certain.any()
    assert torch.equal((queries @ units.T).argmax(dim=1) == torch.arange(10), certain)


def test_the_loss_falls_to_nothing_as_radii_pass_the_margin():
    counts = torch.tensor([[False, True, True]])
    losses = [
        float(radius_loss(torch.tensor([[0.0, r, r + 1.0]]), counts, margin=1.0, temperature=0.1))
        for r in (-1.0, 0.0, 1.0, 2.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(2.0, abs=0.01)
    assert losses[-1] < 1e-4


def test_a_far_margin_adds_its_share_of_the_same_loss():
    queries, keys = _rows(6, 8, 1), _rows(6, 8, 2)[:, None]
    radii, counts = pairwise_radii(queries, keys, 0)
    near, far = (radius_loss(radii, counts, margin, 0.2) for margin in (0.5, 3.0))
    assert far > near > 0.0
    wanted = CopiesSettings(radius_margin=0.5, far_margin=3.0, far_weight=0.25)
    loss, parts = copies_loss(wanted, queries, keys, None)
    assert float(loss) == pytest.approx(float(near + 0.25 * far))
    assert float(parts["far"]) == pytest.approx(float(far))


def test_a_query_without_any_rival_costs_nothing():
    loss = radius_loss(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool), 1.0, 0.1)
    assert float(loss) == 0.0


def test_relations_cost_nothing_where_they_are_the_teachers():
    keys = _rows(6, 5, 1)
    same = relational_loss(keys, keys, 3.0 * keys, 3.0 * keys, first=0, temperature=0.2)
    other = relational_loss(keys, keys, _rows(6, 5, 2), _rows(6, 5, 2), first=0, temperature=0.2)
    assert float(same) == pytest.approx(0.0, abs=1e-9)
    assert float(other) > 0.01


def test_gradients_are_those_of_the_loss():
    queries, keys = _rows(4, 3, 5).requires_grad_(), _rows(4, 3, 6).requires_grad_()

    def loss(q, k):
        return radius_loss(*pairwise_radii(q, k[:, None], 0), margin=1.0, temperature=0.3)

    assert torch.autograd.gradcheck(loss, (queries, keys))
