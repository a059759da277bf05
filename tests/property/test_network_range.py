"""Weights so small or so large that an arithmetic ends: refused by name, or still proved."""

import numpy as np
import pytest
import torch
from small_networks import ONE_COPY, PUBLISHED, WAVE, random_weights, reference

from model.certificate.rounding import UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64
from model.errors import CertificateError
from model.nets.error_propagation import ActivationBounds, carried, reciprocal_down, smallest_normal
from model.nets.network import build_network
from model.nets.published import published_scalings

pytestmark = pytest.mark.without_shape_checks

SHORT, WIDE = torch.float32, torch.float64


def scaled(by: float, seed: int = 0) -> dict[str, np.ndarray]:
    """W -> c W and b -> c b: T follows by c^2, and in real arithmetic the network is the same."""
    weights = random_weights(PUBLISHED, seed)
    weights = {
        name: value if name.endswith((".q", ".scaling")) else value * np.float32(by)
        for name, value in weights.items()
    }
    return weights | published_scalings(PUBLISHED, weights)


def off(weights, dtype: torch.dtype, x: np.ndarray) -> tuple[float, float]:
    """Distance of a pass from extended precision, and the claimed bound on it."""
    network = build_network(PUBLISHED, weights, dtype)
    claimed = network.prove().forward_error
    with torch.inference_mode():
        found = network(torch.tensor(x[None], dtype=dtype))[0].double().numpy()
    return float(np.linalg.norm(found - reference(PUBLISHED, weights, x))), claimed


@pytest.mark.parametrize("dtype", [SHORT, WIDE])
@pytest.mark.parametrize("exponent", [*range(-44, -14), -8, 0, 8, 15, 16, 17, 18, 19, 20, 30, 37])
def test_a_network_at_any_scale_is_refused_or_within_its_forward_error(dtype, exponent):
    x = np.random.default_rng(1).random((3, 16, 16))
    for image in (x, np.zeros_like(x), x * 1e-30):
        if dtype == SHORT and not -20 < exponent < 18:
            with pytest.raises(CertificateError, match=r"to run in float32|must stay below"):
                off(scaled(10.0**exponent), dtype, image)
        else:
            distance, claimed = off(scaled(10.0**exponent), dtype, image)
            assert distance <= claimed < 1.0


@pytest.mark.parametrize("by", [1e-20, 1e-21, 1e-30, 1e-42, 1e37])
def test_float32_refuses_what_it_would_clamp_flush_or_overflow(by):
    with pytest.raises(CertificateError, match=r"to run in float32|must stay below"):
        build_network(PUBLISHED, scaled(by), SHORT).prove()


@pytest.mark.parametrize("dtype", [SHORT, WIDE])
def test_numbers_outside_the_normal_range_are_refused_and_zero_is_not(dtype):
    ends = torch.finfo(dtype)
    carried(np.array([0.0, ends.tiny, -ends.tiny, ends.max / 9]), dtype, "it")
    for bad in (ends.tiny * 0.9, ends.max / 7, np.inf, np.nan, ends.smallest_normal / 2**20):
        with pytest.raises(CertificateError, match="it must be 0 or between"):
            carried(np.array([1.0, -bad]), dtype, "it")
    for bad in (5e-324, 1e-310, 1e308) if dtype == WIDE else (1e-38, 1e-45, 1e38, 1e39):
        with pytest.raises(CertificateError, match="1 / T must be 0 or between"):
            reciprocal_down(np.array([1.0, bad]), dtype)


def test_a_sum_that_overflows_on_its_way_is_refused_before_relu_hides_it():
    """-inf becomes 0 behind a relu, and the output looks like any other."""
    weights = random_weights(PUBLISHED, 0)
    weights["linear.2.bias"] = np.full_like(weights["linear.2.bias"], -3.3e38)
    with pytest.raises(CertificateError, match="must stay below"):
        build_network(PUBLISHED, weights, SHORT).prove()
    assert build_network(PUBLISHED, weights, WIDE).prove().forward_error > 1e20


@pytest.mark.parametrize("unit_roundoff", [UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64])
@pytest.mark.parametrize("config", [PUBLISHED, WAVE, ONE_COPY])
def test_every_layer_is_charged_for_underflow(config, unit_roundoff):
    """The margin is there even where the sums happen not to underflow.

    An input of norm 0 leaves a relative error nothing to be relative to, so what a block charges at
    biases of zero is underflow alone: at least one lost eta a feature, divided by T, through W.
    """
    eta = smallest_normal(unit_roundoff)
    started = ActivationBounds(0.0, 0.0, 1.0).with_underflow(unit_roundoff)
    assert started.error >= 2.0**48 * eta
    assert started.norm > 0.0
    weights = {
        name: value * 0 if name.endswith("bias") else value
        for name, value in random_weights(config, 0).items()
    }
    for layer in build_network(config, weights).layers:
        if hasattr(layer, "scaling"):
            stored = layer.kernel if hasattr(layer, "kernel") else layer.weight.numpy()
            weight = np.abs(stored.astype(np.float64))
            least = np.linalg.norm(weight.reshape(len(weight), -1).T @ (1 / layer.scaling))
            proved = layer.prove(ActivationBounds(0.0, 0.0, 1.0), unit_roundoff)
            assert proved.error >= eta * least > 0.0


def test_a_wave_network_whose_numbers_vanish_on_the_way_is_still_bounded():
    """Maps of 1e-45 and then 1e37: in float64 the activations, and their proof, underflow."""
    weights = random_weights(WAVE, 0)
    small = {name: value * np.float32(1e-37) for name, value in weights.items() if "maps" in name}
    wide = weights | small
    wide["head.weight"] = np.full_like(weights["head.weight"], 6e4)
    proof = build_network(WAVE, wide).prove()
    x = np.random.default_rng(1).random((3, 16, 16))
    with torch.inference_mode():
        found = build_network(WAVE, wide)(torch.tensor(x[None]))[0].numpy()
    assert np.linalg.norm(found - reference(WAVE, wide, x)) <= proof.forward_error
