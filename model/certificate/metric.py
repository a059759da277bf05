"""How far an embedding may move along each direction: the Lipschitz bound, and scales of the head.

A network that ends in a linear map, h(x) = W phi(x) - mu with |phi(x') - phi(x)| <= M |x' - x|,
moves along a difference D of gallery vectors by <phi(x') - phi(x), W^T D> <= M |x' - x| |W^T D|.
The query's distance to the plane of two rows is then its score gap over |W^T D|, which is never
larger than |W| |D|. With the embedding rotated so that W W^T is diagonal, M |W^T D| is |s o D| for
a vector s of `output_scales`: one number a coordinate, and W needs no norm of 1.
"""

import numpy as np
from jaxtyping import Float, Float64

from model.certificate.rounding import gamma
from model.errors import CertificateError

# A row of W shorter than this share of the longest is scaled as one of this length.
_SHORTEST = 2.0**-26

# Smaller scales are taken for this one, so that no square of a scaled difference underflows.
_SMALLEST_SCALE = 1e-30

# Below this, a product of two weights and a ratio might underflow; float32 ends at 1.4e-45.
_SMALLEST_WEIGHT = 1e-70


def relative_scales(
    lipschitz_bound: float, scales: Float64[np.ndarray, " D"] | None
) -> Float64[np.ndarray, " D"] | None:
    """Scales c = s / L, rounded up: <h(x') - h(x), D> <= L |x' - x| |c o D| for every D, (D,).

    None where there are no scales or all are L, which gains nothing ("isotropic").

    Raises:
        CertificateError: a scale is negative or not finite.
    """
    if scales is None or (scales == lipschitz_bound).all():
        return None
    if not (np.isfinite(scales).all() and (scales >= 0.0).all()):
        raise CertificateError("output_scales must be finite and not negative")
    relative = np.nextafter(scales / lipschitz_bound, np.inf)
    return np.maximum(relative, _SMALLEST_SCALE)


def output_scales(
    weight: Float[np.ndarray, "D N"], front_bound: float
) -> Float64[np.ndarray, " D"]:
    """Scales s, front_bound |W^T D| <= |s o D| for every D; tight if W W^T is nearly diagonal.

    |W^T D|^2 = sum_ab G_ab D_a D_b with G = W W^T, and 2 |D_a D_b| <= (q_b / q_a) D_a^2 + (q_a /
    q_b) D_b^2 for any q > 0, so s_a^2 = sum_b |G_ab| q_b / q_a will do. q_a = 1 / |W_a| keeps small
    rows from paying for large ones. A computed G is off by gamma_n |W| |W|^T, entry by entry.

    Args:
        weight: W as stored, (D, N).
        front_bound: proved Lipschitz bound of phi.

    Raises:
        CertificateError: a weight is not finite, or not 0 and below 1e-70; or a scale overflows.
    """
    weight = weight.astype(np.float64, copy=False)
    if (
        not np.isfinite(weight).all()
        or ((weight != 0.0) & (np.abs(weight) < _SMALLEST_WEIGHT)).any()
    ):
        raise CertificateError(f"a weight must be 0 or finite and at least {_SMALLEST_WEIGHT:g}")
    count, fan_in = weight.shape
    magnitude = np.abs(weight)
    products = magnitude @ magnitude.T
    gram = np.abs(weight @ weight.T) + gamma(fan_in + 2) * products
    lengths = np.sqrt(np.diag(products))
    lengths = np.maximum(lengths, _SHORTEST * lengths.max(initial=0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        # All terms are nonnegative: relative errors only, a sum of D and a handful of factors.
        squares = (gram @ (1.0 / lengths)) * lengths
        scales = np.sqrt(squares) * front_bound * (1.0 + 2.0 * gamma(count + 16))
    if not np.isfinite(scales).all():
        raise CertificateError("an output scale is not finite")
    return np.nextafter(scales, np.inf)
