# pyright: basic
"""How the default model's task, `copies`, is built: a head on a frozen front.

The front is a scattering network, or that of a checkpoint. The head starts from its closed form and
is trained in a principal basis of the front's features, which never change: they are computed once,
and a step costs two small matrix products instead of a pass through the network.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor
from torch.nn import functional

from model.data.pictures import PictureSet, evenly
from model.pixels.views import VIEW_SETS
from model.train.config import CopiesSettings, TrainConfig
from model.train.copies.closed_form import (
    covariance_of,
    discriminant,
    fit_narrowing_maps,
    least_moved,
    principal_basis,
)
from model.train.copies.draws import kind_probabilities
from model.train.copies.head_student import HeadStudent
from model.train.copies.material import (
    Material,
    gathered,
    network_inputs,
    validation_inputs,
    wave_student,
)
from model.train.copies.task import CopiesTask
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import progress
from model.train.part_store import PartStore, digest_of
from model.train.student import Student
from model.train.task import Sources

_FITTED_ON = 512
"""Pictures that the narrowing maps of a fresh front are fitted to."""

_BASIS_ROWS = 3072
"""Rows the basis is taken from; their Gram matrix is what is decomposed."""

_PER_PASS = 32


def build(config: TrainConfig, sources: Sources) -> tuple[Student, CopiesTask]:
    """The student, its head in closed form, and the task."""
    front, start = wave_student(config, sources)
    material = gathered(config, sources, start)
    if start is None:
        _fit(front, material.training)
    front.to(material.device)
    basis, centre, bank = _feature_bank(front, material)
    rows = np.array(bank)  # float16, in memory: a step reads a thousand places
    progress().step("solving for the head in closed form")
    views = VIEW_SETS[config.copies.gallery_views]
    shares = kind_probabilities(config.copies.kind_weights, material.kinds)
    closed_form = _closed_form(
        config.copies,
        torch.from_numpy(rows),
        torch.from_numpy(shares),
        len(views),
        front.config.embedding_dim,
    )
    student = HeadStudent(front, basis, centre, *closed_form)
    *inputs, originals = validation_inputs(material, front.config.input_size, views)
    plain, queries = (((_features_of(front, some) - centre) @ basis).cpu() for some in inputs)
    return student, CopiesTask(material, rows, (plain, queries, originals), len(views))


def _fit(front: WaveStudent, training: PictureSet) -> None:
    """Fits a scattering network's narrowing maps to some pictures."""
    places = evenly(len(training), _FITTED_ON)
    shown = progress().counting("fitting the channel maps", places, len(places))
    inputs = network_inputs((training[place].pixels() for place in shown), front.config.input_size)
    fit_narrowing_maps(front, torch.from_numpy(inputs))


def _closed_form(
    settings: CopiesSettings, rows: Tensor, shares: Tensor, views: int, dim: int
) -> tuple[Tensor, Tensor]:
    """Head and offset from the bank's rows of each picture: its views, then edited copies.

    Pictures count as often as they will be drawn, by their shares. Which view is nearest to a copy
    is told by the head before: as the features are, then twice behind what was fitted.

    Where so few pictures have fewer directions than an embedding has numbers, the rest are 0.
    """
    places = evenly(len(rows), 4096)
    some, shares = rows[places].float(), shares[places] / shares[places].sum()
    seen, copies, plain = some[:, :views], some[:, views:], some[:, 0]
    total, rank = covariance_of(plain, shares), min(dim, rows.shape[2])
    scales = settings.within_scale, settings.total_scale
    of_copies = shares.repeat_interleave(copies.shape[1]) / copies.shape[1]

    def fitted(edits: Tensor) -> Tensor:
        within = edits.T.double() @ (of_copies[:, None] * edits.double())
        return discriminant(within, total, rank, *scales).float()

    mix = fitted(least_moved(seen, copies, None))
    for _ in range(2 if views > 1 else 0):
        mix = fitted(least_moved(seen, copies, mix))
    mix = functional.pad(mix, (0, 0, 0, dim - len(mix)))
    return mix, mix @ (shares @ plain.double()).float()


def _feature_bank(
    front: WaveStudent, material: Material
) -> tuple[Float[Tensor, "N K"], Float[Tensor, " N"], Float16[np.ndarray, "P V K"]]:
    """Features of the views of every training picture, as it is first, and of its edited copies.

    Of the front the maps are used, not the head. There are fewer directions than the settings say
    where so many cannot be told apart.

    Returns:
        Basis: principal directions, orthonormal columns. Centre: mean of the features. Rows: of
        all pictures in this basis about this centre, memory-mapped.
    """
    front.eval()
    pictures, seed, settings = material.training, material.config.seed, material.config.copies
    gallery_views = VIEW_SETS[settings.gallery_views]

    def features(
        place: int, copies: int, gallery_views: Sequence[str] = ("whole",)
    ) -> Float[Tensor, "V N"]:
        seen = material.copies(place, copies, gallery_views)
        return _features_of(front, network_inputs(seen, front.config.input_size))

    places = evenly(len(pictures), _BASIS_ROWS // 2)
    shown = progress().counting("features that the basis is taken from", places, len(places))
    some = torch.cat([features(place, 1) for place in shown])
    centre = some.mean(dim=0)
    basis = _row_space((some - centre).cpu(), settings.head_basis).to(centre)

    def row(place: int) -> Float16[np.ndarray, "V K"]:
        return (
            ((features(place, settings.views, gallery_views) - centre) @ basis).half().cpu().numpy()
        )

    weights = [
        hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()
        for tensor in front.state_dict().values()
    ]
    about = [material.contents, seed, settings.views, settings.stacked_share, *basis.shape]
    about += gallery_views[1:]
    name = f"features-{digest_of(weights, about)}"
    shape = len(gallery_views) + settings.views, basis.shape[1]
    store = PartStore(material.folder / "features", name, len(pictures), shape, "float16")
    return basis, centre, store.build(row, "features", material.device)


def _features_of(front: WaveStudent, inputs: Float[np.ndarray, "B 3 S S"]) -> Float[Tensor, "B N"]:
    """A front's features, on its device, without gradients, a few inputs at a time."""
    with torch.no_grad():
        parts = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)).split(_PER_PASS)
        return torch.cat([front.features(part.to(front.head.device)) for part in parts])


def _row_space(rows: Float[Tensor, "M N"], dim: int) -> Float[Tensor, "N K"]:
    """Principal directions of centred rows, from their Gram matrix: there are fewer rows than N."""
    gram = rows.double() @ rows.double().T
    most = min(dim, len(rows) - 1, rows.shape[1])
    weights = principal_basis(gram, most)
    directions = rows.double().T @ weights
    # One QR makes them orthonormal to rounding; their span and order stay.
    q, r = torch.linalg.qr(directions)
    return (q * r.diagonal().sign()).float()
