"""The vocabulary of a-priori rounding analysis: unit roundoffs, gamma, rounding to one side.

Every function here returns a number on the promised side of the real one. Underflow is
the callers' to cover: by a term of its own, or by quantities far above the smallest normal number.

Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1.
"""

import math
from functools import lru_cache

UNIT_ROUNDOFF_64 = 2.0**-53
UNIT_ROUNDOFF_32 = 2.0**-24


def round_up(x: float) -> float:
    """The next float64 above x: an upper bound of any real number that rounds to x."""
    return math.nextafter(x, math.inf)


def round_down(x: float) -> float:
    """The next float64 below x: a lower bound of any real number that rounds to x."""
    return math.nextafter(x, -math.inf)


@lru_cache(256)
def gamma(n: int, unit_roundoff: float = UNIT_ROUNDOFF_64) -> float:
    """Upper bound of n u / (1 - n u): the relative error of n roundings in a row, in any order.

    A dot product of length n, summed in any order and with or without fused multiply-adds, is off
    by at most gamma(n) times the sum of the products' absolute values.

    Args:
        n: number of roundings, >= 0.
        unit_roundoff: u of the arithmetic; 2**-53 for float64.

    Returns:
        The bound, rounded up.

    Raises:
        ValueError: n is negative, or n u >= 1, where no bound exists.
    """
    if n < 0 or n * unit_roundoff >= 1.0:
        raise ValueError(f"gamma needs 0 <= n < 1/u, got n = {n} at u = {unit_roundoff}")
    if n == 0:
        return 0.0
    product = n * unit_roundoff  # exact: a power of two times an integer below 2**53
    return round_up(product / round_down(1.0 - product))
