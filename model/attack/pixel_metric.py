# pyright: basic
# torch's types are loose.
"""A metric as a function of the pixels that an attacker may change, and what is proved of it.

Gradients may be float32, for speed. A decision never is where there is a certificate: it comes from
the metric's own float64 path.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from model.certificate.bounds import product_bound
from model.certificate.rounding import round_up
from model.errors import AttackError
from model.metrics.metric import DifferentiableMetric, Metric
from model.metrics.ours import EmbedderMetric
from model.pixels.resize import Resize

Array = TypeVar("Array", Tensor, np.ndarray)

HASH_SIDE = 64
"""Side of the square picture on which a metric without an input size is attacked, pixels."""


@dataclass(frozen=True, eq=False)
class PixelMetric:
    """A map from changeable pixels to vectors, and what is proved of it.

    Attributes:
        name: the metric's.
        height: rows of the changeable pixels.
        width: their columns.
        network: float32 pixels (B, 3, H, W) to raw vectors (B, D), with gradients; None for a
            black box.
        embed: the same map as the metric itself computes it: float64 in, float64 out.
        lipschitz_bound: proved bound of the metric from its input; None where nothing is proved.
        gain: l2 norm of the way from the changeable pixels to the metric's input.
        forward_error: bound on the l2 error of a vector from `embed`.
        output_scales: proved bounds along each coordinate of a vector, (D,); None for none.
        has_levels: only multiples of 1/255 exist, and others are never shown to the metric.
        device: where `network` runs.
    """

    name: str
    height: int
    width: int
    network: Callable[[Tensor], Tensor] | None
    embed: Callable[[np.ndarray], np.ndarray]
    lipschitz_bound: float | None = None
    gain: float = 1.0
    forward_error: float = 0.0
    output_scales: Float64[np.ndarray, " D"] | None = None
    has_levels: bool = False
    device: str = "cpu"

    @property
    def is_certified(self) -> bool:
        """Whether radii can be proved."""
        return self.lipschitz_bound is not None

    def vectors(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Raw vectors in float32; of a black box without gradients."""
        if self.network is not None:
            return self.network(x)
        return self.tensor(self.embed(x.detach().cpu().numpy().astype(np.float64)))

    def tensor(self, array: Float64[np.ndarray, "..."]) -> Float32[Tensor, "..."]:
        """Numbers as the network takes them: float32, where it runs."""
        return torch.from_numpy(array).to(device=self.device, dtype=torch.float32)


def to_levels(deltas: Array) -> Array:
    """The nearest multiples of 1/255 that are not longer, rounding aside."""
    levels = 255.0 * deltas
    up, down = (levels.clip(0.0) + 1e-3) // 1.0, ((-levels).clip(0.0) + 1e-3) // 1.0
    return (up - down) / 255.0


def metric_of_input(metric: Metric, *, name: str | None = None, device: str = "cpu") -> PixelMetric:
    """A metric attacked in its own input: the square, values in [0, 1].

    A metric without an input size, a hash, is attacked on square 8-bit pictures of HASH_SIDE.

    `name` is what reports call it; None for its own.
    """
    name = name or metric.name
    if not isinstance(metric, DifferentiableMetric):
        side, embed = HASH_SIDE, lambda x: metric.embed(_pictures(x))
        return PixelMetric(name, side, side, network=None, embed=embed, has_levels=True)
    side = metric.input_size
    return PixelMetric(
        name,
        side,
        side,
        network=_fast(metric),
        embed=metric.embed_squares,
        lipschitz_bound=metric.lipschitz_bound,
        forward_error=metric.forward_error,
        output_scales=metric.output_scales,
        device=device,
    )


def metric_of_upload(metric: PixelMetric, resize: Resize) -> PixelMetric:
    """The same metric attacked in an upload's pixels: the resize runs before it.

    Raises:
        AttackError: the metric has no gradients.
    """
    network = metric.network
    if network is None:
        raise AttackError(f"{metric.name} is attacked on square pictures only, not in uploads")
    rows, columns = (
        torch.from_numpy(matrix).to(device=metric.device, dtype=torch.float32)
        for matrix in (resize.rows, resize.columns)
    )

    def embed(x: Float64[np.ndarray, "B 3 H W"]) -> Float64[np.ndarray, "B D"]:
        pixels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        return metric.embed(np.stack([resize.apply_real(image) for image in pixels_last]))

    error = metric.forward_error
    if metric.lipschitz_bound is not None:
        moved = product_bound(metric.lipschitz_bound, resize.input_error)
        error = round_up(error + moved)
    return replace(
        metric,
        height=resize.rows.shape[1],
        width=resize.columns.shape[1],
        network=lambda x: network(rows @ x @ columns.T),
        embed=embed,
        gain=resize.gain,
        forward_error=error,
    )


def _fast(metric: DifferentiableMetric) -> Callable[[Tensor], Tensor]:
    """The metric's network in float32."""
    if isinstance(metric, EmbedderMetric):
        # Its weights are float64; the copy's rounding only moves where a gradient points.
        return copy.deepcopy(metric.embedder.network).float()
    return metric.network


def _pictures(x: Float[np.ndarray, "B 3 S S"]) -> list[np.ndarray]:
    """Values in [0, 1] as 8-bit pictures, (S, S, 3) each."""
    levels = np.clip(np.rint(255.0 * x), 0, 255).astype(np.uint8)
    return list(np.ascontiguousarray(levels.transpose(0, 2, 3, 1)))
