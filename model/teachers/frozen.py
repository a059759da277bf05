# pyright: basic
# torch's types are loose.
"""A foreign network made a teacher: its pixels normalised, its output scaled, nothing trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.errors import MetricError


@dataclass(frozen=True)
class Recipe:
    """How a foreign network is fed and read.

    Attributes:
        input_size: side of its input, pixels.
        mean: taken from each channel of a picture in [0, 1].
        std: each channel is divided by it after that.
        read: the network's output (B, D) to the embedding, row by row.
    """

    input_size: int
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    read: Callable[[Tensor], Tensor] = lambda output: output


class FrozenTeacher:
    """A `Teacher`: a network whose weights and statistics stay as they are.

    Attributes:
        network: what was frozen.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        forward: Callable[[Tensor], Tensor],
        recipe: Recipe,
        *,
        record: Mapping[str, str],
        device: str,
    ) -> None:
        """A teacher of a network and the call of it that gives (B, D) numbers.

        Raises:
            MetricError: what it gives for a picture is no row of finite numbers.
        """
        network.eval().requires_grad_(requires_grad=False).to(device)
        self.name, self.network, self.record = name, network, record
        self.input_size = recipe.input_size
        self._forward, self._read, self._device = forward, recipe.read, device
        self._mean = torch.tensor(recipe.mean, device=device).reshape(3, 1, 1)
        self._std = torch.tensor(recipe.std, device=device).reshape(3, 1, 1)
        side = recipe.input_size
        with torch.no_grad():
            shown = self.embed(torch.linspace(0, 1, 3 * side**2).reshape(1, 3, side, side))
        if not torch.isfinite(shown).all():
            raise MetricError(f"{name} gives numbers that are not finite")
        self.dim = shown.shape[1]

    def embed(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        pixels = x.to(device=self._device, dtype=torch.float32)
        output = self._forward((pixels - self._mean) / self._std)
        if output.ndim != 2 or len(output) != len(x):
            raise MetricError(f"{self.name}: ({len(x)}, D) was wanted, {tuple(output.shape)} came")
        return self._read(output.float())
