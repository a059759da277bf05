# pyright: basic
# torch's types are loose; they are kept inside the files of layers and the network.
"""The layers of the wavelet network: shifted copies, wavelet levels, channel maps, head.

Activations lie as (channels, copies x images, side, side): a channel map is then one matrix
product, and so is a wavelet along an image's rows.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from model.certificate.bounds import (
    cholesky_norm_bound,
    euclidean_norm_bound,
    nonnegative_norm_bound,
    spectral_norm_bound,
    wavelet_norm_bound,
)
from model.certificate.rounding import gamma
from model.nets.error_propagation import ActivationBounds, Layer, carried
from model.nets.presets import WaveConfig

_COPIES = 5
_TAPS = 8


class ShiftedCopies(nn.Module):
    """x - 1/2 and four copies of it moved right, left, down and up, zeros moved in.

    With a shift of 0 it is x - 1/2 alone.

    Bound: 1, l2 to l2, for each copy. Proof: a constant shift, then a coordinate projection.
    Rounding: of the subtraction alone; nothing at all where a value is at least 1/4.
    """

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "3 N S S"]:
        """The copies of each image, copy-major in the second axis."""
        by, (images, channels, side, _) = self.shift, x.shape
        centred = (x - 0.5).transpose(0, 1)
        if not by:
            return centred.contiguous()
        copies = x.new_zeros(channels, _COPIES, images, side, side)
        copies[:, 0] = centred
        copies[:, 1, :, :, by:] = centred[..., :-by]
        copies[:, 2, :, :, :-by] = centred[..., by:]
        copies[:, 3, :, by:] = centred[..., :-by, :]
        copies[:, 4, :, :-by] = centred[..., by:, :]
        return copies.view(channels, -1, side, side)

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """Values in [0, 1] are at most 1/2 from 1/2: half the cube's norm."""
        centred = ActivationBounds(0.5 * bounds.norm, bounds.error, bounds.lipschitz_bound)
        return centred.through(relative=2.0 * unit_roundoff)


class WaveletLevel(nn.Module):
    """One level of a separable orthonormal wavelet, stride 2, zero padding, per channel.

    Along each axis the low- and the high-pass filter are one matrix (side, side), mostly zeros;
    products with structural zeros are exact and so is adding them, so a sum has at most 8 terms.

    Bound: the bank's, once an axis. Proof: the matrix is P W E, a submatrix of the bank on the
    infinite line; `wavelet_norm_bound` proves that one from the stored taps.
    """

    axis: Tensor
    axis_transposed: Tensor

    def __init__(self, lowpass: Float64[np.ndarray, " T"], side: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.filters = quadrature_filters(lowpass)
        self.matrix = filter_matrix(self.filters, side)
        self.register_buffer("axis", carried(self.matrix, dtype, "a wavelet's taps"))
        self.register_buffer(
            "axis_transposed", self.axis.T.clone(memory_format=torch.contiguous_format)
        )

    def forward(self, x: Float[Tensor, "C N S S"]) -> Float[Tensor, "C4 N s s"]:
        """The four sub-bands: low-low, then low-high, high-low, high-high (vertical first)."""
        channels, copies, side, half = *x.shape[:3], x.shape[2] // 2
        rows = (x.reshape(-1, side) @ self.axis_transposed).view(-1, side, side)
        bands = torch.matmul(self.axis, rows).view(channels, copies, 2, half, 2, half)
        return bands.permute(2, 4, 0, 1, 3, 5).reshape(4 * channels, copies, half, half)

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """The bank's bound and gamma_8 an axis (one more where the taps were cut to float32)."""
        bound = wavelet_norm_bound(self.filters)
        rounding = gamma(_TAPS + 1, unit_roundoff) * nonnegative_norm_bound(np.abs(self.matrix))
        for _ in range(2):
            bounds = bounds.through(bound, relative=rounding)
        return bounds


class ChannelMap(nn.Module):
    """A map between channels, then |y + b| on all channels but the first `kept`.

    Bound: the map's spectral norm; |y + b| is 1-Lipschitz. Proof: `spectral_norm_bound`, from the
    stored weights. Rounding: the product's and one addition; the absolute value is exact.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Float[np.ndarray, "O I"],
        bias: Float[np.ndarray, " M"],
        pixels: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.weight_values, self.bias_values, self.pixels = weight, bias, pixels
        self.kept = len(weight) - len(bias)
        self.register_buffer("weight", carried(weight, dtype, "a channel map's weights"))
        self.register_buffer("bias", torch.tensor(bias, dtype=dtype)[:, None])

    def forward(self, x: Float[Tensor, "I N s s"]) -> Float[Tensor, "O N s s"]:
        """The mapped channels, folded at their biases."""
        mapped = self.weight @ x.view(x.shape[0], -1)
        folded = mapped[self.kept :]
        folded += self.bias
        if torch.is_grad_enabled() and mapped.requires_grad:
            mapped = torch.cat([mapped[: self.kept], folded.abs()])
        else:
            folded.abs_()
        return mapped.view(-1, *x.shape[1:])

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """The map's bound, then the bias at every pixel."""
        offset = euclidean_norm_bound(self.bias_values) * self.pixels**0.5
        norm = spectral_norm_bound(self.weight_values)
        return _through_affine(bounds, self.weight_values, norm, offset, unit_roundoff)


class MeanChannelMap(ChannelMap):
    """The last channel map and the mean over the five copies.

    The mean commutes with the linear channels (those that are kept), which are therefore mapped
    once instead of five times; the others are folded copy by copy, then averaged.

    Bound: the map's; a mean of non-expansive maps is non-expansive. Proof: as the map's.
    Rounding: the map's, and five more for a mean, before the map or after it.
    """

    def forward(self, x: Float[Tensor, "I N s s"]) -> Float[Tensor, "O B s s"]:
        """The mapped channels, averaged."""
        copies = x.view(x.shape[0], _COPIES, -1)
        linear = self.weight[: self.kept] @ _mean(copies)
        folded = self.weight[self.kept :] @ x.view(x.shape[0], -1)
        folded += self.bias
        folded = folded.abs() if torch.is_grad_enabled() else folded.abs_()
        averaged = torch.cat([linear, _mean(folded.view(len(folded), _COPIES, -1))])
        return averaged.view(len(averaged), -1, *x.shape[2:])

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """A mean before and one after, of which each channel meets one."""
        mean = gamma(_COPIES + 1, unit_roundoff)
        return super().prove(bounds.through(relative=mean), unit_roundoff).through(relative=mean)


class Head(nn.Module):
    """A matrix, and an offset subtracted.

    Bound: the matrix's spectral norm. Proof: `cholesky_norm_bound`, from the stored weights.
    Rounding: the product's sums, one subtraction.
    """

    weight: Tensor
    offset: Tensor

    def __init__(
        self, weight: Float[np.ndarray, "D N"], offset: Float[np.ndarray, " D"], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.weight_values, self.offset_values = weight, offset
        self.register_buffer("weight", carried(weight, dtype, "the head's weights"))
        self.register_buffer("offset", torch.tensor(offset, dtype=dtype))

    def forward(self, x: Float[Tensor, "C B s s"]) -> Float[Tensor, "B D"]:
        """One embedding an image; the features are flattened channel-major."""
        features = x.transpose(0, 1).reshape(x.shape[1], -1)
        return features @ self.weight.T - self.offset

    def prove(self, bounds: ActivationBounds, unit_roundoff: float) -> ActivationBounds:
        """The matrix's bound, then the offset."""
        offset = euclidean_norm_bound(self.offset_values)
        norm = cholesky_norm_bound(self.weight_values)
        return _through_affine(bounds, self.weight_values, norm, offset, unit_roundoff)


def _through_affine(
    bounds: ActivationBounds,
    weight: Float[np.ndarray, "O I"],
    norm: float,
    offset: float,
    unit_roundoff: float,
) -> ActivationBounds:
    """Behind a product with a matrix of this spectral norm, and a sum with so long an offset."""
    stretch = nonnegative_norm_bound(np.abs(weight.astype(np.float64)), tight=False)
    product = bounds.through(norm, relative=gamma(weight.shape[1], unit_roundoff) * stretch)
    return product.through(
        offset=offset, relative=2.0 * unit_roundoff, absolute=2.0 * unit_roundoff * offset
    )


def rotate_head(
    weight: Float[np.ndarray, "D N"], offset: Float[np.ndarray, " D"]
) -> tuple[Float32[np.ndarray, "D N"], Float32[np.ndarray, " D"]]:
    """The same head behind a rotation of the embedding after which its rows are orthogonal.

    Norms, cosines and ranks of embeddings stay, up to the rounding to float32; rows come in the
    order of their lengths, and the largest entry of each is positive.
    """
    left, lengths, rows = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    largest = np.abs(rows).argmax(axis=1)
    signs = np.sign(rows[np.arange(len(rows)), largest])
    rotated = (lengths * signs)[:, None] * rows
    moved = signs * (left.T @ offset.astype(np.float64))
    return rotated.astype(np.float32), moved.astype(np.float32)


def wave_specs(config: WaveConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and numpy dtype of every stored tensor, by name."""
    specs: dict[str, tuple[tuple[int, ...], str]] = {"wavelet.lowpass": ((_TAPS,), "float64")}
    for s, (entering, outputs) in enumerate(zip(config.stage_inputs, config.maps, strict=True)):
        inputs = 4 * entering
        for j, width in enumerate(outputs):
            specs[f"stages.{s}.maps.{j}.weight"] = ((width, inputs), "float32")
            specs[f"stages.{s}.maps.{j}.bias"] = ((width - entering,), "float32")
            inputs = width
    specs["head.weight"] = ((config.embedding_dim, config.head_inputs), config.head_dtype)
    specs["head.offset"] = ((config.embedding_dim,), "float32")
    return specs


def wave_layers(
    config: WaveConfig, weights: Mapping[str, Float[np.ndarray, "..."]], dtype: torch.dtype
) -> list[Layer]:
    """The network's layers in the order they run."""
    layers: list[Layer] = [ShiftedCopies(config.shift)]
    side = config.input_size
    for s, outputs in enumerate(config.maps):
        layers.append(WaveletLevel(weights["wavelet.lowpass"], side, dtype))
        side //= 2
        for j in range(len(outputs)):
            is_last = (s, j) == (len(config.maps) - 1, len(outputs) - 1)
            kind = MeanChannelMap if is_last and config.shift else ChannelMap
            weight, bias = (weights[f"stages.{s}.maps.{j}.{part}"] for part in ("weight", "bias"))
            layers.append(kind(weight, bias, side**2, dtype))
    return [*layers, Head(weights["head.weight"], weights["head.offset"], dtype)]


def _mean(copies: Float[Tensor, "C K N"]) -> Float[Tensor, "C N"]:
    """The mean over the copies: four additions and a division."""
    return copies.sum(dim=1) / _COPIES


def quadrature_filters(lowpass: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, "2 T"]:
    """The low-pass filter h and its high-pass mirror g[n] = (-1)^n h[T - 1 - n]."""
    signs = (-1.0) ** np.arange(len(lowpass))
    return np.stack([lowpass, signs * lowpass[::-1]])


def filter_matrix(filters: Float64[np.ndarray, "F T"], side: int) -> Float64[np.ndarray, "O S"]:
    """Correlation with each filter at stride 2, zeros beyond the ends, as one matrix.

    Row a * side/2 + k reads the signal from 2 k - (T/2 - 1) with filter a.
    """
    count, taps = filters.shape
    padding = taps // 2 - 1
    rows = np.zeros((count, side // 2, side + 2 * padding))
    for k in range(side // 2):
        rows[:, k, 2 * k : 2 * k + taps] = filters
    return rows[:, :, padding : padding + side].reshape(-1, side)
