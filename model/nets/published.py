# pyright: basic
# torch's types are loose; they are kept inside the files of layers and the network.
"""The published network: zero channels, SLL blocks, pools and truncation, and what it stores.

Source: Ghazanfari et al. 2024, arXiv:2310.18274, and its code.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from model.certificate.bounds import conv_sll_scaling, dense_sll_scaling
from model.certificate.rounding import gamma
from model.nets.error_propagation import ActivationBounds, Layer
from model.nets.presets import PublishedConfig
from model.nets.sll import ConvBlock, LinearBlock, ratios_of


class _Carrying(nn.Module):
    """A layer that only carries numbers from place to place: nothing that was proved changes."""

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:  # noqa: ARG002
        return bounds


class ZeroChannels(_Carrying):
    """Appends channels of zeros.

    Bound: 1, l2 to l2 (an isometry). Proof: the norm is kept. Rounding: none.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B C S S"]:
        return functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))


class SumPool(nn.Module):
    """Sums of 4 x 4 pixels over 4, without overlap.

    Bound: 1, l2 to l2. Proof: each output is <x, v> with v = (1/4, ..., 1/4), ||v|| = 1, and the
    supports are disjoint. Rounding: 15 additions; the division by 4 is exact.
    """

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        return functional.avg_pool2d(x, 4, divisor_override=4)

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """Norm never grows; | |x| pooled | <= ||x||."""
        return bounds.through(relative=gamma(17, unit_roundoff))


class Flatten(_Carrying):
    """Channel-major flattening, one row an image.

    Bound: 1 (an isometry). Proof: a rearrangement. Rounding: none.
    """

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N"]:
        return x.flatten(1)


class Truncate(_Carrying):
    """Keeps the first numbers of each row.

    Bound: 1, l2 to l2. Proof: a projection. Rounding: none.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Float[Tensor, "B N"]) -> Float[Tensor, "B D"]:
        return x[:, : self.size]


def published_specs(config: PublishedConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and numpy dtype of every stored tensor, by name.

    The names are the official ones, and one T a block (`scaling`), which the official code rebuilds
    in every pass. q of a convolutional block cancels in T: it is kept, and is dead.
    """
    specs: dict[str, tuple[tuple[int, ...], str]] = {}
    inner, channels = config.inner, config.channels
    for i in range(config.depth):
        specs[f"convs.{i}.kernel"] = ((inner, channels, 3, 3), "float32")
        specs[f"convs.{i}.bias"] = ((1, inner, 1, 1), "float32")
        specs[f"convs.{i}.q"] = ((inner,), "float32")
        specs[f"convs.{i}.scaling"] = ((inner,), "float64")
    for j in range(1, config.linear_depth + 1):
        specs[f"linear.{j}.weight"] = ((config.features, config.width), "float32")
        specs[f"linear.{j}.bias"] = ((1, config.features), "float32")
        specs[f"linear.{j}.q"] = ((config.features,), "float32")
        specs[f"linear.{j}.scaling"] = ((config.features,), "float64")
    return specs


def published_scalings(
    config: PublishedConfig, weights: Mapping[str, Float[np.ndarray, "..."]]
) -> dict[str, Float64[np.ndarray, " F"]]:
    """T of every block, by the name it is stored under.

    Raises:
        CertificateError: a weight is not finite, exp(q) is not positive and finite, or T overflows.
    """
    scalings: dict[str, Float64[np.ndarray, " F"]] = {}
    for i in range(config.depth):
        scalings[f"convs.{i}.scaling"] = conv_sll_scaling(weights[f"convs.{i}.kernel"])
    for j in range(1, config.linear_depth + 1):
        ratios = ratios_of(weights[f"linear.{j}.q"])
        scalings[f"linear.{j}.scaling"] = dense_sll_scaling(weights[f"linear.{j}.weight"], ratios)
    return scalings


def published_layers(
    config: PublishedConfig,
    weights: Mapping[str, Float[np.ndarray, "..."]],
    dtype: torch.dtype,
) -> list[Layer]:
    """The network's layers in the order they run."""
    pixels = config.input_size**2
    layers: list[Layer] = [ZeroChannels(config.channels)]
    for i in range(config.depth):
        kernel, bias, scaling = (
            weights[f"convs.{i}.{part}"] for part in ("kernel", "bias", "scaling")
        )
        layers.append(ConvBlock(kernel, bias, scaling, pixels, dtype))
    layers += [SumPool(), SumPool(), Flatten()]
    for j in range(1, config.linear_depth + 1):
        weight, bias, q, scaling = (
            weights[f"linear.{j}.{part}"] for part in ("weight", "bias", "q", "scaling")
        )
        layers.append(LinearBlock(weight, bias, q, scaling, dtype))
    return [*layers, Truncate(config.embedding_dim)]
