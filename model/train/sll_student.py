# pyright: basic
"""The published network as a student: T is computed in each forward pass, and differentiated.

Formulas, names and initial draws are the published ones: T = sum_j |W W^T|_ij exp(q_j - q_i) for a
linear block, and the kernel's full autocorrelation for a convolutional one, whose q cancels.

Source: Araujo et al. 2023, arXiv:2303.03169; Ghazanfari et al. 2024, arXiv:2310.18274, and code.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from model.nets.presets import PublishedConfig
from model.nets.published import SumPool, ZeroChannels, published_scalings, published_specs
from model.train.student import Student


class SllStudent(Student):
    """The published network, trainable.

    Bound: 1 at every step, up to float32 rounding; what is written is proved anew.
    """

    config: PublishedConfig

    def __init__(
        self, config: PublishedConfig, weights: Mapping[str, Float[np.ndarray, "..."]]
    ) -> None:
        """Takes the tensors of a checkpoint; a stored T is not among what is trained."""
        super().__init__()
        self.config = config
        self.widen, self.pool = ZeroChannels(config.channels), SumPool()
        self.convs = nn.ModuleList(
            TrainableConv(_part(weights, f"convs.{i}.")) for i in range(config.depth)
        )
        # Counted from 1, as published: 0 was the flattening.
        self.linear = nn.ModuleDict(
            {
                str(j): TrainableLinear(_part(weights, f"linear.{j}."))
                for j in range(1, config.linear_depth + 1)
            }
        )

    @classmethod
    def fresh(cls, config: PublishedConfig, seed: int) -> "SllStudent":
        """A student with the published initial draws."""
        return cls(config, initial_weights(config, seed))

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Raw embeddings; residual sums and T are float32 (or what the parameters are)."""
        x = self.in_parts(self._pooled, x)
        with self.arithmetic(x):
            for block in self.linear.values():
                x = x + block(x)
        return x[:, : self.config.embedding_dim]

    def _pooled(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N"]:
        """What the linear blocks read."""
        x = self.widen(x)
        with self.arithmetic(x):
            for block in self.convs:
                x = x + block(x)
        return self.pool(self.pool(x)).flatten(1)

    def export(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The stored tensors; T from the rounded weights, in float64, rounded up."""
        state = self.state_dict()
        weights = {
            name: state[name].detach().cpu().numpy().astype(dtype)
            for name, (_, dtype) in published_specs(self.config).items()
            if name in state
        }
        return weights | published_scalings(self.config, weights)


class TrainableConv(nn.Module):
    """-2 W^T T^-1 relu(W x + b) of a convolutional block, 3 x 3, zero padding 1.

    Bound: x plus this is 1-Lipschitz, l2 to l2. Proof: docs/certificate.md.
    """

    def __init__(self, weights: Mapping[str, Float[np.ndarray, "..."]]) -> None:
        super().__init__()
        self.kernel = _parameter(weights["kernel"])
        self.bias = _parameter(weights["bias"])
        # exp(-q_i) G_ij exp(q_i): it cancels, its gradient is 0, and files must hold it.
        self.q = _parameter(weights["q"], requires_grad=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What the block adds to x."""
        inner = functional.relu(functional.conv2d(x, self.kernel, self.bias.flatten(), padding=1))
        # On so few channels a pass over the activations costs as much as a convolution: sign, 2 and
        # T are in the kernel, which is small.
        factors = -2.0 * inverse(self.scaling())
        # The transpose of a padded 3 x 3 convolution is one with the kernel turned around; torch's
        # own transposed convolution is several times slower on so few channels.
        turned = (factors[:, None, None, None] * self.kernel).flip(2, 3).transpose(0, 1)
        return functional.conv2d(inner, turned, padding=1)

    def scaling(self) -> Float[Tensor, " I"]:
        """T_i: the sum of |G| over j and the 5 x 5 offsets, G = conv2d(K, K, padding 2)."""
        with torch.autocast(self.kernel.device.type, enabled=False):
            inner, _, side, _ = self.kernel.shape
            # A matrix product, so that no convolution routine may shorten the arithmetic of T.
            moved = functional.unfold(self.kernel, side, padding=side - 1)
            gram = torch.matmul(self.kernel.reshape(inner, -1), moved)
            return gram.abs().sum(dim=(0, 2))


class TrainableLinear(nn.Module):
    """-2 W^T T^-1 relu(W x + b) of a linear block.

    Bound: x plus this is 1-Lipschitz, l2 to l2. Proof: docs/certificate.md.
    """

    def __init__(self, weights: Mapping[str, Float[np.ndarray, "..."]]) -> None:
        super().__init__()
        self.weight = _parameter(weights["weight"])
        self.bias = _parameter(weights["bias"])
        self.q = _parameter(weights["q"])

    def forward(self, x: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """What the block adds to x."""
        inner = functional.relu(functional.linear(x, self.weight, self.bias.flatten()))
        factors = -2.0 * inverse(self.scaling())
        return functional.linear(inner * factors, self.weight.T)

    def scaling(self) -> Float[Tensor, " F"]:
        """T_i = sum_j |exp(-q_i) (W W^T)_ij exp(q_j)|."""
        with torch.autocast(self.weight.device.type, enabled=False):
            ratios = torch.exp(self.q)
            return ((self.weight @ self.weight.T).abs() @ ratios) / ratios


def inverse(scaling: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
    """1 / T, and 0 where a row of weights is 0, with a gradient that is 0 there too."""
    used = scaling > 0
    return torch.where(used, 1.0 / torch.where(used, scaling, 1.0), 0.0)


def initial_weights(config: PublishedConfig, seed: int) -> dict[str, Float[np.ndarray, "..."]]:
    """The published initial draws: Xavier-normal weights, uniform biases, normal q.

    A bias is uniform within 1 / sqrt(fan-in). T is not among them: a student computes its own.
    """
    random = np.random.default_rng([seed, 0])
    weights: dict[str, np.ndarray] = {}
    fan_in = 1
    for name, (shape, dtype) in published_specs(config).items():
        part = name.rpartition(".")[2]
        if part in ("kernel", "weight"):  # the first of each block
            taps = int(np.prod(shape[2:]))
            fan_in = shape[1] * taps
            spread = (2.0 / (fan_in + shape[0] * taps)) ** 0.5
            weights[name] = (spread * random.standard_normal(shape)).astype(dtype)
        elif part == "bias":
            weights[name] = random.uniform(-1, 1, shape).astype(dtype) / np.float32(fan_in**0.5)
        elif part == "q":
            weights[name] = random.standard_normal(shape).astype(dtype)
    return weights


def _part(
    weights: Mapping[str, Float[np.ndarray, "..."]], prefix: str
) -> dict[str, Float[np.ndarray, "..."]]:
    """The tensors of one block, without its prefix."""
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def _parameter(values: Float[np.ndarray, "..."], *, requires_grad: bool = True) -> nn.Parameter:
    """A copy of stored values, as what is trained."""
    return nn.Parameter(torch.tensor(values), requires_grad=requires_grad)
