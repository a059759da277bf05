# pyright: basic
"""The wavelet network as a trainable module: it stays 1-Lipschitz by projection after each step.

A step may leave the set of orthonormal channel maps, and of heads of norm 1; `constrain` puts the
weights back on it. An average of such weights is projected likewise, so every network that is
validated, kept or exported is one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from model.cli.libraries import import_foreign
from model.nets.presets import WaveConfig
from model.nets.wave import ShiftedCopies, WaveletLevel, rotate_head, wave_specs
from model.train.student import Student

# What rounding a head to its stored format adds to the norm stays below 1.
HEAD_NORM = 0.9995

_MOST_PRODUCTS = 30


class WaveStudent(Student):
    """The network of a `WaveConfig`, every weight of it trained, or the head alone.

    Activations lie as in `model.nets.wave`: (channels, copies x images, side, side).
    """

    config: WaveConfig
    export_tolerance = 2e-3  # the head may be rounded to float16
    exports_rotated = True

    def __init__(self, config: WaveConfig, weights: Mapping[str, Float[np.ndarray, "..."]]) -> None:
        """Starts from the tensors of `model.nets.wave.wave_specs`."""
        super().__init__()
        self.config = config
        self._lowpass = np.asarray(weights["wavelet.lowpass"], dtype=np.float64)
        self.copies = ShiftedCopies(config.shift)
        sides = [config.input_size >> stage for stage in range(len(config.maps))]
        self.levels = nn.ModuleList(
            WaveletLevel(self._lowpass, side, torch.float32) for side in sides
        )
        self.maps, self.biases = nn.ParameterList(), nn.ParameterList()
        for name in _map_names(config):
            self.maps.append(_parameter(weights[f"{name}.weight"]))
            self.biases.append(_parameter(weights[f"{name}.bias"]))
        self.head = _parameter(weights["head.weight"])
        self.offset = _parameter(weights["head.offset"])

    def features(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B N"]:
        """What the head reads: the mean over the five copies, flattened channel-major."""
        images = len(x)
        x = self._through(x, len(self.maps))
        channels = len(x)
        x = x.float().view(channels, -1, images, x.shape[-1] ** 2).mean(dim=1)
        return x.transpose(0, 1).reshape(images, -1)

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Raw embeddings."""
        return self.in_parts(self.features, x) @ self.head.T - self.offset

    def entering(self, x: Float[Tensor, "B 3 S S"], layer: int) -> Float[Tensor, "C M"]:
        """What a channel map reads: its input channels, at every place of every copy."""
        x = self._through(x, layer)
        return x.reshape(len(x), -1)

    @torch.no_grad()
    def constrain(self) -> None:
        """Projects each map to the nearest orthonormal one; scales the head to its norm."""
        for weight in self.maps:
            weight.copy_(orthonormalised(weight))
        scale_head(self.head, self.offset)

    def export(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The tensors of `wave_specs`."""
        return self.export_with(self.head.detach(), self.offset.detach())

    def export_with(
        self, head: Float[Tensor, "D N"], offset: Float[Tensor, " D"]
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """The tensors with another head, rotated so that a bound for each number can be proved.

        Maps are projected once more in float64 before they are rounded.
        """
        tensors: dict[str, Float[np.ndarray, ...]] = {"wavelet.lowpass": self._lowpass}
        for name, weight, bias in zip(_map_names(self.config), self.maps, self.biases, strict=True):
            orthonormal = nearest_orthonormal(weight.detach().double())
            tensors[f"{name}.weight"] = _array(orthonormal, np.float32)
            tensors[f"{name}.bias"] = _array(bias, np.float32)
        tensors["head.weight"], tensors["head.offset"] = rotate_head(
            _array(head, np.float64), _array(offset, np.float64)
        )
        return {
            name: tensors[name].astype(wanted)
            for name, (_, wanted) in wave_specs(self.config).items()
        }

    def _through(self, x: Float[Tensor, "B 3 S S"], layers: int) -> Float[Tensor, "C N s s"]:
        """The first so many channel maps, and every wavelet level before the next one."""
        layer = 0
        with self.arithmetic(x):
            x = self.copies(x)
            for level, outputs in zip(self.levels, self.config.maps, strict=True):
                x = level(x)
                for _ in outputs:
                    if layer == layers:
                        return x
                    x = self._fold(x, layer)
                    layer += 1
        return x

    def _fold(self, x: Float[Tensor, "I N s s"], layer: int) -> Float[Tensor, "O N s s"]:
        """One channel map, then |y + b| on all channels but those that entered the stage."""
        weight, bias = self.maps[layer], self.biases[layer]
        mapped = weight @ x.reshape(len(x), -1)
        kept = len(weight) - len(bias)
        folded = (mapped[kept:] + bias[:, None]).abs()
        return torch.cat([mapped[:kept], folded.to(mapped.dtype)]).view(-1, *x.shape[1:])


def initial_weights(config: WaveConfig) -> dict[str, Float[np.ndarray, "..."]]:
    """A scattering network: sym4 wavelets, |x| on their details, maps that mix nothing yet.

    A map that narrows and the head keep their first channels: fit them to pictures
    (`model.train.copies.closed_form`) before anything is asked of the network.

    Source: Mallat 2012, arXiv:1101.2286, for the scattering transform.
    """
    weights: dict[str, Float[np.ndarray, ...]] = {
        name: (np.eye(shape[0], shape[1]) if name.endswith(".weight") else np.zeros(shape)).astype(
            dtype
        )
        for name, (shape, dtype) in wave_specs(config).items()
    }
    head = weights["head.weight"] * HEAD_NORM
    return weights | {"wavelet.lowpass": sym4_lowpass(), "head.weight": head}


def sym4_lowpass() -> Float64[np.ndarray, " 8"]:
    """The eight taps of the sym4 wavelet's low-pass filter."""
    return np.array(require_wavelets().Wavelet("sym4").dec_lo, dtype=np.float64)


def require_wavelets() -> Any:
    """The library of wavelets; asked for before a long run, it says in time that there is none."""
    return import_foreign("pywt", "a fresh wavelet network", "PyWavelets", "train")


def nearest_orthonormal(weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
    """The matrix with orthonormal rows (columns, if it is tall) nearest to this one, l2.

    Source: the polar factor; Higham 1986, doi:10.1137/0907079.
    """
    # In float64: all singular values are nearly 1 here, and float32's LAPACK once gave an error for
    # such a map, and once NaN.
    u, _, v = torch.linalg.svd(weight.double(), full_matrices=False)
    return (u @ v).to(weight)


def orthonormalised(weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
    """The same matrix to float32's rounding, by products alone: fast after a small step.

    X becomes (3 X - X X^T X) / 2, which squares the error once singular values are near 1.

    Source: Bjorck and Bowie 1971, doi:10.1137/0708036.
    """
    x = weight if weight.shape[0] <= weight.shape[1] else weight.T
    gram = x @ x.T
    identity = torch.eye(len(x)).to(x)
    off = float(torch.linalg.matrix_norm(gram - identity, torch.inf))
    if off >= 1.0:  # first, all singular values must be at most 1
        size = torch.linalg.matrix_norm(gram, torch.inf)
        x, gram = x / size.sqrt(), gram / size
    for _ in range(_MOST_PRODUCTS):
        x = 1.5 * x - 0.5 * (gram @ x)
        if off < 1e-3:  # before this product; the error is now three quarters of its square
            return x if weight.shape[0] <= weight.shape[1] else x.T
        gram = x @ x.T
        off = float(torch.linalg.matrix_norm(gram - identity, torch.inf))
    return nearest_orthonormal(weight)  # of nearly dependent rows


@torch.no_grad()
def scale_head(weight: Float[Tensor, "D N"], offset: Float[Tensor, " D"]) -> None:
    """Scales a head in place to spectral norm HEAD_NORM: cosines and radii stay as they are.

    The norm is that of the small Gram matrix, in float64; what float32 loses, the proof covers.
    """
    gram = weight.double() @ weight.double().T
    scale = (HEAD_NORM / torch.linalg.eigvalsh(gram)[-1].sqrt()).to(weight)
    weight.mul_(scale)
    offset.mul_(scale)


def _map_names(config: WaveConfig) -> list[str]:
    """Every channel map in the order they run."""
    weights = [name for name in wave_specs(config) if name.endswith(".weight")]
    return [name.removesuffix(".weight") for name in weights if name.startswith("stages.")]


def _parameter(values: Float[np.ndarray, "..."]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32))


def _array(values: Tensor, dtype: type) -> Float[np.ndarray, "..."]:
    return values.detach().cpu().numpy().astype(dtype)
