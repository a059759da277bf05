# pyright: basic
# torch's types are loose; they are kept inside the files of layers and the network.
"""The network that composes the layers, and what is proved of the whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from model.certificate.metric import output_scales
from model.certificate.rounding import UNIT_ROUNDOFF_64
from model.nets.error_propagation import (
    ActivationBounds,
    Layer,
    cube_norm,
    plain_bound,
    unit_roundoff_of,
)
from model.nets.presets import EmbedderConfig, PublishedConfig
from model.nets.published import published_layers, published_specs
from model.nets.wave import Head, wave_layers, wave_specs

# A rotated head's largest scale is its norm, up to the rounding of how it is stored.
_SLIGHTLY_MORE = 1.001


@dataclass(frozen=True)
class NetworkProof:
    """What is proved of a network.

    Attributes:
        lipschitz_bound: upper bound of its Lipschitz constant, l2 to l2, in real arithmetic.
        forward_error: upper bound of the l2 distance between the executed and the real-arithmetic
            embedding, for every input in [0, 1], in the arithmetic it was asked for.
        output_scales: s with <h(x') - h(x), D> <= |x' - x| |s o D| for every D, in real arithmetic,
            (d,): `lipschitz_bound` throughout where the network ends in no head with rows that are
            nearly orthogonal.
    """

    lipschitz_bound: float
    forward_error: float
    output_scales: Float64[np.ndarray, " D"]


class Network(nn.Module):
    """Layers in a row, from network input to raw embedding.

    Only matrix products, sums, relu and absolute values run in a pass: no convolution routine, so
    no Winograd; TF32 and bfloat16 are refused by the embedder that runs it. With gradients wanted
    the same sums run out of place, so attacks see the network that is certified.
    """

    def __init__(self, config: EmbedderConfig, layers: list[Layer], dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
        self.layers = nn.ModuleList(cast("list[nn.Module]", layers))
        self.eval()

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Raw embeddings of a batch of inputs, in the network's own arithmetic."""
        for layer in self.layers:
            x = layer(x)
        return x

    def prove(self, dtype: torch.dtype | None = None) -> NetworkProof:
        """Lipschitz bound and forward error of this network, from the weights it holds.

        Args:
            dtype: the arithmetic whose forward error is asked for; None takes the network's own.
        """
        unit_roundoff = unit_roundoff_of(dtype or self.dtype)
        norm = cube_norm(3 * self.config.input_size**2)
        # A pass in float32 begins by rounding its float64 input.
        cut = 0.0 if unit_roundoff == UNIT_ROUNDOFF_64 else unit_roundoff * norm
        bounds = ActivationBounds(norm, cut, 1.0)
        front = bounds
        for layer in self.layers:
            front = bounds.with_underflow(unit_roundoff)
            bounds = cast("Layer", layer).prove(front, unit_roundoff)
        bounds = bounds.with_underflow(unit_roundoff)
        return NetworkProof(
            bounds.lipschitz_bound,
            plain_bound(bounds.error),
            self._output_scales(front.lipschitz_bound, bounds.lipschitz_bound),
        )

    def _output_scales(
        self, front_bound: float, lipschitz_bound: float
    ) -> Float64[np.ndarray, " D"]:
        head = self.layers[-1]
        if isinstance(head, Head):
            scales = output_scales(head.weight_values, front_bound)
            # Rows that are not nearly orthogonal would pay for each other.
            if scales.max() <= _SLIGHTLY_MORE * lipschitz_bound:
                return scales
        return np.full(self.config.embedding_dim, lipschitz_bound)


def tensor_specs(config: EmbedderConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and numpy dtype of every tensor that a checkpoint of this config holds, by name."""
    if isinstance(config, PublishedConfig):
        return published_specs(config)
    return wave_specs(config)


def build_network(
    config: EmbedderConfig,
    weights: Mapping[str, Float[np.ndarray, "..."]],
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Network:
    """The network of a config with these weights, ready to run.

    Args:
        config: its shape.
        weights: every tensor of `tensor_specs`, as stored.
        dtype: the arithmetic: torch.float64, or torch.float32.
        device: where it runs; CUDA is supported by the same code.

    Returns:
        The network in eval mode; its weights are buffers and want no gradient.
    """
    # Buffers made in inference mode could never take part in a gradient.
    with torch.inference_mode(mode=False):
        if isinstance(config, PublishedConfig):
            layers = published_layers(config, weights, dtype)
        else:
            layers = wave_layers(config, weights, dtype)
        return Network(config, layers, dtype).to(device)
