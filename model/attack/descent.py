# pyright: basic
# torch's types are loose, and gradients are torch's.
"""Gradient searches over many perturbations at once, each within a norm of its own: PGD, DDN.

Every search within a norm gives the best of its `Search`: of each perturbation the one that came
nearest to success.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Deltas = Float[Tensor, "T 3 H W"]
PerDelta = Float[Tensor, "T 1 1 1"]
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Perturbations, and which of the T each is, to what is to become small, and to how far each is
from success: at most 0 where it succeeds; one number a perturbation both, differentiable."""

# A success by less may be float32's doing, and the search goes on.
_SUCCESS = -1e-4
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Ball:
    """Perturbations within a norm each, which leave their pictures in the box [0, 1], if any.

    Attributes:
        norm: "l2" or "linf".
        limits: the norm that each may have, (T, 1, 1, 1).
        pictures: unchanged pixels, (T, 3, H, W).
        has_box: whether they must stay in [0, 1].
    """

    norm: str
    limits: PerDelta
    pictures: Deltas
    has_box: bool = True

    def zeros(self) -> Deltas:
        return torch.zeros_like(self.pictures)

    def project(self, delta: Deltas) -> Deltas:
        """Perturbations brought back into box and ball."""
        if self.norm == "linf":
            return self.in_box(delta.clamp(-self.limits, self.limits))
        delta = self.in_box(delta)
        # Scaling afterwards cannot leave a box that holds 0.
        return delta * (self.limits / norms(delta).clamp_min(_TINY)).clamp_max(1.0)

    def in_box(self, delta: Deltas) -> Deltas:
        if not self.has_box:
            return delta
        return (self.pictures + delta).clamp(0.0, 1.0) - self.pictures

    def steepest(self, gradient: Deltas) -> Deltas:
        """The step of norm 1 that climbs fastest; none where the gradient is zero."""
        return gradient.sign() if self.norm == "linf" else unit(gradient)

    def draw(self, rng: np.random.Generator) -> Deltas:
        """Random perturbations on the sphere, brought into the box."""
        shape = self.pictures.shape
        drawn = rng.uniform(-1.0, 1.0, shape) if self.norm == "linf" else rng.normal(size=shape)
        delta = torch.from_numpy(drawn).to(self.limits)
        size = delta.abs().amax(dim=(1, 2, 3), keepdim=True)
        return self.project(delta * self.limits / (size if self.norm == "linf" else norms(delta)))


class Search:
    """An objective under a search: remembers each perturbation that came nearest to success.

    A perturbation that has succeeded is not evaluated again: its loss is -inf from then on, and its
    gradient zero.

    Args:
        objective: what is searched.
        like: perturbations of the shape, kind and device of those to come.
        stop: whether to be content with a success; else the search goes on below 0.

    Attributes:
        best: of each perturbation the one nearest to success so far; zeros at first.
        gaps: how far these are from it, (T, 1, 1, 1).
        evaluations: of single perturbations.
    """

    def __init__(self, objective: Objective, like: Deltas, *, stop: bool = True) -> None:
        self._objective, self._stop = objective, stop
        self.best = torch.zeros_like(like)
        self.gaps = torch.full_like(like[:, :1, :1, :1], torch.inf)
        self.evaluations = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to search for."""
        return self._stop and bool((self.gaps < _SUCCESS).all())

    def losses(self, delta: Deltas) -> PerDelta:
        """The objective where it is still sought."""
        with torch.no_grad():
            return self._evaluate(delta, wants_gradient=False)[0]

    def slopes(self, delta: Deltas) -> tuple[PerDelta, Deltas]:
        """The objective where it is still sought, and its gradients."""
        return self._evaluate(delta, wants_gradient=True)

    def _evaluate(self, delta: Deltas, *, wants_gradient: bool) -> tuple[PerDelta, Deltas]:
        losses, gradients = torch.full_like(self.gaps, -torch.inf), torch.zeros_like(delta)
        is_open = (self.gaps >= _SUCCESS) | (not self._stop)
        rows = is_open.flatten().nonzero()[:, 0]
        if rows.numel():
            part = delta[rows].detach().requires_grad_(wants_gradient)
            loss, gaps = self._objective(part, rows)
            gaps = gaps.detach().reshape(-1, 1, 1, 1)
            is_better = gaps < self.gaps[rows]
            self.best[rows] = torch.where(is_better, delta[rows], self.best[rows])
            self.gaps[rows] = torch.where(is_better, gaps, self.gaps[rows])
            self.evaluations += rows.numel()
            if wants_gradient:
                (gradients[rows],) = torch.autograd.grad(loss.sum(), part)
            losses[rows, 0, 0, 0] = loss.detach()
        return losses, gradients


def descend(
    search: Search, start: Deltas, ball: Ball, *, steps: int, momentum: float = 0.0
) -> Deltas:
    """Projected gradient descent by steps of 2.5 limit / steps.

    `momentum` is the share of the last direction that is added to the next one.

    Source: Madry et al. 2018, arXiv:1706.06083; with momentum Dong et al. 2018, arXiv:1710.06081.
    """
    delta, direction = start, torch.zeros_like(start)
    for _ in range(steps + 1):
        _, gradients = search.slopes(delta)
        if search.is_over:
            break
        direction = momentum * direction + unit(gradients)
        delta = ball.project(delta - 2.5 * ball.limits / steps * ball.steepest(direction))
    return search.best


def shorten(objective: Objective, start: Deltas, ball: Ball, *, steps: int) -> Deltas:
    """Look for the shortest success: the l2 norm shrinks after each success and grows otherwise.

    The limits of the ball are the norms to begin with, and may be left; its box may not.

    Returns:
        Of each perturbation the shortest success seen; zeros where there was none.

    Source: Rony et al. 2019, arXiv:1811.09600 (decoupled direction and norm).
    """
    rows = torch.arange(len(start), device=start.device)
    delta, best, lengths = start, torch.zeros_like(start), ball.limits
    shortest = torch.full_like(lengths, torch.inf)
    for step in range(steps + 1):
        point = delta.detach().requires_grad_(True)
        loss, gaps = objective(point, rows)
        (gradients,) = torch.autograd.grad(loss.sum(), point)
        is_success, length = gaps.detach().reshape(-1, 1, 1, 1) <= 0.0, norms(delta)
        is_better = is_success & (length < shortest)
        best = torch.where(is_better, delta, best)
        shortest = torch.where(is_better, length, shortest)
        lengths = lengths * torch.where(is_success, 0.93, 1.07)
        moved = delta - unit(gradients) * lengths * (0.5 * (1.0 - step / (steps + 1)))
        delta = ball.in_box(moved / norms(moved).clamp_min(_TINY) * lengths)
    return best


def unit(gradient: Deltas) -> Deltas:
    """Gradients over their norms; a zero gradient stays zero."""
    return gradient / norms(gradient).clamp_min(_TINY)


def norms(delta: Deltas) -> PerDelta:
    """L2 norms."""
    return delta.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
