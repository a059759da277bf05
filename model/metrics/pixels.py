# pyright: basic
# torch's types are loose.
"""Pixels as a metric: the certified baselines that any network must beat."""

import math

from jaxtyping import Float
from torch import Tensor

from model.certificate.bounds import product_bound
from model.certificate.rounding import gamma, round_up
from model.metrics.metric import DifferentiableMetric


class BlockMeans(DifferentiableMetric):
    """Means of square blocks of the picture minus 0.5, times the side of a block.

    With blocks of one pixel these are the raw pixels.

    Bound: 1, from the l2 norm of the square to that of the vector. Proof: each output is a sum of
    k x k pixels of one channel times 1 / k, and no pixel belongs to two blocks; so the rows of the
    map have norm sqrt(k k / k^2) = 1 and are orthogonal, and such a map has norm 1. Taking 0.5
    from each pixel is a translation.

    Rounding: a difference and a sum of k k terms, every one a multiple of 2^-55 so that nothing
    underflows; dividing by k is exact when k is a power of two. The vector is therefore off by at
    most gamma(k k) |A |c|| <= gamma(k k) |c|, where c is the square minus 0.5 and A the map, and
    |c| <= 0.5 sqrt(3 S S) for a square in [0, 1].
    """

    lipschitz_bound = 1.0

    def __init__(self, grid: int, input_size: int = 64) -> None:
        """A metric of grid x grid blocks.

        Raises:
            ValueError: the side of a block is not a power of two.
        """
        block = input_size // grid
        if block * grid != input_size or block & (block - 1):
            raise ValueError(f"{grid} blocks of 2^n pixels each do not make {input_size}")
        self.name = "raw" if block == 1 else f"blockmean{grid}"
        self.grid, self.input_size, self._block = grid, input_size, block
        self.dim = 3 * grid * grid
        longest = round_up(math.sqrt(3 * input_size**2))
        self.forward_error = product_bound(gamma(block * block), 0.5, longest)

    def network(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """The vectors of squares, channel-major."""
        blocks = (x - 0.5).reshape(len(x), 3, self.grid, self._block, self.grid, self._block)
        return (blocks.sum(dim=(3, 5)) / self._block).flatten(1)
