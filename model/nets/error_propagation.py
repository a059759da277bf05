# pyright: basic
# torch's types are loose; they are kept inside the files of layers and the network.
"""What every layer owes: a map, and what is proved of it (norm bound and rounding error).

The layers themselves stand in `sll.py` (SLL blocks), `published.py` (the rest of the network of the
paper) and `wave.py` (wavelets and channel maps). Each class says its bound, where it is proved, and
the rounding of what it executes.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from model.certificate.bounds import product_bound
from model.certificate.rounding import UNIT_ROUNDOFF_32, UNIT_ROUNDOFF_64, round_up
from model.errors import CertificateError

# Far above the underflow of any float64 product of a norm, far below any norm that matters.
_LOST_NORM = 1e-200


@dataclass(frozen=True)
class ActivationBounds:
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
    ) -> "ActivationBounds":
        """The bounds behind a layer.

        Args:
            lipschitz_bound: the layer's proved constant.
            offset: upper bound of the norm of the layer's output at 0.
            relative: the layer's own rounding error, per unit of the norm of its executed input.
            absolute: the part of that error that does not depend on the input.

        Returns:
            The new bounds: earlier errors are stretched by the layer's constant, its own are added.
        """
        rounding = relative * (self.norm + self.error) + absolute
        return ActivationBounds(
            norm=lipschitz_bound * self.norm + offset,
            error=lipschitz_bound * self.error + rounding,
            lipschitz_bound=product_bound(self.lipschitz_bound, lipschitz_bound),
        )

    def with_underflow(self, unit_roundoff: float) -> "ActivationBounds":
        """The bounds with room for what underflows between two layers, which gamma does not cover.

        Every sum and product may lose the smallest normal number eta, be it rounded gradually or
        flushed to zero. A layer's sums have fewer than 2^24 terms, its output fewer than 2^40
        values, so it loses less than 2^48 eta; a block that divides by T charges its own beside
        it. The norm's own float64 may underflow too.
        """
        lost = 2.0**50 * smallest_normal(unit_roundoff)
        return ActivationBounds(self.norm + _LOST_NORM, self.error + lost, self.lipschitz_bound)


@runtime_checkable
class Layer(Protocol):
    """A map between activations that knows what is proved of it."""

    def __call__(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The map, as executed. It may overwrite its input where no gradient is wanted."""
        ...

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """What is proved behind the layer, from what is proved before it."""
        ...


def cube_norm(values: int) -> float:
    """Upper bound of the norm of an input in [0, 1], with room for the rounding of a resize."""
    return math.sqrt(values) * (1.0 + 1e-9)


def unit_roundoff_of(dtype: torch.dtype) -> float:
    """The unit roundoff of the two arithmetics a network may run in."""
    return {torch.float64: UNIT_ROUNDOFF_64, torch.float32: UNIT_ROUNDOFF_32}[dtype]


def smallest_normal(unit_roundoff: float) -> float:
    """The smallest normal number of the arithmetic with this unit roundoff."""
    return 2.0**-1022 if unit_roundoff == UNIT_ROUNDOFF_64 else 2.0**-126


def largest_carried(unit_roundoff: float) -> float:
    """How large a number may be before a proof stops: an eighth of where the arithmetic ends."""
    return 2.0**1021 if unit_roundoff == UNIT_ROUNDOFF_64 else 2.0**125


def carried(values: Float[np.ndarray, "..."], dtype: torch.dtype, what: str) -> Tensor:
    """These numbers in the arithmetic of the network, a copy; none may leave its normal range.

    Weights may be scaled at will where T follows them, so their size says nothing of the
    network's: a cast that clamps, flushes or denormalises would make another network silently.

    Args:
        values: the numbers as stored.
        dtype: the arithmetic.
        what: how an error names them.

    Raises:
        CertificateError: a number that is not 0 is too small or too large for the arithmetic.
    """
    cast = torch.tensor(values, dtype=dtype)
    used = cast[torch.from_numpy(np.asarray(values != 0))].abs()
    unit_roundoff = unit_roundoff_of(dtype)
    low, high = smallest_normal(unit_roundoff), largest_carried(unit_roundoff)
    if not bool(((used >= low) & (used <= high)).all()):
        arithmetic = str(dtype).removeprefix("torch.")
        raise CertificateError(
            f"{what} must be 0 or between {low:.3g} and {high:.3g} to run in {arithmetic}, "
            f"and go from {used.min():.3g} to {used.max():.3g} there"
        )
    return cast


def reciprocal_down(scaling: Float[np.ndarray, " F"], dtype: torch.dtype) -> Float[Tensor, " F"]:
    """1 / T in the arithmetic of the network; 0 where T is 0, where the row of weights is 0 too.

    In float64 this is the nearest number. In float32 it is rounded down, so that T is rounded up
    and the network that float32 approximates keeps its Lipschitz bound.

    Raises:
        CertificateError: 1 / T is no normal number of the arithmetic.
    """
    with np.errstate(over="ignore"):
        inverse = np.divide(1.0, scaling, out=np.zeros_like(scaling), where=scaling > 0)
    nearest = carried(inverse, dtype, "1 / T")
    if dtype == torch.float64:
        return nearest
    below = torch.nextafter(nearest, torch.zeros_like(nearest))
    return torch.where(nearest.double() > torch.from_numpy(inverse), below, nearest)


def plain_bound(value: float) -> float:
    """A constant of the forward error, computed in plain float64, with the agreed 1 % on top."""
    return round_up(value * 1.01)
