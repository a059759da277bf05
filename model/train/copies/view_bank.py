# pyright: basic
# torch's types are loose.
"""Every training picture and its edited copies as the network sees them, made once and kept.

What the network sees is rounded to 8 bits here: a training input need not be exact, and floats
would take four times the room.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from model.data.pictures import PictureSet
from model.train.copies.part_store import PART, Counting, PartStore
from model.train.copies.views import edited, network_input
from model.train.distributed import World


class ViewBank:
    """The inputs of a training set: view 0 is the picture as it is, the others are edited."""

    def __init__(
        self,
        pictures: PictureSet,
        folder: Path,
        *,
        contents: str,
        size: int,
        seed: int,
        views: int,
        stacked_share: float,
    ) -> None:
        """Names where the inputs lie; `build` makes them.

        Args:
            pictures: to learn from.
            folder: where they are kept; other pictures, seeds or sizes have other names.
            contents: digest of the pictures, from `Survey`.
            size: side of the network's input.
            seed: of the views.
            views: edited copies of each picture.
            stacked_share: of them that are edited twice.
        """
        self._pictures, self._size = pictures, size
        self._seed, self._views, self._stacked_share = seed, views, stacked_share
        about = json.dumps([contents, size, seed, views, stacked_share])
        digest = hashlib.sha256(about.encode()).hexdigest()[:16]
        shape = (1 + views, 3, size, size)
        self._store = PartStore(folder, f"views-{digest}", len(pictures), shape, "uint8")
        self._parts: Sequence[UInt8[np.ndarray, "P V 3 S S"]] = ()

    def build(self, world: World, counting: Counting) -> None:
        """Makes the inputs that are not there yet, this process's share of them."""
        self._store.build(self._row, "edited copies", world, counting)

    def open(self) -> None:
        """Opens what was built.

        Raises:
            TrainingError: a part is missing or damaged.
        """
        self._parts = self._store.load(mapped=True)

    def inputs(
        self, pictures: Int64[np.ndarray, " B"], views: Int64[np.ndarray, " B"]
    ) -> UInt8[Tensor, "B 3 S S"]:
        """One view of each picture."""
        rows = [
            self._parts[picture // PART][picture % PART, view]
            for picture, view in zip(pictures, views, strict=True)
        ]
        return torch.from_numpy(np.stack(rows))

    def _row(self, place: int) -> UInt8[np.ndarray, "V 3 S S"]:
        pixels = self._pictures[place].pixels()
        seen = [pixels] + [
            edited(pixels, self._seed, place, view, self._stacked_share)
            for view in range(self._views)
        ]
        inputs = np.stack([network_input(one, self._size) for one in seen])
        return np.rint(255.0 * np.clip(inputs, 0.0, 1.0)).astype(np.uint8)
