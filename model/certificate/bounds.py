"""Norms proved (upper bounds, `*_bound`) and norms measured (`lipschitz_estimate`).

Only a bound may enter a radius. Each bound here is computed in float64 from the numbers given, with
the rounding of its own computation added, so it holds in real arithmetic for exactly those numbers.
An SVD or a power iteration is never taken at its word: at most it proposes what is then proved.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64

from model.certificate.rounding import UNIT_ROUNDOFF_64, gamma, round_up
from model.errors import CertificateError

# Squares that underflow are lost to a sum; n < 2^50 of them lose less than this, or its root.
_LOST_SQUARE = 1e-290
_LOST_ROOT = 1e-140
# The same over a component of a Perron vector, which is 1e-250 at least.
_LOST_RATIO = 1e-40

# Below this, a product of two weights and a ratio might underflow; float32 ends at 1.4e-45.
_SMALLEST_WEIGHT = 1e-70

_EIGENVECTOR_ROWS = 1024
"""Up to this many rows the Perron vector starts from an eigen-solve; above, from all ones."""


def inflate(value: float, roundings: int) -> float:
    """Upper bound of a nonnegative number computed as value with so many relative roundings."""
    # (1 + 2 gamma) >= 1 / (1 - gamma): from the computed number back to the real one.
    return round_up(round_up(1.0 + 2.0 * gamma(roundings + 1)) * value)


def product_bound(*factors: float) -> float:
    """Upper bound of the product of nonnegative upper bounds."""
    product = 1.0
    for factor in factors:
        if factor != 1.0:  # nothing is rounded then
            product = factor if product == 1.0 else round_up(product * factor)
    return product


def euclidean_norm_bound(values: Float[np.ndarray, "..."]) -> float:
    """Upper bound of the l2 (for a matrix: Frobenius) norm of all values."""
    flat = _finite(values).ravel()
    bound = inflate(math.sqrt(float(flat @ flat)), flat.size + 2)
    return bound if bound > _LOST_ROOT or not flat.any() else bound + _LOST_ROOT


def orthonormal_norm_bound(weight: Float[np.ndarray, "M N"]) -> float:
    """Upper bound of the spectral norm of a nearly orthonormal map, tight to its defect.

    ||W||^2 = ||W W^T|| <= 1 + ||W W^T - I||_F, of which the computed Gram matrix is off by at most
    gamma_n |W| |W|^T, entry by entry, and || |W| |W|^T ||_F <= ||W||_F^2.

    Args:
        weight: the map, (M, N); a tall one is transposed, which keeps the norm.

    Returns:
        The bound: slightly above 1 for orthonormal rows (or columns), useless for anything else.

    Raises:
        CertificateError: a weight is not finite.
    """
    wide = _wide(weight)
    gram = wide @ wide.T
    defect = euclidean_norm_bound(gram - np.eye(len(gram)))
    rounding = gamma(wide.shape[1] + 1) * euclidean_norm_bound(wide) ** 2
    return _root_up(1.0 + inflate(defect + rounding, 8))


def cholesky_norm_bound(weight: Float[np.ndarray, "M N"]) -> float:
    """Upper bound of the spectral norm of any matrix, tight to about 1e-11.

    If the computed Cholesky factorisation of A = c^2 I - W W^T runs to its end, then
    A + dA = R^T R is positive semidefinite with ||dA|| <= gamma_{n+1}/(1 - gamma_{n+1}) trace(A),
    hence ||W||^2 <= c^2 + ||dA|| + (rounding of the Gram matrix and of the subtraction).

    Args:
        weight: the matrix, (M, N); a tall one is transposed, which keeps the norm.

    Returns:
        The bound.

    Raises:
        CertificateError: a weight is not finite, or no c near the estimate could be proved.

    Source: Higham 2002, theorem 10.3; Demmel 1989, LAPACK working note 14.
    """
    wide = _wide(weight)
    rows, columns = wide.shape
    gram = wide @ wide.T
    largest = float(np.linalg.eigvalsh(gram)[-1])  # proposes c; the factorisation proves it
    gram_rounding = gamma(columns + 1) * euclidean_norm_bound(wide) ** 2
    # Far above the rounding of the factorisation: another machine proves with the same slack.
    for slack in (1e-11, 1e-9, 1e-6, 1e-3):
        square = max(largest, 0.0) * (1.0 + slack) + np.finfo(np.float64).tiny
        shifted = square * np.eye(rows) - gram
        try:
            np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            continue
        trace = inflate(float(np.abs(np.diag(shifted)).sum()), rows + 2)
        factor_rounding = 2.0 * gamma(rows + 1) * trace
        # Only the diagonal takes part in the subtraction, so its rounding is at most u times it.
        rounding = factor_rounding + UNIT_ROUNDOFF_64 * trace + gram_rounding + _LOST_SQUARE
        return _root_up(square + inflate(rounding, 8))
    raise CertificateError("no Cholesky factorisation proved a norm near the estimate")


def spectral_norm_bound(weight: Float[np.ndarray, "M N"]) -> float:
    """Upper bound of the spectral norm: the smaller of the two proofs that fit any matrix.

    Args:
        weight: the matrix, (M, N).

    Returns:
        The bound; for an orthonormal map stored in float32 about 3e-8 above 1.

    Raises:
        CertificateError: a weight is not finite.
    """
    return min(orthonormal_norm_bound(weight), cholesky_norm_bound(weight))


def nonnegative_norm_bound(matrix: Float[np.ndarray, "M N"], *, tight: bool = True) -> float:
    """Upper bound of the spectral norm of a matrix without negative entries.

    Collatz-Wielandt: for any v > 0, lambda_max(R R^T) <= max_i (R R^T v)_i / v_i. The nearer v is
    to the Perron vector the tighter the bound; every v gives a sound one, so the best is taken.

    Args:
        matrix: R >= 0, (M, N).
        tight: whether v starts from an eigen-solve and is improved to the end (tight to 1e-13), or
            takes four steps from all ones (a few per cent, and cheap).

    Returns:
        The bound; 0 for the zero matrix.

    Raises:
        CertificateError: an entry is negative or not finite.

    Source: Horn and Johnson, Matrix Analysis, corollary 8.1.31.
    """
    matrix = _finite(matrix)
    if (matrix < 0).any():
        raise CertificateError("the matrix must not have negative entries")
    matrix = matrix[(matrix > 0).any(axis=1)]
    if not matrix.size:
        return 0.0
    # Scaled to a largest entry of [1/2, 1), so that an underflow is far below the norm.
    exponent = math.frexp(float(matrix.max()))[1]
    matrix = np.ldexp(matrix, -exponent)
    vector = _perron_start(matrix) if tight else np.ones(len(matrix))
    square = math.inf
    for _ in range(60 if tight else 4):
        image = matrix @ (matrix.T @ vector)
        ratios = image / vector
        if ratios.max() >= square:
            break
        square = float(ratios.max())
        # The floor keeps v positive whatever underflows; it costs tightness at most.
        vector = np.maximum(image / image.max(), 1e-250)
    # The two products sum numbers of one sign: relative errors only; one division; one underflow.
    # Zeros are added without rounding, so a band counts its width, not its length.
    terms = int((matrix > 0).sum(axis=0).max() + (matrix > 0).sum(axis=1).max())
    root = _root_up(inflate(square, terms + 4) + _LOST_RATIO)
    with np.errstate(over="ignore"):
        return round_up(float(np.ldexp(root, exponent)))


def wavelet_norm_bound(filters: Float64[np.ndarray, "F N"], stride: int = 2) -> float:
    """Upper bound of the norm of a one-dimensional filter bank on the infinite line.

    The Gram matrix of its rows holds the filters' correlations at multiples of the stride; its
    distance from the identity is at most its largest absolute row sum. A bank on a finite signal
    with zeros beyond its ends is P W E, a submatrix of this operator, so the bound holds for it.

    Args:
        filters: the filters' taps, (F, N).
        stride: samples between neighbouring outputs.

    Returns:
        The bound; 1 + half the defect for an orthonormal bank.

    Raises:
        CertificateError: a tap is not finite.
    """
    filters = _finite(filters)
    taps = filters.shape[1]
    rows = [_correlation_defect(filters, row, stride) for row in range(len(filters))]
    magnitude = euclidean_norm_bound(filters) ** 2
    shifts = 2 * (taps // stride) + 1
    rounding = gamma(taps + 1) * magnitude * shifts * len(filters)
    return _root_up(1.0 + inflate(max(rows) + rounding, shifts * len(filters) + 8))


def dense_sll_scaling(
    weight: Float[np.ndarray, "F N"], ratios: Float64[np.ndarray, " F"]
) -> Float64[np.ndarray, " F"]:
    """T of a linear SLL block: the diagonal that makes x - 2 W^T T^-1 relu(W x + b) 1-Lipschitz.

    T_i = sum_j |W W^T|_ij p_j / p_i, with the rounding of the Gram matrix added inside the sum
    (it is not relative to |G_ij|) and that of the sum around it, then rounded up. Any p > 0 is
    valid, so what a machine's exp returns need not be exact.

    Args:
        weight: W, (F, N).
        ratios: p, (F,), positive: exp of the stored q.

    Returns:
        T, (F,); 0 exactly where a row of W is 0.

    Raises:
        CertificateError: a weight is not finite, or not 0 and below 1e-70; p is not positive and
            finite, or spans more than 1e100, where products would underflow; or T overflows.

    Source: Araujo et al. 2023, arXiv:2303.03169, theorem 3; rounding ours.
    """
    weight = _squarable(weight)
    if not (np.isfinite(ratios).all() and (ratios > 0).all()):
        raise CertificateError("exp(q) must be positive and finite")
    ratios = ratios / ratios.max()  # another valid p
    if ratios.min() < 1e-100:
        raise CertificateError("exp(q) must span less than 1e100")
    size, fan_in = weight.shape
    magnitude = np.abs(weight)
    # |fl(G)| + gamma |W||W|^T, the second product being itself rounded.
    entries = np.abs(weight @ weight.T) + 1.01 * gamma(fan_in + 1) * (magnitude @ magnitude.T)
    with np.errstate(over="ignore"):
        scaling = (entries @ ratios) / ratios
    return _scaling_up(scaling, size)


def conv_sll_scaling(kernel: Float[np.ndarray, "I C K K"]) -> Float64[np.ndarray, " I"]:
    """T of a convolutional SLL block: as for a linear one, with the kernel's full autocorrelation.

    The zero-padded convolution is a truncation of the one on the infinite plane, its Gram matrix a
    principal submatrix of that one's, so the full autocorrelation's row sums are valid at borders.

    Args:
        kernel: K, (inner, channels, side, side), side odd.

    Returns:
        T, (inner,); 0 exactly where a filter is 0.

    Raises:
        CertificateError: a weight is not finite, or not 0 and below 1e-70; or T overflows.

    Source: Araujo et al. 2023, arXiv:2303.03169, theorem 3 with q = 1; rounding ours.
    """
    kernel = _squarable(kernel)
    inner, _, side, _ = kernel.shape
    padding = ((0, 0), (0, 0), (side - 1, side - 1), (side - 1, side - 1))
    padded = np.pad(kernel, padding)
    factor = 1.01 * gamma(kernel[0].size + 1)
    total = np.zeros(inner)
    for row in range(2 * side - 1):
        for column in range(2 * side - 1):
            window = padded[:, :, row : row + side, column : column + side]
            gram = np.tensordot(kernel, window, axes=((1, 2, 3), (1, 2, 3)))
            magnitude = np.tensordot(np.abs(kernel), np.abs(window), axes=((1, 2, 3), (1, 2, 3)))
            total += (np.abs(gram) + factor * magnitude).sum(axis=1)
    return _scaling_up(total, inner * (2 * side - 1) ** 2)


def lipschitz_estimate(
    apply: Callable[[Float64[np.ndarray, "..."]], Float64[np.ndarray, "..."]],
    transpose: Callable[[Float64[np.ndarray, "..."]], Float64[np.ndarray, "..."]],
    shape: tuple[int, ...],
    steps: int = 300,
    seed: int = 0,
) -> float:
    """Largest stretch that a power iteration finds in a linear map: a measured LOWER bound.

    For monitoring and tests. It never enters a radius.

    Args:
        apply: the map, from arrays of the given shape.
        transpose: its transpose.
        shape: shape of the map's input.
        steps: iterations.
        seed: of the random start.

    Returns:
        ||A v|| / ||v|| at the last v; 0 where the map is 0 on it.
    """
    vector = np.random.default_rng(seed).standard_normal(shape)
    for _ in range(steps):
        vector /= np.linalg.norm(vector)
        moved = transpose(apply(vector))
        if not np.linalg.norm(moved) > 0:
            return 0.0
        vector = moved
    return float(np.linalg.norm(apply(vector)) / np.linalg.norm(vector))


def _finite(values: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """The values in float64 (exact for shorter formats), or a refusal where one is not finite."""
    values = values.astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        raise CertificateError("a norm was asked of numbers that are not all finite")
    return values


def _squarable(values: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """The weights in float64, or a refusal where a product of two would underflow."""
    values = _finite(values)
    if ((values != 0.0) & (np.abs(values) < _SMALLEST_WEIGHT)).any():
        raise CertificateError(f"a weight must be 0 or at least {_SMALLEST_WEIGHT:g}")
    return values


def _wide(weight: Float[np.ndarray, "M N"]) -> Float64[np.ndarray, "m n"]:
    """The matrix or its transpose, whichever has no more rows than columns."""
    weight = _finite(weight)
    return weight if weight.shape[0] <= weight.shape[1] else np.ascontiguousarray(weight.T)


def _root_up(square: float) -> float:
    """Upper bound of the square root of a number that was itself rounded once."""
    return round_up(math.sqrt(round_up(square)))


def _perron_start(matrix: Float64[np.ndarray, "M N"]) -> Float64[np.ndarray, " M"]:
    """A positive vector near the Perron vector of R R^T."""
    if len(matrix) > _EIGENVECTOR_ROWS:
        return np.ones(len(matrix))
    _, vectors = np.linalg.eigh(matrix @ matrix.T)
    start = np.abs(vectors[:, -1])
    return np.maximum(start / start.max(), 1e-12)


def _correlation_defect(filters: Float64[np.ndarray, "F N"], row: int, stride: int) -> float:
    """Absolute row sum of (Gram matrix - identity) for one filter of a bank."""
    total = 0.0
    for other in range(len(filters)):
        full = np.correlate(filters[other], filters[row], mode="full")
        centre = filters.shape[1] - 1
        offsets = full[centre % stride :: stride].copy()
        if other == row:
            offsets[centre // stride] -= 1.0
        total += float(np.abs(offsets).sum())
    return total


def _scaling_up(scaling: Float64[np.ndarray, " F"], terms: int) -> Float64[np.ndarray, " F"]:
    """T from its computed sum of so many nonnegative terms: rounded up, zero rows left at 0."""
    if not np.isfinite(scaling).all():
        raise CertificateError("the scaling T of a block is not finite")
    raised = np.nextafter(scaling * (1.0 + 2.0 * gamma(terms + 6)), np.inf)
    return np.where(scaling > 0, raised, 0.0)
