# pyright: basic
# torch's types are loose.
"""What attacks make small: losses of the scores by which a decision holds."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from model.attack.descent import Objective
from model.attack.pixel_metric import to_levels
from model.attack.questions import Block

Scores = Float[Tensor, "B C"]
Loss = Callable[[Tensor], Tensor]
"""Scores of which the first is largest while the decision holds, to what pushes it down, (B,)."""


def margin(scores: Scores) -> Float[Tensor, " B"]:
    """How far the first score is above the best other one: at most 0 once the decision flips."""
    return scores[:, 0] - scores[:, 1:].amax(dim=1)


def cross_entropy(scores: Scores) -> Float[Tensor, " B"]:
    """The log-likelihood of the first class."""
    return scores.log_softmax(dim=1)[:, 0]


def dlr(scores: Scores) -> Float[Tensor, " B"]:
    """Difference of logits ratio: the margin over the spread of the three largest scores.

    Of two scores it is the margin.

    Source: Croce and Hein 2020, arXiv:2003.01690, equation 6.
    """
    if scores.shape[1] < 3:
        return margin(scores)
    largest = scores.topk(3, dim=1).values
    return margin(scores) / (largest[:, 0] - largest[:, 2] + 1e-12)


def flip_objective(
    block: Block,
    rows: Int64[np.ndarray, " T"],
    *,
    loss: Loss = margin,
    runner_up: int | None = None,
) -> Objective:
    """A loss of each question's scores, and the margin by which its decision holds, in float32.

    `runner_up` is the class by which alone the loss is to count: 0 for the one that is nearest at
    the unchanged picture, 1 for the next, and so on; None for all.
    """
    metric, rivals = block.metric, None
    pictures, numbers = metric.tensor(block.pictures[rows]), torch.from_numpy(rows)
    numbers = numbers.to(metric.device)
    if runner_up is not None:
        scores = block.decision.scores(metric.tensor(block.vectors[rows]), numbers)
        order = scores[:, 1:].argsort(dim=1, descending=True)
        rivals = 1 + order[:, [runner_up % order.shape[1]]]

    def objective(delta: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        shown = pictures[places] + (to_levels(delta) if metric.has_levels else delta)
        scores = block.decision.scores(metric.vectors(shown), numbers[places])
        competing = scores
        if rivals is not None:
            competing = torch.cat([scores[:, :1], scores.gather(1, rivals[places])], dim=1)
        return loss(competing), margin(scores)

    return objective
