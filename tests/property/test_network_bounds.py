"""The whole network against what is proved of it: Lipschitz bound and forward error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import ONE_COPY, PUBLISHED, WAVE, random_weights, reference

from model.certificate.bounds import lipschitz_estimate
from model.certificate.rounding import UNIT_ROUNDOFF_64, gamma
from model.nets.error_propagation import ActivationBounds
from model.nets.network import build_network, tensor_specs
from model.nets.published import published_scalings
from model.nets.sll import ConvBlock, LinearBlock
from model.nets.wave import ChannelMap, Head, WaveletLevel

SEEDS = st.integers(0, 2**32 - 1)
CONFIGS = st.sampled_from([PUBLISHED, WAVE, ONE_COPY])


def run(network, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.tensor(x[None], dtype=network.dtype))[0].double().numpy()


def inputs(seed: int) -> list[np.ndarray]:
    """Smooth, noisy, and the corners of the cube."""
    random = np.random.default_rng(seed)
    noise = random.random((3, 16, 16))
    return [noise, np.round(noise), np.zeros_like(noise), np.ones_like(noise), noise**4]


@given(CONFIGS, SEEDS)
@settings(max_examples=12, deadline=None)
def test_no_direction_found_by_power_iteration_beats_the_bound(config, seed):
    network = build_network(config, random_weights(config, seed))
    x = torch.tensor(inputs(seed)[0][None], requires_grad=True)

    def apply(v: np.ndarray) -> np.ndarray:
        return torch.autograd.functional.jvp(network, x, torch.tensor(v))[1].numpy()

    def transpose(u: np.ndarray) -> np.ndarray:
        return torch.autograd.functional.vjp(network, x, torch.tensor(u))[1].numpy()

    estimate = lipschitz_estimate(apply, transpose, (1, 3, 16, 16), steps=30, seed=seed)
    assert 0.0 < estimate <= network.prove().lipschitz_bound


@given(CONFIGS, SEEDS, st.sampled_from([1e-8, 1e-3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_two_inputs_are_never_driven_apart(config, seed, step):
    network = build_network(config, random_weights(config, seed))
    proof = network.prove()
    x = inputs(seed)[0]
    y = np.clip(x + step * np.random.default_rng(seed).standard_normal(x.shape), 0.0, 1.0)
    apart = np.linalg.norm(run(network, x) - run(network, y))
    assert apart <= proof.lipschitz_bound * np.linalg.norm(x - y) + 2 * proof.forward_error


@given(CONFIGS, SEEDS, st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=20, deadline=None)
def test_the_executed_pass_stays_within_the_forward_error(config, seed, spread):
    weights = random_weights(config, seed, spread)
    network = build_network(config, weights)
    error = network.prove().forward_error
    for x in inputs(seed):
        executed = run(network, x).astype(np.longdouble)
        assert np.linalg.norm(executed - reference(config, weights, x)) <= error


@given(CONFIGS, SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_float32_pass_stays_within_its_own_forward_error_and_outside_the_float64_one(
    config, seed
):
    weights = random_weights(config, seed)
    wide, short = build_network(config, weights), build_network(config, weights, torch.float32)
    x = inputs(seed)[0]
    off = np.linalg.norm(run(short, x).astype(np.longdouble) - reference(config, weights, x))
    assert wide.prove().forward_error < off <= short.prove().forward_error
    assert wide.prove().lipschitz_bound == short.prove().lipschitz_bound


@pytest.mark.parametrize("config", [PUBLISHED, WAVE, ONE_COPY])
def test_the_forward_error_is_small_enough_to_notice_a_wrong_weight(config):
    weights = random_weights(config, 3)
    error = build_network(config, weights).prove().forward_error
    x = inputs(3)[0]
    truth = reference(config, weights, x)
    name = "linear.1.weight" if config is PUBLISHED else "stages.0.maps.0.weight"
    weights[name] = np.nextafter(weights[name], np.float32(2), dtype=np.float32)
    assert np.linalg.norm(run(build_network(config, weights), x) - truth) > error


@pytest.mark.parametrize("config", [PUBLISHED, WAVE, ONE_COPY])
def test_every_parameter_moves_the_output_but_q_of_a_convolution(config):
    weights = random_weights(config, 7)
    x = inputs(7)[0]
    before = run(build_network(config, weights), x)
    for name in tensor_specs(config):
        changed = dict(weights)
        changed[name] = (weights[name] * 1.25 + 0.25).astype(weights[name].dtype)
        if name.endswith(".q"):
            # q acts through T alone: rebuild the one that belongs to it.
            changed[name] = (weights[name] + np.arange(weights[name].size)).astype(np.float32)
            changed |= published_scalings(PUBLISHED, changed)
        moved = np.linalg.norm(run(build_network(config, changed), x) - before)
        dead = name.startswith("convs") and name.endswith(".q")
        assert (moved == 0.0) == dead, name


@pytest.mark.parametrize("config", [PUBLISHED, WAVE, ONE_COPY])
def test_the_differentiable_route_computes_the_same_embedding(config):
    network = build_network(config, random_weights(config, 11))
    x = inputs(11)[0]
    leaf = torch.tensor(x[None], requires_grad=True)
    out = network(leaf)
    assert (
        np.linalg.norm(out.detach()[0].numpy() - run(network, x)) <= network.prove().forward_error
    )
    out.square().sum().backward()
    gradient = leaf.grad.numpy()[0]
    assert np.array_equal(leaf.detach().numpy()[0], x)
    step = 1e-6 * gradient / np.linalg.norm(gradient)
    rise = (run(network, x + step) ** 2).sum() - (run(network, x - step) ** 2).sum()
    assert rise == pytest.approx(2e-6 * np.linalg.norm(gradient), rel=1e-4)


@pytest.mark.parametrize("config", [PUBLISHED, WAVE, ONE_COPY])
def test_an_input_is_never_overwritten(config):
    network = build_network(config, random_weights(config, 1))
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    kept = x.clone()
    network(x)
    with torch.inference_mode():
        network(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("config", [PUBLISHED, WAVE, ONE_COPY])
def test_no_activation_is_longer_than_the_norm_its_rounding_is_charged_to(config):
    """Biases far above the input: what a layer gives at 0 counts."""
    weights = random_weights(config, 13)
    weights |= {
        name: np.abs(value) * np.float32(1e4)
        for name, value in weights.items()
        if name.endswith(("bias", "offset"))
    }
    network = build_network(config, weights)
    for x in inputs(13):
        bounds, values = ActivationBounds(np.sqrt(x.size), 0.0, 1.0), torch.tensor(x[None])
        for layer in network.layers:
            with torch.inference_mode():
                values = layer(values)
            bounds = layer.prove(bounds, UNIT_ROUNDOFF_64)
            copies = 5**0.5 if values.ndim == 4 and values.shape[1] == 5 else 1.0
            assert float(values.norm()) <= bounds.norm * copies * (1 + 1e-12)


def worst_rounding(layer: torch.nn.Module, norm: float) -> float:
    """The textbook bound of a layer's rounding, from dense matrices and a singular value."""

    def stretch(matrix: np.ndarray) -> float:
        return float(np.linalg.norm(np.abs(matrix).astype(np.float64), 2))

    if isinstance(layer, LinearBlock):
        weight = layer.weight.numpy()
        features, width = weight.shape
        root = np.abs(weight) / np.sqrt(layer.scaling)[:, None]
        beta = np.linalg.norm(np.abs(weight).T @ (np.abs(layer.bias_values) / layer.scaling))
        return 2 * (gamma(width + 2) + gamma(features + 3)) * (stretch(root) ** 2 * norm + beta)
    if isinstance(layer, ConvBlock):
        # One pixel's worth: every tap of one position, a submatrix of the whole operator.
        root = np.abs(layer.kernel).reshape(layer.inner, -1) / np.sqrt(layer.scaling)[:, None]
        terms = gamma(layer.kernel[0].size + 2) + gamma(9 * layer.inner + 3)
        return 2 * terms * np.linalg.norm(root[:, 4::9], 2) ** 2 * norm
    if isinstance(layer, WaveletLevel):
        return 2 * gamma(8) * stretch(layer.matrix) * norm * (1 - 1e-9)
    if isinstance(layer, ChannelMap | Head):
        weight = layer.weight_values
        return gamma(weight.shape[1]) * stretch(weight) * norm
    return 0.0


@pytest.mark.parametrize("config", [PUBLISHED, WAVE, ONE_COPY])
def test_each_layer_is_charged_at_least_the_textbook_rounding(config):
    """Observed errors are far below the worst case, so a missing constant would not show there."""
    network = build_network(config, random_weights(config, 17))
    charged = 0
    for layer in network.layers:
        before = ActivationBounds(10.0, 0.0, 1.0)
        rounding = worst_rounding(layer, before.norm)
        assert layer.prove(before, UNIT_ROUNDOFF_64).error >= rounding
        charged += rounding > 0
        # Errors made before are kept, and stretched.
        late = layer.prove(ActivationBounds(10.0, 1.0, 1.0), UNIT_ROUNDOFF_64)
        assert late.error >= late.lipschitz_bound * (1 - 1e-9)
    assert charged >= 4


def graph_nodes(out: torch.Tensor) -> int:
    seen, waiting = set(), [out.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return len(seen)


def test_a_gradient_costs_no_more_steps_for_a_larger_batch():
    """Each step may pass over the whole batch: with one an image, the cost would be quadratic."""
    network = build_network(PUBLISHED, random_weights(PUBLISHED, 0))
    counts = []
    for images in (1, 9):
        x = torch.rand(images, 3, 16, 16, dtype=torch.float64, requires_grad=True)
        counts.append(graph_nodes(network(x)))
    assert counts[0] == counts[1]


def test_the_network_that_gradients_pass_through_is_the_certified_one():
    network = build_network(PUBLISHED, random_weights(PUBLISHED, 1))
    x = torch.rand(5, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        certified = network(x.detach())
    off = torch.linalg.vector_norm(network(x).detach() - certified, dim=1)
    assert off.max() <= 2 * network.prove().forward_error
