"""The closed-form head never stretches, and presses down what edits change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.train.copies.closed_form import (
    covariance_of,
    discriminant,
    least_moved,
    principal_basis,
)


def _covariance(dim, seed, scale=1.0):
    rows = np.random.default_rng(seed).normal(size=(3 * dim, dim)) * scale
    return torch.from_numpy(rows.T @ rows / len(rows))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(0, 10**6),
    st.floats(1e-2, 1e2),
    st.floats(1e-2, 1e2),
    st.floats(1e-2, 1e2),
)
def test_the_head_is_a_contraction(dim, seed, scale, within, total):
    covariances = _covariance(dim, [seed, 1], scale), _covariance(dim, [seed, 2])
    head = discriminant(*covariances, max(1, dim // 2), within, total)
    assert head.shape == (max(1, dim // 2), dim)
    assert float(torch.linalg.matrix_norm(head, 2)) <= 1.0 + 1e-12


def test_a_direction_that_edits_move_is_pressed_down():
    edits = torch.diag(torch.tensor([0.0, 100.0, 0.0], dtype=torch.float64))
    pictures = torch.diag(torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64))
    head = discriminant(edits, pictures, 3, 0.5, 1e6)
    gains = head.norm(dim=0)
    assert float(gains[0]) == pytest.approx(1.0, abs=1e-6)
    assert float(gains[1]) < 0.06
    loose = discriminant(edits, pictures, 3, 50.0, 1e6)
    assert float(loose.norm(dim=0)[1]) > 0.9


def test_a_basis_is_orthonormal_ordered_and_has_fixed_signs():
    covariance = _covariance(7, 3)
    basis = principal_basis(covariance, 4)
    variances = torch.diagonal(basis.T @ covariance @ basis)
    assert torch.allclose(basis.T @ basis, torch.eye(4, dtype=torch.float64), atol=1e-12)
    assert torch.equal(variances.argsort(descending=True), torch.arange(4))
    largest = basis.abs().argmax(dim=0)
    assert bool((basis[largest, torch.arange(4)] > 0).all())


def test_covariance_is_about_the_mean():
    rows = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 3)) + 7.0)
    expected = np.cov(rows.numpy().T, bias=True)
    assert np.allclose(covariance_of(rows).numpy(), expected)


def test_a_row_of_twice_the_share_counts_like_two():
    rows = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3)) + 7.0)
    shares = torch.tensor([2.0, 1.0, 1.0, 2.0, 1.0]) / 7.0
    assert torch.allclose(covariance_of(rows, shares), covariance_of(rows[[0, 0, 1, 2, 3, 3, 4]]))


def test_what_a_view_holds_is_no_change_of_an_edit():
    views = torch.tensor([[[0.0, 0.0], [5.0, 0.0]]])
    copies = torch.tensor([[[5.0, 0.1], [0.0, 0.2]]])
    assert torch.allclose(least_moved(views, copies, None), torch.tensor([[0.0, 0.1], [0.0, 0.2]]))
    # Behind a head that reads the second number alone, both views are as near: the first is taken.
    blind = least_moved(views, copies, torch.tensor([[0.0, 1.0]]))
    assert torch.allclose(blind, torch.tensor([[5.0, 0.1], [0.0, 0.2]]))
