# pyright: basic
"""What needs no gradient: principal channels where a map narrows, and a discriminant head.

The head is A = (I + Sw / kw^2 + St / kt^2)^(-1/2), cut to its leading directions, where Sw is the
covariance of what an edit changes and St that of the pictures. It never stretches: A <= I. Small kw
presses down what edits change, for recall; large kw keeps norm, for certified radii.

Source: the whitening of Fisher's discriminant, with the identity in it that keeps the norm at 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from model.train.copies.wave_student import WaveStudent


def principal_basis(covariance: Float[Tensor, "N N"], count: int) -> Float[Tensor, "N K"]:
    """The directions of largest variance, orthonormal columns, largest first.

    Signs are fixed (the largest entry of a column is positive): equal data give equal bases.
    """
    _, vectors = torch.linalg.eigh(covariance)
    basis = vectors.flip(1)[:, :count]
    largest = basis.abs().argmax(dim=0)
    return basis * basis[largest, torch.arange(basis.shape[1])].sign()


def covariance_of(
    rows: Float[Tensor, "N K"], shares: Float[Tensor, " N"] | None = None
) -> Float[Tensor, "K K"]:
    """Covariance about the mean, in float64; `shares` sum to 1, without them rows count alike."""
    rows = rows.double()
    shares = rows.new_full((len(rows),), 1.0 / len(rows)) if shares is None else shares.double()
    centred = rows - shares @ rows
    return centred.T @ (shares[:, None] * centred)


def discriminant(
    within: Float[Tensor, "K K"],
    total: Float[Tensor, "K K"],
    dim: int,
    within_scale: float,
    total_scale: float,
) -> Float[Tensor, "D K"]:
    """The closed-form head, (D, K), of spectral norm at most 1.

    Args:
        within: covariance of edited minus plain features.
        total: covariance of plain features.
        dim: directions to keep: those that carry most of the pictures' variance behind A.
        within_scale: kw, in units of the features.
        total_scale: kt, likewise.
    """
    identity = torch.eye(len(total), dtype=torch.float64)
    scaled = identity + within / within_scale**2 + total / total_scale**2
    values, vectors = torch.linalg.eigh(scaled)
    whiten = (vectors * values.rsqrt()) @ vectors.T
    carried = whiten @ total @ whiten
    return principal_basis(carried, dim).T @ whiten


def least_moved(
    views: Float[Tensor, "P V K"], copies: Float[Tensor, "P C K"], head: Float[Tensor, "D K"] | None
) -> Float[Tensor, "M K"]:
    """What an edit changes that no view of the picture does: copies minus the view nearest to each.

    Nearest behind the head; without one, as the features are.
    """
    seen, asked = (views, copies) if head is None else (views @ head.T, copies @ head.T)
    nearest = torch.cdist(asked, seen).argmin(dim=2)
    own = views.gather(1, nearest[..., None].expand_as(copies))
    return (copies - own).flatten(0, 1)


@torch.no_grad()
def fit_narrowing_maps(student: WaveStudent, inputs: Float[Tensor, "B 3 S S"]) -> None:
    """Gives each map that narrows the principal directions of the details it reads.

    The low-pass channels pass as they are; of the details, those directions are kept that carry
    most of what is there.

    The student is changed in place; its other maps stay.
    """
    for layer, (weight, bias) in enumerate(zip(student.maps, student.biases, strict=True)):
        if weight.shape[0] == weight.shape[1]:
            continue
        kept = len(weight) - len(bias)
        details = torch.cat([student.entering(part, layer)[kept:] for part in inputs.split(64)], 1)
        basis = principal_basis((details.double() @ details.double().T), len(bias))
        weight.zero_()
        weight[:kept, :kept] = torch.eye(kept)
        weight[kept:, kept:] = basis.T.float()
