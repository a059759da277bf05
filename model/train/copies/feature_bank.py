# pyright: basic
# torch's types are loose.
"""Features of every training picture and of its edited copies, computed once and kept.

Parts of a few hundred pictures are written aside and renamed, so an interrupted bank is gone on
with; several processes share the parts between them.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from model.data.pictures import PictureSet
from model.errors import TrainingError
from model.train.copies.closed_form import principal_basis
from model.train.copies.views import edited, network_input
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import World
from model.train.run_state import replacing
from model.train.sampling import evenly

PART = 256
_PER_PASS = 32
_BASIS_ROWS = 3072
"""Rows the basis is taken from; their Gram matrix is what is decomposed."""

Counting = Callable[[str, Iterable[int], int], Iterable[int]]


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
        *,
        seed: int,
        views: int,
        stacked_share: float,
        dim: int,
    ) -> None:
        """Takes the basis from some of the pictures; `build` does the rest.

        Args:
            front: its maps are used, its head is not.
            pictures: to learn from.
            seed: of the views.
            views: edited copies of each picture.
            stacked_share: of them that are edited twice.
            dim: K; fewer where so many directions cannot be told apart.
        """
        self._front, self._pictures = front.eval(), pictures
        self._seed, self._views, self._stacked_share = seed, views, stacked_share
        rows = torch.cat(
            [self._features(place, copies=1) for place in evenly(len(pictures), _BASIS_ROWS // 2)]
        )
        self.centre = rows.mean(dim=0)
        self.basis = _row_space(rows - self.centre, dim)

    def build(self, folder: Path, world: World, counting: Counting) -> None:
        """Computes the parts that are not there yet, this process's share of them.

        Args:
            folder: where parts are kept; another front, set or seed has other names.
            world: this process's place.
            counting: passes numbers through, and shows how many have passed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        missing = [
            part
            for part in list(range(self._parts))[world.rank :: world.size]
            if not self._path(folder, part).exists()
        ]
        if not missing:
            return
        for part in counting("features, parts of 256 pictures", missing, len(missing)):
            places = range(part * PART, min((part + 1) * PART, len(self._pictures)))
            rows = np.stack([self._row(place) for place in places])
            with replacing(self._path(folder, part)) as aside, aside.open("wb") as file:
                np.save(file, rows, allow_pickle=False)

    def load(self, folder: Path) -> Float16[np.ndarray, "P V K"]:
        """All parts, in the order of the pictures.

        Raises:
            TrainingError: a part is missing or damaged.
        """
        wanted = (1 + self._views, self.basis.shape[1])
        parts: list[Any] = []
        for part in range(self._parts):
            path = self._path(folder, part)
            try:
                parts.append(np.load(path, allow_pickle=False))
            except (OSError, ValueError, EOFError) as exc:
                raise TrainingError(f"{path} cannot be read, delete it and go on: {exc}") from exc
            if parts[-1].shape[1:] != wanted:
                raise TrainingError(f"{path} must hold rows of {wanted}, got {parts[-1].shape}")
        return np.concatenate(parts)

    @property
    def _parts(self) -> int:
        return -(-len(self._pictures) // PART)

    def _path(self, folder: Path, part: int) -> Path:
        return folder / f"features-{self._digest()}-{part:05d}.npy"

    def _digest(self) -> str:
        """Of everything the features depend on."""
        digest = hashlib.sha256()
        for tensor in self._front.state_dict().values():
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        about = [list(self._pictures.ids), self._seed, self._views, self._stacked_share]
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
