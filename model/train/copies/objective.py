# pyright: basic
"""What the default model minimises: certified radii that are too small, seen from both sides.

R_ij = <g(q_i), f_i - f_j> / |f_i - f_j| is how far the embedding of the i-th edited copy is from
the half-space in which picture j stands before its original i; over the bound, it is the certified
radius itself. Only embeddings of the present weights are compared: stale ones teach a network to
outrun them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from model.train.config import CopiesSettings
from model.train.distributed import current, gather_rows
from model.train.losses import radii_of

# Squared distance of two unit embeddings below which they count as the same picture.
_SAME = 1e-4


def copies_loss(
    settings: CopiesSettings,
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "B V D"],
    targets: Float[Tensor, "B T"] | None,
    metric: Float[Tensor, "D D"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """This process's share of the global loss, and what to log.

    Of this process's edited copies (queries), the views of the pictures they were made from (keys,
    the picture as it is first), a teacher's embeddings of these pictures, and W W^T of a free head.
    """
    all_keys, first = gather_rows(keys), current().rank * len(keys)
    radii, counts = pairwise_radii(queries, all_keys, first, metric)
    keys, all_keys = keys[:, 0], all_keys[:, 0]
    parts = {"radius": radius_loss(radii, counts, settings.radius_margin, settings.temperature)}
    loss = parts["radius"]
    if settings.far_weight > 0:
        parts["far"] = radius_loss(radii, counts, settings.far_margin, settings.temperature)
        loss = loss + settings.far_weight * parts["far"]
    if targets is not None:
        everyone, width = gather_rows(targets), settings.teacher_temperature
        parts["relational"] = relational_loss(
            keys, all_keys, targets, everyone, first=first, temperature=width
        )
        loss = loss + settings.teacher_weight * parts["relational"]
    details = {name: part.detach() for name, part in parts.items()}
    return loss, {**details, "embedding_norm": queries.detach().norm(dim=1).mean()}


def pairwise_radii(
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "N V D"],
    first: int,
    metric: Float[Tensor, "D D"] | None = None,
) -> tuple[Float[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """R, and which of its places count: not the original itself, nor a picture equal to it.

    A picture owns V vectors: R is the least over another's of the largest over the own, as in
    `model.certificate.items`.

    Args:
        queries: raw embeddings of edited copies, (B, D).
        keys: raw embeddings of the views of pictures, (N, V, D).
        first: the original of query i is key first + i.
        metric: W W^T of the head, (D, D): radii are over |W^T D| then, not |D|.
    """
    count, views, _ = keys.shape
    units = functional.normalize(keys, dim=2)
    own, rows = units[first : first + len(queries)], units.flatten(0, 1)
    moved = rows if metric is None else rows @ metric
    lengths = (moved * rows).sum(dim=1)
    own_lengths = lengths.view(count, views)[first : first + len(queries)]
    squares = own_lengths[..., None] + lengths - 2.0 * (own @ moved.T)
    gap = (own @ queries[..., None]) - (queries @ rows.T)[:, None]
    radii, counts = radii_of(gap, squares, _SAME)
    radii = radii.amax(dim=1).view(-1, count, views).amin(dim=2)
    counts = counts.all(dim=1).view(-1, count, views).all(dim=2)
    return radii, counts & ~_own_places(queries, keys, first)


def _own_places(
    rows: Float[Tensor, "B ..."], others: Float[Tensor, "N ..."], first: int
) -> Bool[Tensor, "B N"]:
    """True where the other is the row's own, number first + i for row i."""
    places = torch.arange(len(others), device=rows.device)
    return places == first + torch.arange(len(rows), device=rows.device)[:, None]


def radius_loss(
    radii: Float[Tensor, "B N"], counts: Bool[Tensor, "B N"], margin: float, temperature: float
) -> Float[Tensor, ""]:
    """Mean over queries of a smooth max(0, margin - the smallest radius that counts).

    Margin and temperature, the width of the smoothing, are in the radii's unit.
    """
    short = ((margin - radii) / temperature).masked_fill(~counts, -torch.inf)
    return temperature * functional.softplus(torch.logsumexp(short, dim=1)).mean()


def relational_loss(
    keys: Float[Tensor, "B D"],
    all_keys: Float[Tensor, "N D"],
    targets: Float[Tensor, "B T"],
    all_targets: Float[Tensor, "N T"],
    *,
    first: int,
    temperature: float,
) -> Float[Tensor, ""]:
    """How far a picture's likeness to the others is from what a teacher says of it.

    Cross-entropy, less its least value, of the softmaxes over the other pictures' cosines, for this
    process's pictures against those of all; its picture i is number first + i of them.

    Source: Park et al. 2019, arXiv:1904.05068, in the form of a softmax over similarities.
    """
    itself = _own_places(keys, all_keys, first)

    def log_shares(rows: Tensor, others: Tensor) -> Tensor:
        cosines = functional.normalize(rows, dim=1) @ functional.normalize(others, dim=1).T
        # A large finite number, not infinity: 0 * inf would be no number.
        return functional.log_softmax((cosines / temperature).masked_fill(itself, -1e4), dim=1)

    return functional.kl_div(
        log_shares(keys, all_keys),
        log_shares(targets, all_targets),
        log_target=True,
        reduction="batchmean",
    )
