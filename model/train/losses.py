# pyright: basic
"""The losses of both published steps, and the one that asks for certified radius itself.

Each is of the global batch: its mean over processes, and that of its gradients, is what one process
would compute with all the rows.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from model.train.distributed import current, global_mean

_TINY = torch.finfo(torch.float32).tiny


def root_mean_square(
    found: Float[Tensor, "B D"], wanted: Float[Tensor, "B D"]
) -> Float[Tensor, ""]:
    """Root of the mean squared difference over the global batch and all dimensions.

    The published code takes the root in each process, of its own rows; it then hangs on how many
    processes there are.
    """
    return global_mean((found - wanted).square().mean()).sqrt()


def distillation(
    plain: Float[Tensor, "B D"], edited: Float[Tensor, "B D"], targets: Float[Tensor, "B D"]
) -> Float[Tensor, ""]:
    """Step 1: the mean of the two views' distances from what the teacher saw in view 1.

    Source: Ghazanfari et al. 2024, arXiv:2310.18274, and its code.
    """
    return 0.5 * (root_mean_square(plain, targets) + root_mean_square(edited, targets))


def decision(vote: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """What people chose, +1 for right and -1 for left, and how much of a majority it was.

    The weight is |2 vote - 1|: 1 for NIGHTS, whose votes are 0 or 1, and 0 where BAPPS' judges were
    divided equally. Rounding would train on such triplets as if all had agreed.

    Args:
        vote: share that found right closer, in [0, 1].
    """
    return torch.where(vote > 0.5, 1.0, -1.0), (2.0 * vote - 1.0).abs()


def cosine_hinge(
    reference: Float[Tensor, "B D"],
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "B D"],
    vote: Float[Tensor, " B"],
    margin: float,
) -> Float[Tensor, ""]:
    """Step 2: the sum over the global batch of max(0, margin - y (d_left - d_right)).

    d = 1 - cosine. It is a sum, as published: the batch size is part of its learning rate.

    Source: Ghazanfari et al. 2024, arXiv:2310.18274, and its code (its default loss is another).
    """
    reference, left, right = (functional.normalize(h, dim=1) for h in (reference, left, right))
    gap = (reference * right).sum(dim=1) - (reference * left).sum(dim=1)
    chosen, weight = decision(vote)
    total = (weight * functional.relu(margin - chosen * gap)).sum()
    return total * current().size  # processes take the mean


def radii_of(
    gap: Float[Tensor, "..."], squares: Float[Tensor, "..."], same: float
) -> tuple[Float[Tensor, "..."], Bool[Tensor, "..."]]:
    """The signed pair radius r_ij of `model.certificate.pairs`, differentiable, without its slack.

    Args:
        gap: <g, f_i - f_j>, g the raw query embedding and f unit embeddings.
        squares: |f_i - f_j|^2.
        same: squared distance up to which i and j count as equal; positive.

    Returns:
        gap / |f_i - f_j|: positive where i is ahead. And which pairs count: those that differ; the
        radii of the others are finite, and mean nothing.
    """
    return gap / squares.clamp_min(same).sqrt(), squares > same


def signed_radius(
    reference: Float[Tensor, "B D"], left: Float[Tensor, "B D"], right: Float[Tensor, "B D"]
) -> Float[Tensor, " B"]:
    """How far the reference's input may move before the choice changes; positive for right.

    The reference's embedding is taken as it is: its norm is what the radius is made of. Exact for a
    linear network, a bound for every 1-Lipschitz one, in the unit of the network's input. 0 where
    left and right are the same.
    """
    across = functional.normalize(right, dim=1) - functional.normalize(left, dim=1)
    squares = across.square().sum(dim=1)
    radius, differ = radii_of((reference * across).sum(dim=1), squares, _TINY)
    return torch.where(differ, radius, 0.0)


def radius_hinge(
    reference: Float[Tensor, "B D"],
    left: Float[Tensor, "B D"],
    right: Float[Tensor, "B D"],
    vote: Float[Tensor, " B"],
    margin: float,
) -> Float[Tensor, ""]:
    """The mean over the global batch of max(0, margin - y r), r the certified radius, signed."""
    chosen, weight = decision(vote)
    gain = chosen * signed_radius(reference, left, right)
    return (weight * functional.relu(margin - gain)).mean()
