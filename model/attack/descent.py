# pyright: basic
# torch's types are loose, and gradients are torch's.
"""Two searches over perturbations, many at a time: the lowest objective, and the shortest success.

Both work on l2 norms of one number a perturbation, which a library's attacks do not: there a batch
shares its budget.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Deltas = Float[Tensor, "T 3 H W"]
PerDelta = Float[Tensor, "T 1 1 1"]
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Perturbations to what is to become small, at most 0 on success, and its unit gradients."""


def descend(
    objective: Objective,
    start: Deltas,
    limits: PerDelta,
    *,
    steps: int,
    box: Callable[[Tensor], Tensor] | None = None,
) -> Deltas:
    """Projected gradient descent, each perturbation within its own l2 norm.

    Args:
        objective: what to make small.
        start: perturbations to begin with.
        limits: l2 norm each may have.
        steps: gradient steps, each of length 2.5 limit / steps.
        box: maps perturbations to allowed ones, never longer; None allows all.

    Returns:
        Of each perturbation the one with the lowest objective seen.

    Source: Madry et al. 2018, arXiv:1706.06083, in l2.
    """
    delta, best, lowest = start, start, torch.full_like(limits, torch.inf)
    for _ in range(steps + 1):
        loss, direction = objective(delta)
        best, lowest = torch.where(loss < lowest, delta, best), torch.minimum(loss, lowest)
        moved = delta - direction * (2.5 * limits / steps)
        # Scaling afterwards cannot leave a box that holds 0.
        moved = moved if box is None else box(moved)
        delta = moved * (limits / norms(moved).clamp_min(1e-30)).clamp_max(1.0)
    return best


def shorten(
    objective: Objective,
    start: Deltas,
    lengths: PerDelta,
    *,
    steps: int,
    box: Callable[[Tensor], Tensor] | None = None,
) -> Deltas:
    """Look for the shortest success: the norm shrinks after each success and grows otherwise.

    Args:
        objective: what to bring to 0 or below.
        start: perturbations to begin with.
        lengths: l2 norms to begin with.
        steps: gradient steps.
        box: maps perturbations to allowed ones, never longer; None allows all.

    Returns:
        Of each perturbation the shortest success seen; zeros where there was none.

    Source: Rony et al. 2019, arXiv:1811.09600 (decoupled direction and norm).
    """
    delta, best = start, torch.zeros_like(start)
    shortest = torch.full_like(lengths, torch.inf)
    for step in range(steps + 1):
        loss, direction = objective(delta)
        is_success, length = loss <= 0.0, norms(delta)
        is_better = is_success & (length < shortest)
        best = torch.where(is_better, delta, best)
        shortest = torch.where(is_better, length, shortest)
        lengths = lengths * torch.where(is_success, 0.93, 1.07)
        moved = delta - direction * lengths * (0.5 * (1.0 - step / (steps + 1)))
        delta = moved / norms(moved).clamp_min(1e-30) * lengths
        delta = delta if box is None else box(delta)
    return best


def unit(gradient: Deltas) -> Deltas:
    """Gradients over their norms; a zero gradient stays zero."""
    return gradient / norms(gradient).clamp_min(1e-30)


def norms(delta: Deltas) -> PerDelta:
    """L2 norms."""
    return delta.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
