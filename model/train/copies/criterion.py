# pyright: basic
# torch's types are loose.
"""The loss of a batch of edited copies: the terms of the objective that a config asks for."""

from jaxtyping import Float
from torch import Tensor

from model.train.config import TrainConfig
from model.train.copies.objective import (
    pairwise_radii,
    radius_loss,
    relational_loss,
    stranger_loss,
)
from model.train.distributed import current, gather_rows


def copies_loss(
    config: TrainConfig,
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "B D"],
    targets: Float[Tensor, "B T"] | None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """This process's share of the global loss, and what to log.

    Args:
        config: weights, margins and temperatures of the terms.
        queries: raw embeddings of this process's edited copies.
        keys: of the pictures that they were made from.
        targets: a teacher's embeddings of these pictures.
    """
    all_keys, first = gather_rows(keys), current().rank * len(keys)
    radii, counts = pairwise_radii(queries, all_keys, first)
    norms = queries.norm(dim=1, keepdim=True).clamp_min(1e-6)
    parts = {"radius": radius_loss(radii, counts, config.radius_margin, config.temperature)}
    loss = parts["radius"]
    if config.relative_weight > 0:
        parts["relative"] = radius_loss(
            radii / norms, counts, config.relative_margin, config.relative_temperature
        )
        loss = loss + config.relative_weight * parts["relative"]
    if config.stranger_weight > 0:
        parts["strangers"] = stranger_loss(
            queries,
            all_keys,
            radii,
            counts,
            share=config.stranger_share,
            temperature=config.relative_temperature,
        )
        loss = loss + config.stranger_weight * parts["strangers"]
    if targets is not None:
        parts["relational"] = relational_loss(
            keys,
            all_keys,
            targets,
            gather_rows(targets),
            first=first,
            temperature=config.teacher_temperature,
        )
        loss = loss + config.teacher_weight * parts["relational"]
    details = {name: part.detach() for name, part in parts.items()}
    return loss, {**details, "embedding_norm": norms.detach().mean()}
