"""Proved norms are upper bounds, and tight; estimates are lower bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.certificate import bounds as lipschitz
from model.certificate.bounds import (
    cholesky_norm_bound,
    conv_sll_scaling,
    dense_sll_scaling,
    euclidean_norm_bound,
    inflate,
    lipschitz_estimate,
    nonnegative_norm_bound,
    orthonormal_norm_bound,
    product_bound,
    spectral_norm_bound,
    wavelet_norm_bound,
)
from model.errors import CertificateError

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 20)


def gaussian(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@given(SEEDS, SIZES, SIZES, st.sampled_from([1e-6, 1.0, 1e6]))
@settings(deadline=None)
def test_a_cholesky_bound_is_above_the_norm_and_near_it(seed, rows, columns, scale):
    matrix = gaussian(seed, rows, columns) * scale
    norm = np.linalg.norm(matrix, 2)
    assert norm * (1 - 1e-14) <= cholesky_norm_bound(matrix) <= norm * (1 + 1e-8)


@given(SEEDS, SIZES, SIZES)
@settings(deadline=None)
def test_an_orthonormal_bound_is_above_the_norm_and_near_one(seed, rows, columns):
    size = max(rows, columns)
    rotation = np.linalg.qr(gaussian(seed, size, size))[0][:rows, :columns]
    stored = np.ascontiguousarray(rotation[:rows] if rows <= columns else rotation)
    if rows != columns and min(rows, columns) < size:
        stored = np.linalg.qr(stored.T if rows < columns else stored)[0].astype(np.float32)
    norm = np.linalg.norm(stored.astype(np.float64), 2)
    bound = orthonormal_norm_bound(stored)
    assert norm * (1 - 1e-15) <= bound <= 1 + 1e-5
    assert spectral_norm_bound(stored) <= bound


@given(SEEDS, SIZES, SIZES, st.floats(0.0, 0.9))
@settings(deadline=None)
def test_a_perron_bound_is_above_the_norm_and_tight(seed, rows, columns, sparsity):
    random = np.random.default_rng(seed)
    matrix = random.random((rows, columns)) * (random.random((rows, columns)) > sparsity)
    norm = np.linalg.norm(matrix, 2)
    tight, cheap = nonnegative_norm_bound(matrix), nonnegative_norm_bound(matrix, tight=False)
    assert norm * (1 - 1e-14) <= tight
    assert norm * (1 - 1e-14) <= cheap
    if sparsity < 0.3:
        assert tight <= norm * (1 + 1e-9) + 1e-140


def test_a_perron_bound_of_many_rows_needs_no_eigen_solve(monkeypatch):
    monkeypatch.setattr(lipschitz, "_EIGENVECTOR_ROWS", 4)
    matrix = np.random.default_rng(0).random((30, 9))
    norm = np.linalg.norm(matrix, 2)
    assert norm * (1 - 1e-14) <= nonnegative_norm_bound(matrix) <= norm * (1 + 1e-12)


def test_a_perron_bound_of_nothing_is_zero():
    assert nonnegative_norm_bound(np.zeros((3, 4))) == 0.0


def test_a_singular_and_a_zero_matrix_have_a_cholesky_bound():
    assert cholesky_norm_bound(np.ones((4, 4))) == pytest.approx(4.0, rel=1e-8)
    assert 0.0 <= cholesky_norm_bound(np.zeros((3, 5))) < 1e-100


@pytest.mark.parametrize(
    "prove",
    [
        euclidean_norm_bound,
        orthonormal_norm_bound,
        cholesky_norm_bound,
        nonnegative_norm_bound,
        spectral_norm_bound,
        wavelet_norm_bound,
    ],
)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_no_norm_is_proved_of_poison(prove, poison):
    matrix = np.ones((2, 2))
    matrix[1, 0] = poison
    with pytest.raises(CertificateError, match="finite"):
        prove(matrix)


def test_a_perron_bound_of_a_negative_entry_is_refused():
    with pytest.raises(CertificateError, match="negative"):
        nonnegative_norm_bound(np.array([[1.0, -1e-300]]))


def test_a_matrix_that_cannot_be_factored_has_no_bound(monkeypatch):
    def fail(_matrix):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(np.linalg, "cholesky", fail)
    with pytest.raises(CertificateError, match="no Cholesky"):
        cholesky_norm_bound(np.eye(3))


@given(SEEDS, SIZES, SIZES)
@settings(deadline=None)
def test_t_of_a_linear_block_is_above_its_value_in_extended_precision(seed, features, width):
    weight = gaussian(seed, features, width).astype(np.float32)
    ratios = np.exp(gaussian(seed + 1, features))
    wide, p = weight.astype(np.longdouble), ratios.astype(np.longdouble)
    exact = (np.abs(np.einsum("in,jn->ij", wide, wide)) @ p) / p
    scaling = dense_sll_scaling(weight, ratios)
    assert (scaling > exact).all()
    assert np.allclose(scaling.astype(np.float64), exact.astype(np.float64), rtol=1e-12)


@given(SEEDS, st.integers(1, 4), st.integers(1, 4))
@settings(deadline=None)
def test_t_of_a_convolution_is_above_its_value_in_extended_precision(seed, inner, channels):
    kernel = gaussian(seed, inner, channels, 3, 3).astype(np.float32)
    wide = kernel.astype(np.longdouble)
    exact = np.zeros(inner, np.longdouble)
    for down in range(-2, 3):
        for right in range(-2, 3):
            gram = np.zeros((inner, inner), np.longdouble)
            for a in range(3):
                for b in range(3):
                    if 0 <= a + down < 3 and 0 <= b + right < 3:
                        other = wide[:, :, a + down, b + right]
                        gram += np.einsum("ic,jc->ij", wide[:, :, a, b], other)
            exact += np.abs(gram).sum(axis=1)
    scaling = conv_sll_scaling(kernel)
    assert (scaling > exact).all()
    assert np.allclose(scaling.astype(np.float64), exact.astype(np.float64), rtol=1e-12)


def test_t_covers_a_gram_entry_that_cancels_to_nothing():
    """The rounding of G_ij is not relative to |G_ij|: here G_12 is 0 up to rounding alone."""
    weight = np.array([[1e8, 1.0, -1e8], [1e8, 1.0, 1e8]], dtype=np.float32)
    p = np.array([1.0, 1e18])
    wide = weight.astype(np.longdouble)
    exact = (np.abs(np.einsum("in,jn->ij", wide, wide)) @ p) / p
    assert (dense_sll_scaling(weight, p) > exact).all()


def test_t_covers_a_correlation_of_a_weak_and_a_strong_filter_that_cancels():
    for seed in range(30):
        weak, small = (gaussian(seed + part, 1).astype(np.float32) for part in (0, 100))
        kernel = np.zeros((2, 3, 3, 3), dtype=np.float32)
        kernel[0, :, 1, 1] = [weak[0], 1.0, weak[0]]
        kernel[1, :, 1, 1] = [1e8, small[0], -1e8]
        wide = kernel[:, :, 1, 1].astype(np.longdouble)
        exact = np.abs(np.einsum("ic,jc->ij", wide, wide)).sum(axis=1)
        assert (conv_sll_scaling(kernel) > exact).all()


@pytest.mark.parametrize("ratio", [0.0, np.inf, np.nan, -1.0])
def test_t_wants_positive_finite_ratios(ratio):
    with pytest.raises(CertificateError, match="positive and finite"):
        dense_sll_scaling(np.ones((2, 3), dtype=np.float32), np.array([1.0, ratio]))


def test_t_of_ratios_that_would_underflow_is_refused():
    with pytest.raises(CertificateError, match="span less than 1e100"):
        dense_sll_scaling(np.ones((2, 3), dtype=np.float32), np.array([1e-300, 1e300]))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_t_that_overflows_is_refused():
    with pytest.raises(CertificateError, match="not finite"):
        dense_sll_scaling(np.full((2, 3), 1e200), np.ones(2))


@given(SEEDS, st.floats(-1e-2, 1e-2))
@settings(deadline=None)
def test_a_filter_bank_bound_is_above_its_norm_on_any_finite_signal(seed, bend):
    filters = gaussian(seed, 3, 6) * 0.3 * (1 + bend)
    rows = np.zeros((3 * 20, 46))
    for k in range(20):
        rows[3 * k : 3 * k + 3, 2 * k : 2 * k + 6] = filters
    assert np.linalg.norm(rows, 2) <= wavelet_norm_bound(filters)


def test_rows_of_zeros_and_of_tiny_numbers_keep_the_perron_bound():
    matrix = np.diag([1.0, 1e-30, 0.0, 1e-60])
    assert 1.0 <= nonnegative_norm_bound(matrix) < 1.0 + 1e-13
    assert 1e-30 <= nonnegative_norm_bound(matrix * 1e-30) < 1.01e-30


def test_norms_of_weights_whose_squares_underflow_stay_bounds():
    for size in (1e-150, 1e-155, 1e-160, 1e-162, 1e-170, 5e-324):
        weight = np.full((3, 4), size)
        for bound in (euclidean_norm_bound, cholesky_norm_bound, spectral_norm_bound):
            assert bound(weight) >= 12**0.5 * size
        # What squares may lose is there even where these lose less.
        assert min(cholesky_norm_bound(weight), euclidean_norm_bound(weight)) >= 1e-145
        for tight in (True, False):
            found = nonnegative_norm_bound(weight, tight=tight)
            assert 12**0.5 * size <= found <= 12**0.5 * size * (1 + 1e-12) + 5e-323
        assert nonnegative_norm_bound(np.full((3, 4), 1e200)) == pytest.approx(12**0.5 * 1e200)
        with pytest.raises(CertificateError, match="0 or at least 1e-70"):
            dense_sll_scaling(weight, np.ones(3))
        with pytest.raises(CertificateError, match="0 or at least 1e-70"):
            conv_sll_scaling(np.full((2, 1, 3, 3), size))
    assert euclidean_norm_bound(np.zeros(4)) < 1e-300


def test_rounding_helpers_round_up():
    assert inflate(1.0, 0) > 1.0
    assert product_bound(1.0, 1.0) == 1.0
    assert product_bound(1.0, 0.1, 1.0) == 0.1
    assert product_bound(0.1, 3.0) > 0.3


@given(SEEDS, SIZES, SIZES)
@settings(deadline=None)
def test_an_estimate_is_never_above_the_norm(seed, rows, columns):
    matrix = gaussian(seed, rows, columns)
    estimate = lipschitz_estimate(lambda v: matrix @ v, lambda u: matrix.T @ u, (columns,), 300)
    norm = np.linalg.norm(matrix, 2)
    assert 0.9 * norm <= estimate <= norm * (1 + 1e-12)


def test_an_estimate_of_the_zero_map_is_zero():
    assert lipschitz_estimate(lambda v: 0 * v, lambda u: 0 * u, (3,)) == 0.0
