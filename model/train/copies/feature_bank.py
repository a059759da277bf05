# pyright: basic
# torch's types are loose.
"""Features of every training picture and of its edited copies, computed once and kept."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from model.data.pictures import PictureSet
from model.train.copies.closed_form import principal_basis
from model.train.copies.part_store import Counting, PartStore
from model.train.copies.views import edited, network_input
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import World
from model.train.sampling import evenly
from model.train.telling import telling

_PER_PASS = 32
_BASIS_ROWS = 3072
"""Rows the basis is taken from; their Gram matrix is what is decomposed."""


class FeatureBank:
    """Where the features of a front lie: (pictures, 1 + views, K), the picture as it is first.

    Attributes:
        centre: mean of the features, (N,).
        basis: principal directions about it, orthonormal columns, (N, K).
    """

    def __init__(
        self,
        front: WaveStudent,
        pictures: PictureSet,
        folder: Path,
        *,
        contents: str,
        seed: int,
        views: int,
        stacked_share: float,
        dim: int,
    ) -> None:
        """Takes the basis from some of the pictures; `build` does the rest.

        Args:
            front: its maps are used, its head is not.
            pictures: to learn from.
            folder: where parts are kept; another front, set or seed has other names.
            contents: digest of the pictures, from `Survey`.
            seed: of the views.
            views: edited copies of each picture.
            stacked_share: of them that are edited twice.
            dim: K; fewer where so many directions cannot be told apart.
        """
        self._front, self._pictures = front.eval(), pictures
        self._seed, self._views, self._stacked_share = seed, views, stacked_share
        self._contents = contents
        places = evenly(len(pictures), _BASIS_ROWS // 2)
        told = telling().counting("features that the basis is taken from", places, len(places))
        rows = torch.cat([self._features(place, copies=1) for place in told])
        self.centre = rows.mean(dim=0)
        self.basis = _row_space(rows - self.centre, dim)
        shape = (1 + views, self.basis.shape[1])
        stem = f"features-{self._digest()}"
        self._store = PartStore(folder, stem, len(pictures), shape, "float16")

    def build(self, world: World, counting: Counting) -> None:
        """Computes the parts that are not there yet, this process's share of them."""
        self._store.build(self._row, "features", world, counting)

    def load(self) -> Float16[np.ndarray, "P V K"]:
        """All rows, in the order of the pictures.

        Raises:
            TrainingError: a part is missing or damaged.
        """
        return np.concatenate(self._store.load())

    def _digest(self) -> str:
        """Of everything the features depend on."""
        digest = hashlib.sha256()
        for tensor in self._front.state_dict().values():
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        about = [self._contents, self._seed, self._views, self._stacked_share]
        digest.update(json.dumps([*about, list(self.basis.shape)]).encode())
        return digest.hexdigest()[:16]

    def _row(self, place: int) -> Float16[np.ndarray, "V K"]:
        features = self._features(place, copies=self._views)
        return ((features - self.centre) @ self.basis).half().numpy()

    def _features(self, place: int, copies: int) -> Float[Tensor, "V N"]:
        """Features of a picture as it is and of its first edited copies."""
        pixels = self._pictures[place].pixels()
        size = self._front.config.input_size
        seen = [pixels] + [
            edited(pixels, self._seed, place, view, self._stacked_share) for view in range(copies)
        ]
        return features_of(self._front, np.stack([network_input(one, size) for one in seen]))


def features_of(front: WaveStudent, inputs: Float[np.ndarray, "B 3 S S"]) -> Float[Tensor, "B N"]:
    """A front's features, without gradients, a few inputs at a time."""
    with torch.no_grad():
        parts = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)).split(_PER_PASS)
        return torch.cat([front.features(part) for part in parts])


def _row_space(rows: Float[Tensor, "M N"], dim: int) -> Float[Tensor, "N K"]:
    """Principal directions of centred rows, from their Gram matrix: there are fewer rows than N."""
    gram = rows.double() @ rows.double().T
    most = min(dim, len(rows) - 1, rows.shape[1])
    weights = principal_basis(gram, most)
    directions = rows.double().T @ weights
    # One QR makes them orthonormal to rounding; their span and order stay.
    q, r = torch.linalg.qr(directions)
    return (q * r.diagonal().sign()).float()
