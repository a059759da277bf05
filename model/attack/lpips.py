# pyright: basic
# Neither torch nor the package has types.
"""LPIPS as a map to vectors whose squared Euclidean distance it is.

LPIPS sums, over layers, the weighted squared differences of unit features, averaged over places.
So each layer's unit features times the root of their weights and over the root of the number of
places, all end to end, make a vector v; and LPIPS is the squared distance of two of these.

A search compares by cosine. It ranks by LPIPS all the same if a query is (v, 1, 0) and an entry
(v, -|v|^2 / 2, c) with c such that all entries are of one length: their product is
(|q|^2 - |q - v|^2) / 2, and |q|^2 is the same for all entries.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from model.cli.libraries import import_foreign
from model.errors import MetricError
from model.metrics.metric import Pixels, squares
from model.teachers.weights import read_tensors

PREFIX = "lpips:"
TRUNKS = ("alex", "vgg", "squeeze")
_SIDE = 64
_PICTURES_PER_PASS = 8
# What the package adds to a norm before it divides by it.
_EPSILON = 1e-10


class LpipsMetric:
    """LPIPS behind our own resize; it computes in float32.

    Attributes:
        name: "lpips:" and the trunk, with @ and the side.
        is_squared: True: its distance is the squared one of two vectors, not 1 - cosine.
        dim: length of a vector.
        input_size: side of the square, pixels.
        lipschitz_bound: None.
        forward_error: 0.

    Source: Zhang et al. 2018, arXiv:1801.03924, as the package lpips computes it, version 0.1.
    """

    is_squared = True
    lipschitz_bound = None
    forward_error = 0.0

    def __init__(self, name: str, model: Any, *, input_size: int = _SIDE) -> None:
        """A metric of a module `lpips.LPIPS`: its scaling_layer, net and lins."""
        self.name, self.input_size = f"{PREFIX}{name}@{input_size}", input_size
        self._model = model.eval().requires_grad_(requires_grad=False)
        for parameter in model.lins.parameters():
            if (parameter < 0.0).any():
                raise MetricError(f"{self.name}: a weight of a difference is negative")
        with torch.no_grad():
            self.dim = self.network(torch.zeros(1, 3, input_size, input_size)).shape[1]

    def network(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Vectors of squares in [0, 1], as queries are: v, 1 and 0."""
        layers = self._model.net(self._model.scaling_layer(2.0 * x.float() - 1.0))
        parts = [
            _weighted(features, lin) for features, lin in zip(layers, self._model.lins, strict=True)
        ]
        ends = torch.tensor([[1.0, 0.0]], device=x.device).expand(len(x), 2)
        return torch.cat([*parts, ends], dim=1).to(x.dtype)

    def embed(self, pictures: Sequence[Pixels]) -> Float64[np.ndarray, "N D"]:
        """Vectors of pictures, as queries are."""
        device = next(self._model.parameters()).device
        vectors = np.empty((len(pictures), self.dim))
        for start in range(0, len(pictures), _PICTURES_PER_PASS):
            part = slice(start, start + _PICTURES_PER_PASS)
            with torch.inference_mode():
                x = torch.from_numpy(squares(pictures[part], self.input_size)).to(device)
                vectors[part] = self.network(x).cpu().numpy()
        return vectors

    def rows(self, vectors: Float64[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
        """Queries' vectors as a gallery's entries, all of length 1."""
        squared = (vectors[:, :-2] ** 2).sum(axis=1)
        lengths = squared + squared**2 / 4.0
        entries = vectors.copy()
        entries[:, -2] = -squared / 2.0
        entries[:, -1] = np.sqrt(lengths.max() - lengths)
        return (entries / np.sqrt(lengths.max())).astype(np.float32)


def load_lpips(spec: str, *, weights: Path | None = None, device: str = "cpu") -> LpipsMetric:
    """LPIPS by the package lpips, which carries the weights of the differences.

    Args:
        spec: lpips:TRUNK or lpips:TRUNK@SIDE; the side of the square is 64 if not given.
        weights: the trunk's classifier as torchvision publishes it; its features are taken.
        device: a torch device.

    Raises:
        MetricError: the spec is none, or the weights are missing or another network's.
        DependencyError: the package, or torchvision, cannot be imported.
    """
    trunk, at, side = spec.removeprefix(PREFIX).partition("@")
    if trunk not in TRUNKS or (at and not side.isdecimal()):
        raise MetricError(f"lpips:{'|'.join(TRUNKS)}[@SIDE] was wanted, got {spec!r}")
    if weights is None:
        raise MetricError(f"{spec} needs --weights FILE, torchvision's weights of its trunk")
    lpips = import_foreign("lpips", spec, "lpips", "teachers")
    # A random trunk, so that nothing is downloaded; its weights come from the file.
    model = lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
    state = read_tensors(weights)
    for name, parameter in model.net.named_parameters():
        # The package cuts the trunk into slices that keep the numbers of its layers.
        wanted = f"features.{name.partition('.')[2]}"
        if wanted not in state or state[wanted].shape != parameter.shape:
            raise MetricError(f"{weights} does not fit {spec}: no {wanted} of {parameter.shape}")
        parameter.data.copy_(state[wanted])
    return LpipsMetric(trunk, model.to(device), input_size=int(side) if side else _SIDE)


def _weighted(features: Float[Tensor, "B C H W"], lin: Any) -> Float[Tensor, "B _"]:
    """Unit features at each place, times the roots of their weights, over the root of places."""
    # The tiny number gives features that are all zero a gradient; it changes no other's value.
    norms = torch.sqrt((features**2).sum(dim=1, keepdim=True) + 1e-24) + _EPSILON
    roots = lin.model[-1].weight.sqrt() / math.sqrt(features.shape[2] * features.shape[3])
    return (features / norms * roots).flatten(1)
