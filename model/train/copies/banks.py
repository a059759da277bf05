# pyright: basic
"""Training pictures and their edited copies as a task sees them, computed once and kept.

Either the features of a frozen front, in a principal basis, or the network's inputs in 8 bits: a
training input need not be exact, and floats would take four times the room.
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from model.data.pictures import evenly
from model.train.copies.closed_form import principal_basis
from model.train.copies.material import Material, network_inputs
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import progress
from model.train.part_store import PartStore, digest_of

_PER_PASS = 32
_BASIS_ROWS = 3072
"""Rows the basis is taken from; their Gram matrix is what is decomposed."""


def input_bank(material: Material, size: int) -> UInt8[np.ndarray, "P V 3 S S"]:
    """Inputs of every training picture, as it is first, and of its edited copies, memory-mapped."""
    seed, settings = material.config.seed, material.settings

    def row(place: int) -> UInt8[np.ndarray, "V 3 S S"]:
        inputs = network_inputs(material.copies(place, settings.views), size)
        return np.rint(255.0 * np.clip(inputs, 0.0, 1.0)).astype(np.uint8)

    about = (material.contents, size, seed, settings.views, settings.stacked_share)
    name, shape = f"inputs-{digest_of(*about)}", (1 + settings.views, 3, size, size)
    store = PartStore(material.folder / "inputs", name, len(material.training), shape, "uint8")
    return store.build(row, "edited copies", material.device)


def feature_bank(
    front: WaveStudent, material: Material
) -> tuple[Float[Tensor, "N K"], Float[Tensor, " N"], Float16[np.ndarray, "P V K"]]:
    """Features of every training picture, as it is first, and of its edited copies.

    Of the front the maps are used, not the head. There are fewer directions than the settings say
    where so many cannot be told apart.

    Returns:
        Basis: principal directions, orthonormal columns. Centre: mean of the features. Rows: of
        all pictures in this basis about this centre, memory-mapped.
    """
    front.eval()
    pictures, seed, settings = material.training, material.config.seed, material.config.copies

    def features(place: int, views: int) -> Float[Tensor, "V N"]:
        seen = material.copies(place, views)
        return features_of(front, network_inputs(seen, front.config.input_size))

    places = evenly(len(pictures), _BASIS_ROWS // 2)
    shown = progress().counting("features that the basis is taken from", places, len(places))
    some = torch.cat([features(place, 1) for place in shown])
    centre = some.mean(dim=0)
    basis = _row_space(some - centre, settings.head_basis)

    def row(place: int) -> Float16[np.ndarray, "V K"]:
        return ((features(place, settings.views) - centre) @ basis).half().numpy()

    weights = [
        hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()
        for tensor in front.state_dict().values()
    ]
    about = [material.contents, seed, settings.views, settings.stacked_share, *basis.shape]
    name, shape = f"features-{digest_of(weights, about)}", (1 + settings.views, basis.shape[1])
    store = PartStore(material.folder / "features", name, len(pictures), shape, "float16")
    return basis, centre, store.build(row, "features", material.device)


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
