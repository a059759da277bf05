"""No layer grows a norm beyond its bound: exact singular values, pairs, and power iteration."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import PUBLISHED, SYM4, WAVE, random_weights
from torch.nn import functional

from model.certificate.bounds import conv_sll_scaling, dense_sll_scaling, lipschitz_estimate
from model.certificate.rounding import UNIT_ROUNDOFF_64
from model.errors import CertificateError
from model.nets.error_propagation import ActivationBounds, reciprocal_down
from model.nets.network import build_network
from model.nets.sll import ConvBlock, LinearBlock, scaling_slack
from model.nets.wave import (
    ChannelMap,
    Head,
    MeanChannelMap,
    ShiftedCopies,
    WaveletLevel,
    filter_matrix,
    quadrature_filters,
)

SEEDS = st.integers(0, 2**32 - 1)


def bound_of(layer) -> float:
    return layer.prove(ActivationBounds(1.0, 0.0, 1.0), UNIT_ROUNDOFF_64).lipschitz_bound


def largest_singular_value(layer, x: torch.Tensor) -> float:
    jacobian = torch.autograd.functional.jacobian(layer, x)
    return float(torch.linalg.matrix_norm(jacobian.reshape(-1, x.numel()), 2))


def conv_block(seed: int, spread: float = 1.0, bias: float = 1.0, scaling=None) -> ConvBlock:
    random = np.random.default_rng(seed)
    kernel = (random.standard_normal((3, 4, 3, 3)) * spread).astype(np.float32)
    shift = (random.standard_normal((1, 3, 1, 1)) * bias).astype(np.float32)
    scaling = conv_sll_scaling(kernel) if scaling is None else scaling(kernel)
    return ConvBlock(kernel, shift, scaling, 36, torch.float64)


def linear_block(seed: int, spread: float = 1.0, bias: float = 1.0) -> LinearBlock:
    random = np.random.default_rng(seed)
    weight = (random.standard_normal((7, 12)) * spread).astype(np.float32)
    shift = (random.standard_normal((1, 7)) * bias).astype(np.float32)
    q = random.standard_normal(7).astype(np.float32)
    scaling = dense_sll_scaling(weight, np.exp(q.astype(np.float64)))
    return LinearBlock(weight, shift, q, scaling, torch.float64)


@given(SEEDS, st.sampled_from([1e-3, 1.0, 1e3]), st.sampled_from([0.0, 1.0, 100.0, -100.0]))
@settings(max_examples=40, deadline=None)
def test_a_convolutional_block_never_stretches_where_it_is_linear(seed, spread, bias):
    layer = conv_block(seed, spread, bias)
    x = torch.tensor(np.random.default_rng(seed + 1).standard_normal((1, 4, 6, 6)))
    assert bound_of(layer) == 1.0
    assert largest_singular_value(layer, x) <= 1.0 + 1e-12


@given(SEEDS, st.sampled_from([1e-3, 1.0, 1e3]), st.sampled_from([0.0, 1.0, 100.0, -100.0]))
@settings(max_examples=40, deadline=None)
def test_a_linear_block_never_stretches_where_it_is_linear(seed, spread, bias):
    layer = linear_block(seed, spread, bias)
    x = torch.tensor(np.random.default_rng(seed + 1).standard_normal((1, 12)))
    assert bound_of(layer) == 1.0
    assert largest_singular_value(layer, x) <= 1.0 + 1e-12


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_block_with_every_relu_on_is_a_contraction_too(seed):
    random = np.random.default_rng(seed)
    kernel = random.standard_normal((3, 4, 3, 3)).astype(np.float32)
    open_bias = np.full((1, 3, 1, 1), 1e4, dtype=np.float32)
    layer = ConvBlock(kernel, open_bias, conv_sll_scaling(kernel), 36, torch.float64)
    x = torch.tensor(random.standard_normal((1, 4, 6, 6)))
    assert largest_singular_value(layer, x) <= 1.0 + 1e-12


def test_a_scaling_without_absolute_values_is_caught():
    """The fault of the official code's other first layer: sums of signed correlations."""
    found = []
    for seed in range(8):
        kernel = np.random.default_rng(seed).standard_normal((8, 3, 3, 3)).astype(np.float32)
        tensor = torch.tensor(kernel).double()
        signed = functional.conv2d(tensor, tensor, padding=2).sum(dim=(1, 2, 3)).abs().numpy()
        honest = conv_sll_scaling(kernel)
        norms = {}
        for name, scaling in (("signed", signed), ("honest", honest)):
            root = torch.tensor(1.0 / np.sqrt(scaling))[None, :, None, None]

            def apply(x, root=root, tensor=tensor):
                y = functional.conv2d(torch.tensor(x)[None], tensor, padding=1) * root
                return y[0].numpy()

            def transpose(y, root=root, tensor=tensor):
                x = functional.conv_transpose2d(torch.tensor(y)[None] * root, tensor, padding=1)
                return x[0].numpy()

            norms[name] = lipschitz_estimate(apply, transpose, (3, 8, 8), steps=300)
        assert norms["honest"] <= 1.0
        found.append(norms["signed"] > 1.0)
        assert scaling_slack(honest, signed) > 0.0
    assert all(found)


@given(SEEDS, st.floats(1e-9, 0.5))
@settings(max_examples=30, deadline=None)
def test_a_stored_scaling_that_is_too_small_raises_the_bound(seed, shortfall):
    layer = conv_block(seed, scaling=lambda kernel: conv_sll_scaling(kernel) * (1.0 - shortfall))
    assert bound_of(layer) >= 1.0 + 2.0 * shortfall * (1.0 - 1e-6)
    x = torch.tensor(np.random.default_rng(seed).standard_normal((1, 4, 6, 6)))
    assert largest_singular_value(layer, x) <= bound_of(layer)


def test_a_scaling_of_zero_for_a_row_that_is_not_is_refused():
    kernel = np.ones((2, 3, 3, 3), dtype=np.float32)
    with pytest.raises(CertificateError, match="0 where the row"):
        scaling_slack(conv_sll_scaling(kernel), np.zeros(2))
    with pytest.raises(CertificateError, match="negative or not finite"):
        scaling_slack(conv_sll_scaling(kernel), np.array([np.nan, 1.0]))


def test_a_zero_row_of_weights_switches_its_feature_off():
    kernel = np.zeros((2, 3, 3, 3), dtype=np.float32)
    kernel[1] = 0.1
    scaling = conv_sll_scaling(kernel)
    assert scaling[0] == 0.0
    layer = ConvBlock(kernel, np.ones((1, 2, 1, 1), dtype=np.float32), scaling, 36, torch.float64)
    assert bound_of(layer) == 1.0
    x = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    assert torch.isfinite(layer(x.clone())).all()


@pytest.mark.parametrize("side", [8, 16])
def test_a_wavelet_level_never_stretches_borders_included(side):
    layer = WaveletLevel(SYM4, side, torch.float64)
    x = torch.rand(1, 1, side, side, dtype=torch.float64)
    assert 1.0 - 1e-9 < largest_singular_value(layer, x) <= bound_of(layer) < 1.0 + 1e-10


def test_a_wavelet_level_is_the_convolution_it_is_described_as():
    layer = WaveletLevel(SYM4, 16, torch.float64)
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    low, high = (torch.tensor(row) for row in quadrature_filters(SYM4))
    expected = []
    for rows, columns in ((low, low), (low, high), (high, low), (high, high)):
        kernel = torch.outer(rows, columns)[None, None]
        flat = x.reshape(6, 1, 16, 16)
        expected.append(functional.conv2d(flat, kernel, stride=2, padding=3).view(2, 3, 8, 8))
    assert torch.allclose(layer(x), torch.cat(expected), atol=1e-14)


def test_a_filter_bank_with_a_wrong_tap_has_a_larger_bound():
    bent = SYM4.copy()
    bent[3] *= 1.01
    layer = WaveletLevel(bent, 16, torch.float64)
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    assert bound_of(layer) > 1.005
    assert largest_singular_value(layer, x) <= bound_of(layer)
    assert filter_matrix(quadrature_filters(bent), 16).shape == (16, 16)


@given(SEEDS, st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([ChannelMap, MeanChannelMap]))
@settings(max_examples=30, deadline=None)
def test_a_channel_map_is_as_long_as_its_weights_say_never_one_by_assumption(seed, scale, kind):
    random = np.random.default_rng(seed)
    weight = (np.linalg.qr(random.standard_normal((8, 8)))[0][:6] * scale).astype(np.float32)
    weight[0] *= 1.125
    bias = random.standard_normal(4).astype(np.float32)
    layer = kind(weight, bias, 1, torch.float64)
    assert bound_of(layer) >= np.linalg.norm(weight.astype(np.float64), 2) * (1 - 1e-15)
    x = torch.tensor(random.standard_normal((8, 5, 1, 1)))
    limit = bound_of(layer) / (5**0.5 if kind is MeanChannelMap else 1.0)
    assert largest_singular_value(layer, x) <= limit * (1 + 1e-12)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_head_is_as_long_as_its_weights_say(seed):
    random = np.random.default_rng(seed)
    weight = random.standard_normal((5, 12)).astype(np.float16)
    layer = Head(weight, np.zeros(5, np.float32), torch.float64)
    x = torch.tensor(random.standard_normal((3, 1, 2, 2)))
    assert largest_singular_value(layer, x) * (1 - 1e-14) <= bound_of(layer)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_each_shifted_copy_is_no_longer_than_the_image(seed):
    x = torch.tensor(np.random.default_rng(seed).random((2, 3, 16, 16)))
    copies = ShiftedCopies(3)(x).view(3, 5, 2, 16, 16)
    norms = copies.pow(2).sum(dim=(0, 3, 4)).sqrt()
    assert (norms <= (x - 0.5).flatten(1).norm(dim=1) * (1 + 1e-12)).all()
    assert torch.equal(copies[:, 1, :, :, 3:], (x - 0.5).transpose(0, 1)[..., :-3])
    assert (copies[:, 1, :, :, :3] == 0).all()


@pytest.mark.parametrize("config", [PUBLISHED, WAVE])
def test_every_layer_of_a_network_keeps_its_bound_on_pairs(config):
    """Pairs near and far, through each layer in turn, against the bound up to there."""
    random = np.random.default_rng(5)
    network = build_network(config, random_weights(config, 5))
    for step in (1e-6, 1e-2, 1.0):
        x = torch.tensor(random.random((1, 3, 16, 16)))
        y = x + step * torch.tensor(random.standard_normal(x.shape))
        distance, bounds = float((x - y).norm()), ActivationBounds(30.0, 0.0, 1.0)
        copies = 1.0
        for layer in network.layers:
            x, y = layer(x.clone()), layer(y.clone())
            bounds = layer.prove(bounds, UNIT_ROUNDOFF_64)
            if config is WAVE:
                # The bound is of each copy; all five together are sqrt(5) longer until averaged.
                copies = 5.0**0.5 if x.ndim == 4 and x.shape[1] == 5 else 1.0
            limit = bounds.lipschitz_bound * copies * distance
            assert float((x - y).norm()) <= limit * (1 + 1e-9) + 2 * bounds.error * copies


@given(SEEDS)
@settings(deadline=None)
def test_a_scaling_is_rounded_up_for_float32_and_kept_for_float64(seed):
    scaling = np.random.default_rng(seed).random(50) * 9
    scaling[0] = 0.0
    exact = np.append(0, 1 / scaling[1:].astype(np.longdouble))
    short, wide = (
        reciprocal_down(scaling, dtype).numpy() for dtype in (torch.float32, torch.float64)
    )
    assert (short.astype(np.longdouble) <= exact * (1 + 2.0**-52)).all()
    assert np.allclose(short, wide, rtol=2.0**-22, atol=0.0)
    assert np.allclose(wide, exact.astype(np.float64), rtol=2.0**-52, atol=0.0)
    assert short[0] == wide[0] == 0.0
