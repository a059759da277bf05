"""What a float32 search proves about the rows it did not return.

Let g be a query in float64, g32 the float32 vector searched with, and s the smallest float32 score
returned. FAISS computes each score as a float32 sum of d products, in some order, so with
u = 2^-24 and any row f of norm at most 1 + eta

    <g, f> <= fl<g32, f> + gamma_d |g32| |f| + |g - g32| |f|
           <= s + (gamma_d |g32| + |g - g32|)(1 + eta)

for every row not returned. Products may underflow, which gamma does not cover: at most 2 d smallest
normal numbers are added for it. The query is first scaled by a power of two to lie near 1, which is
exact, so that no finite query overflows in float32; the bound is scaled back.

Source: Higham 2002, section 3.1.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from model.certificate.rounding import UNIT_ROUNDOFF_32, gamma, round_up

_SMALLEST_NORMAL_32 = 2.0**-126
# Squares below the range of float64 count as zero; their roots stay below this for any d < 2^50.
_LOST_NORM = 1e-140


@dataclass(frozen=True)
class Float32Query:
    """A query rounded for the search, and what the rounding cost.

    Attributes:
        vector: 2^-exponent g rounded to float32, (d,); its largest value lies in [0.5, 1].
        exponent: of the scale.
        rounding: upper bound on |2^-exponent g - vector|.
        norm: upper bound on |vector|.
        is_zero: whether g is zero, so that every score is.
    """

    vector: Float32[np.ndarray, " D"]
    exponent: int
    rounding: float
    norm: float
    is_zero: bool


def float32_query(query: Float64[np.ndarray, " D"]) -> Float32Query:
    """Scale a finite query to values near 1 and round it to float32."""
    largest = float(np.abs(query).max())
    exponent = math.frexp(largest)[1]
    scaled = np.ldexp(query, -exponent)
    vector = scaled.astype(np.float32)
    # The difference of a float64 value and its float32 rounding is itself a float64 value.
    return Float32Query(
        vector=vector,
        exponent=exponent,
        rounding=_norm_above(scaled - vector.astype(np.float64)),
        norm=_norm_above(vector.astype(np.float64)),
        is_zero=largest == 0.0,
    )


def unseen_bound(query: Float32Query, last_score: float, norm_deviation: float) -> float:
    """Upper bound, in real arithmetic, of <g, f> over the rows a search did not return.

    Args:
        query: as it was searched with.
        last_score: the smallest float32 score among the rows returned.
        norm_deviation: bound on | |f| - 1 |.

    Returns:
        The bound in the original query's scale, rounded up; 0 for a zero query.
    """
    if query.is_zero:
        return 0.0
    dim = query.vector.size
    scoring = round_up(gamma(dim, UNIT_ROUNDOFF_32) * query.norm)
    errors = round_up(round_up(scoring + query.rounding) * round_up(1.0 + norm_deviation))
    errors = round_up(errors + 2 * dim * _SMALLEST_NORMAL_32)
    bound = round_up(last_score + errors)
    try:
        return round_up(math.ldexp(bound, query.exponent))
    except OverflowError:  # only for queries near the end of float64
        return math.inf if bound > 0 else -1.7976931348623157e308


def _norm_above(values: Float64[np.ndarray, " D"]) -> float:
    """Upper bound of the Euclidean norm of values no larger than 1."""
    norm = float(np.sqrt(np.dot(values, values)))
    return round_up(round_up(norm * (1.0 + gamma(values.size + 4))) + _LOST_NORM)
