# pyright: basic
# torch's types are loose; they are kept inside the files of layers and the network.
"""What every layer owes: a map, and what is proved of it (norm bound and rounding error).

The layers themselves stand in `published.py` (SLL blocks) and `wave.py` (wavelets and channel
maps). Each class says its bound, where it is proved, and the rounding of what it executes.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from model.lipschitz import product_bound
from model.rounding import UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64, round_up


@dataclass(frozen=True)
class Flow:
    """What is proved of the numbers between two layers, for every input in the cube [0, 1].

    Attributes:
        norm: upper bound of the l2 norm of the real-arithmetic numbers of one image (one copy).
        error: upper bound of the l2 distance between the executed and the real-arithmetic numbers.
        lipschitz_bound: upper bound of the Lipschitz constant, l2 to l2, from the input to here.
    """

    norm: float
    error: float
    lipschitz_bound: float

    def through(
        self,
        lipschitz_bound: float = 1.0,
        *,
        offset: float = 0.0,
        relative: float = 0.0,
        absolute: float = 0.0,
    ) -> "Flow":
        """The flow behind a layer.

        Args:
            lipschitz_bound: the layer's proved constant.
            offset: upper bound of the norm of the layer's output at 0.
            relative: the layer's own rounding error, per unit of the norm of its executed input.
            absolute: the part of that error that does not depend on the input.

        Returns:
            The new flow: earlier errors are stretched by the layer's constant, its own are added.
        """
        rounding = relative * (self.norm + self.error) + absolute
        return Flow(
            norm=lipschitz_bound * self.norm + offset,
            error=lipschitz_bound * self.error + rounding,
            lipschitz_bound=product_bound(self.lipschitz_bound, lipschitz_bound),
        )


@runtime_checkable
class Layer(Protocol):
    """A map between activations that knows what is proved of it."""

    def __call__(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The map, as executed. It may overwrite its input where no gradient is wanted."""
        ...

    def prove(self, flow: Flow, unit_roundoff: float) -> Flow:
        """What is proved behind the layer, from what is proved before it."""
        ...


def cube_norm(values: int) -> float:
    """Upper bound of the norm of an input in [0, 1], with room for the rounding of a resize."""
    return math.sqrt(values) * (1.0 + 1e-9)


def unit_roundoff_of(dtype: torch.dtype) -> float:
    """The unit roundoff of the two arithmetics a network may run in."""
    return {torch.float64: UNIT_ROUNDOFF_64, torch.float32: UNIT_ROUNDOFF_32}[dtype]


def reciprocal_down(scaling: Float[Tensor, " F"], dtype: torch.dtype) -> Float[Tensor, " F"]:
    """1 / T in the arithmetic of the network; 0 where T is 0, where the row of weights is 0 too.

    In float64 this is the nearest number. In float32 it is rounded down, so that T is rounded up
    and the network that float32 approximates keeps its Lipschitz bound.
    """
    inverse = torch.where(scaling > 0, 1.0 / scaling, torch.zeros_like(scaling))
    if dtype == torch.float64:
        return inverse
    nearest = inverse.to(dtype)
    below = torch.nextafter(nearest, torch.zeros_like(nearest))
    return torch.where(nearest.double() > inverse, below, nearest)


def plain_bound(value: float) -> float:
    """A constant of the forward error, computed in plain float64, with the agreed 1 % on top."""
    return round_up(value * 1.01)
