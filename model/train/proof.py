# pyright: basic
"""What must hold before a trained network is written; where it does not, nothing is."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from model.certificate.bounds import lipschitz_estimate
from model.errors import CheckpointError
from model.nets.checkpoint import Checkpoint, build, fingerprint_of, prove, save_checkpoint
from model.nets.network import Network
from model.nets.presets import EmbedderConfig
from model.pixels.decode import DECODE_POLICY_VERSION
from model.train.student import Student

LARGEST_BOUND = 1.0 + 1e-6
"""Training is of 1-Lipschitz networks; rounding to stored formats may cost so much, no more."""


def write_proved(
    student: Student, path: Path, *, name: str, training: Mapping[str, Any], estimate_steps: int
) -> Checkpoint:
    """Proves the student's network, holds it against the student in eval mode, and writes it.

    A file that is there is replaced, or left alone where this raises. The record has, beside
    `training`, the largest stretch that a power iteration found.

    Raises:
        CheckpointError: the bound is above 1 + 1e-6 or cannot be proved; the exported network is
            not the student; or a stretch above the bound was found.
    """
    weights, config = student.export(), student.config
    device = next(student.parameters()).device
    network = build(config, weights, torch.float64, str(device))
    proof = prove(network, fingerprint_of(config, weights, DECODE_POLICY_VERSION))
    if not proof.lipschitz_bound <= LARGEST_BOUND:
        raise CheckpointError(
            f"a bound of at most {LARGEST_BOUND} must be proved of a trained network, got "
            f"{proof.lipschitz_bound!r}; nothing was written"
        )
    check_same(student, network)
    estimate = network_estimate(network, probe_inputs(config)[:1], estimate_steps)
    check_estimate(estimate, proof.lipschitz_bound)
    record = {**training, "lipschitz_estimate": estimate}
    return save_checkpoint(path, name=name, config=config, weights=weights, training=record)


def check_same(student: Student, network: Network) -> None:
    """Refuses an exported network that is not the one that was trained.

    This is what notices a student whose own T, or whose orthogonalisation, is not the true one:
    the export computes them anew, in float64.
    """
    inputs = torch.from_numpy(probe_inputs(network.config))
    parameter = next(student.parameters())
    student.eval()
    with torch.no_grad():
        trained = student(inputs.to(parameter)).double()
        exported = network(inputs.to(parameter.device))
    if student.exports_rotated:
        trained, exported = trained @ trained.T, exported @ exported.T
    norms = exported.norm(dim=1).clamp_min(1e-12)
    off = float(((trained - exported).norm(dim=1) / norms).max())
    if not off <= student.export_tolerance:
        raise CheckpointError(
            f"the exported network must be the trained one to {student.export_tolerance:g} of an "
            f"embedding's norm, but is {off:.3g} off; nothing was written"
        )


def check_estimate(estimate: float, bound: float) -> None:
    """Refuses a bound that a measurement contradicts by more than its own rounding."""
    if not estimate <= bound * (1.0 + 1e-12):
        raise CheckpointError(
            f"a stretch of {estimate!r} was found where {bound!r} is proved; nothing was written"
        )


def network_estimate(
    network: Network, inputs: Float64[np.ndarray, "1 3 S S"], steps: int, seed: int = 0
) -> float:
    """The largest stretch that a power iteration finds in the network's derivative at an input.

    A lower bound of the network's Lipschitz constant, measured through the network as it runs.
    """
    device = next(network.buffers()).device
    x = torch.tensor(inputs, dtype=network.dtype, device=device, requires_grad=True)
    y = network(x)
    # J^T u is linear in u, so its derivative by u, applied to v, is J v: both from one graph.
    u = torch.zeros_like(y, requires_grad=True)
    pulled = torch.autograd.grad(y, x, u, create_graph=True)[0]

    def along(output: Tensor, source: Tensor, by: Float64[np.ndarray, "..."]) -> np.ndarray:
        direction = torch.from_numpy(by).to(device)
        return torch.autograd.grad(output, source, direction, retain_graph=True)[0].cpu().numpy()

    apply, transpose = partial(along, pulled, u), partial(along, y, x)
    return lipschitz_estimate(apply, transpose, inputs.shape, steps, seed)


def probe_inputs(config: EmbedderConfig) -> Float64[np.ndarray, "N 3 S S"]:
    """A few fixed inputs, unlike each other: noise, a smooth ramp, a mosaic of coarse blocks."""
    side = config.input_size
    random = np.random.default_rng(20_231_027)
    noise = random.random((3, side, side))
    ramp = np.linspace(0.0, 1.0, side)[None, :, None] * np.linspace(1.0, 0.2, side)[None, None, :]
    blocks = random.random((3, 8, 8)).repeat(-(-side // 8), axis=1).repeat(-(-side // 8), axis=2)
    return np.stack([noise, np.broadcast_to(ramp, noise.shape), blocks[:, :side, :side]])
