# pyright: basic
# torch's types are loose; they are kept inside the files of layers and the network.
"""SLL blocks with the scaling T folded in, x - 2 W^T T^-1 relu(W x + b), and their proofs.

T is computed once, from the stored weights (`model.certificate.bounds`), stored with them, and only
its reciprocal is used in a pass.

Source: Araujo et al. 2023, arXiv:2303.03169.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from model.certificate.bounds import (
    conv_sll_scaling,
    dense_sll_scaling,
    euclidean_norm_bound,
    inflate,
    nonnegative_norm_bound,
)
from model.certificate.rounding import gamma
from model.errors import CertificateError
from model.nets.error_propagation import (
    ActivationBounds,
    carried,
    largest_carried,
    reciprocal_down,
    smallest_normal,
)

_ROWS_PER_BLOCK = 16
"""Image rows per matrix product of a convolution: the block stays in the processor's cache."""


class ConvBlock(nn.Module):
    """Convolutional SLL block, 3 x 3, zero padding 1, as two matrix products.

    The first product applies all nine taps to every pixel and adds the shifted results (fold); the
    second gathers the nine neighbours (unfold) and multiplies. Same sums as a convolution, an
    order of magnitude faster in float64 than torch's own.

    Bound: 1, or 1 + 2 eps where the stored T is too small by a factor 1 + eps.
    Proof: docs/certificate.md; `conv_sll_scaling` proves T, `scaling_slack` compares.
    """

    reading: Tensor
    writing: Tensor
    bias: Tensor
    inverse_scaling: Tensor

    def __init__(
        self,
        kernel: Float[np.ndarray, "I C 3 3"],
        bias: Float[np.ndarray, "1 I 1 1"],
        scaling: Float64[np.ndarray, " I"],
        pixels: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.kernel, self.bias_values, self.scaling = kernel, bias.ravel(), scaling
        self.pixels = pixels
        self.inner, self.channels, self.side, _ = kernel.shape
        taps = carried(np.ascontiguousarray(kernel[:, :, ::-1, ::-1]), dtype, "a block's kernel")
        # Rows (inner, tap): fold adds a tap at the position it was read from, hence the flip.
        self.register_buffer("reading", taps.permute(0, 2, 3, 1).reshape(-1, self.channels).clone())
        # -2 W^T, exact: a power of two.
        writing = (-2.0 * taps).permute(1, 0, 2, 3).reshape(self.channels, -1)
        self.register_buffer("writing", writing.clone())
        self.register_buffer("bias", torch.from_numpy(self.bias_values).to(dtype)[:, None, None])
        inverse = reciprocal_down(scaling, dtype)
        self.register_buffer("inverse_scaling", inverse[:, None, None])

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The block's output; on a CPU the input is overwritten where no gradient is wanted.

        There a few rows of one image at a time, in place, stay in the processor's cache. Under
        autograd writing in place would copy the whole batch for each image: the batch runs whole.
        Both are the same sums, in another order.
        """
        if x.device.type != "cpu" or (torch.is_grad_enabled() and x.requires_grad):
            return self._whole(x)
        x = x.contiguous()
        for image in x:
            inner = self._read(image)
            self._write(image, functional.relu(inner + self.bias) * self.inverse_scaling)
        return x

    def _whole(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The batch at once, out of place."""
        size = (x.shape[2] + 2, x.shape[3] + 2)
        inner = functional.fold(self.reading @ x.flatten(2), size, self.side)[..., 1:-1, 1:-1]
        scaled = functional.relu(inner + self.bias) * self.inverse_scaling
        neighbours = functional.unfold(scaled, self.side, padding=1)
        return x + (self.writing @ neighbours).view_as(x)

    def _read(self, image: Float[Tensor, "C H W"]) -> Float[Tensor, "I H W"]:
        """W x: the zero-padded convolution."""
        _, height, width = image.shape
        total = image.new_zeros(self.inner, height + 2, width + 2)
        for top in range(0, height, _ROWS_PER_BLOCK):
            block = image[:, top : top + _ROWS_PER_BLOCK]
            size = (block.shape[1] + 2, width + 2)
            products = self.reading @ block.reshape(self.channels, -1)
            total[:, top : top + size[0]] += functional.fold(products[None], size, self.side)[0]
        return total[:, 1:-1, 1:-1]

    def _write(self, image: Float[Tensor, "C H W"], s: Float[Tensor, "I H W"]) -> None:
        """Adds -2 W^T s to the image, in place."""
        _, height, width = image.shape
        padded, flat = functional.pad(s, (1, 1, 1, 1)), image.view(self.channels, -1)
        for top in range(0, height, _ROWS_PER_BLOCK):
            bottom = min(top + _ROWS_PER_BLOCK, height)
            neighbours = functional.unfold(padded[None, :, top : bottom + 2], self.side)[0]
            flat[:, top * width : bottom * width].addmm_(self.writing, neighbours)

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """Bound from the stored T; rounding from the lengths of the two sums."""
        # |W| as a matrix between channels: the sum over taps bounds every row, borders included.
        magnitude = np.abs(self.kernel.astype(np.float64)).sum(axis=(2, 3))
        return _through_sll(
            bounds,
            scaling_slack(conv_sll_scaling(self.kernel), self.scaling),
            _ErrorTerms.of(magnitude, self.bias_values, self.scaling, copies=self.pixels),
            reads=self.kernel[0].size,
            writes=self.inner * self.side**2,
            unit_roundoff=unit_roundoff,
        )


class LinearBlock(nn.Module):
    """Linear SLL block.

    Bound: 1, or 1 + 2 eps where the stored T is too small by a factor 1 + eps.
    Proof: docs/certificate.md; `dense_sll_scaling` proves T for the p = exp(q) of this machine (any
    positive p is valid), `scaling_slack` compares it with the stored one.
    """

    weight: Tensor
    bias: Tensor
    inverse_scaling: Tensor

    def __init__(
        self,
        weight: Float[np.ndarray, "F N"],
        bias: Float[np.ndarray, "1 F"],
        log_ratios: Float[np.ndarray, " F"],
        scaling: Float64[np.ndarray, " F"],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.bias_values, self.log_ratios, self.scaling = bias.ravel(), log_ratios, scaling
        self.register_buffer("weight", carried(weight, dtype, "a block's weights"))
        self.register_buffer("bias", torch.tensor(self.bias_values, dtype=dtype))
        self.register_buffer("inverse_scaling", reciprocal_down(scaling, dtype))

    def forward(self, x: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        inner = functional.relu(torch.addmm(self.bias, x, self.weight.T)) * self.inverse_scaling
        return x.sub(inner @ self.weight, alpha=2)

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """Bound from the stored T; rounding from the lengths of the two sums."""
        weight = self.weight.cpu().numpy().astype(np.float64, copy=False)  # stored as float32
        features, width = weight.shape
        proved = dense_sll_scaling(weight, ratios_of(self.log_ratios))
        return _through_sll(
            bounds,
            scaling_slack(proved, self.scaling),
            _ErrorTerms.of(np.abs(weight), self.bias_values, self.scaling, copies=1),
            reads=width,
            writes=features,
            unit_roundoff=unit_roundoff,
        )


def ratios_of(log_ratios: Float[np.ndarray, " F"]) -> Float64[np.ndarray, " F"]:
    """The p = exp(q) of this machine; out of range gives 0 or infinity, refused where T is made."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(log_ratios.astype(np.float64))


def scaling_slack(proved: Float64[np.ndarray, " F"], stored: Float64[np.ndarray, " F"]) -> float:
    """The eps >= 0 for which (1 + eps) times the stored T reaches the proved one, rounded up.

    Raises:
        CertificateError: a stored T is negative or not finite, or 0 where the weights are not.
    """
    if not (np.isfinite(stored).all() and (stored >= 0).all()):
        raise CertificateError("a stored T is negative or not finite")
    used = stored > 0
    if (proved[~used] > 0).any():
        raise CertificateError("a stored T is 0 where the row of weights is not")
    if not (proved > stored).any():
        return 0.0
    excess = (proved[used] - stored[used]) / stored[used]
    return inflate(float(excess.max()), 2)


@dataclass(frozen=True, eq=False)
class _ErrorTerms:
    """What a block's forward error is made of.

    Attributes:
        stretch: S, an upper bound of the norm of |W|^T T^-1 |W|.
        offset: beta, an upper bound of the norm of |W|^T T^-1 |b| at all places together.
        magnitude: |W|, (F, N).
        bias: |b|, (F,).
        inverse: 1 / T, (F,); 0 where T is 0.
        copies: places at which the block's bias is added.
    """

    stretch: float
    offset: float
    magnitude: Float64[np.ndarray, "F N"]
    bias: Float64[np.ndarray, " F"]
    inverse: Float64[np.ndarray, " F"]
    copies: int

    @classmethod
    def of(
        cls,
        magnitude: Float64[np.ndarray, "F N"],
        bias: Float[np.ndarray, " F"],
        scaling: Float64[np.ndarray, " F"],
        copies: int,
    ) -> "_ErrorTerms":
        """The terms of |W|, the bias b and T."""
        inverse = np.divide(1.0, scaling, out=np.zeros_like(scaling), where=scaling > 0)
        # A few Collatz-Wielandt steps: any number of them is a bound, more would not pay.
        root = nonnegative_norm_bound(np.sqrt(inverse)[:, None] * magnitude, tight=False)
        height = np.abs(bias.astype(np.float64))
        offset = euclidean_norm_bound(magnitude.T @ (inverse * height)) * math.sqrt(copies)
        return cls(root**2, offset, magnitude, height, inverse, copies)

    def underflow(self, reads: int, writes: int, unit_roundoff: float) -> float:
        """Upper bound of the l2 error where each sum and product loses the smallest normal number.

        A value of W x + b loses 2 reads + 2 of them, times 1 / T; the product one more; both times
        |W|^T; the second sum 2 writes + 3. Twice that covers the roundings on the way.
        """
        eta = smallest_normal(unit_roundoff)
        inner = 2.0 * (reads + 2) * self.inverse + 2.0
        lost = 2.0 * self.magnitude.T @ inner + 2.0 * (writes + 2)
        # eta first: the other factors may be far above 1, never so far that they overflow.
        return 4.0 * euclidean_norm_bound(eta * lost) * math.sqrt(self.copies)

    def largest(self, norm: float) -> float:
        """Upper bound, to a factor of 2, of every number and partial sum of a pass."""
        with np.errstate(over="ignore", invalid="ignore"):
            inner = self.magnitude.sum(axis=1) * norm + self.bias
            scaled = inner * self.inverse
            written = 2.0 * self.magnitude.T @ scaled + norm
        return float(np.concatenate((inner, scaled, written)).max(initial=0.0))


def _through_sll(
    bounds: ActivationBounds,
    slack: float,
    terms: _ErrorTerms,
    *,
    reads: int,
    writes: int,
    unit_roundoff: float,
) -> ActivationBounds:
    """The bounds behind an SLL block whose two sums have so many terms.

    On the way from x to 2 W^T T^-1 relu(W x + b) a number meets reads + 1 roundings in the first
    sum and its bias, at most three with 1 / T, writes in the second sum; relu is exact. The sum
    with x may be the start or the end of the second sum: writes + 1 roundings of x.
    """
    largest, limit = terms.largest(bounds.norm + bounds.error), largest_carried(unit_roundoff)
    if not largest <= limit:
        raise CertificateError(
            f"a block's numbers must stay below {limit:.3g} to be proved, and may reach {largest}"
        )
    path = gamma(reads + writes + 6, unit_roundoff)
    bound = 1.0 if slack == 0.0 else inflate(1.0 + 2.0 * slack, 2)
    return bounds.through(
        bound,
        offset=2.0 * terms.offset,
        relative=2.0 * path * terms.stretch + gamma(writes + 2, unit_roundoff),
        absolute=2.0 * path * terms.offset + terms.underflow(reads, writes, unit_roundoff),
    )
