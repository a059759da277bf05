# pyright: basic
# torch's types are loose, and gradients are torch's.
"""Attacks on a block of questions: the library's, and two searches that it cannot do."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from model.attack.block import Budget
from model.attack.decisions import StaysClose, StaysNear
from model.attack.descent import Objective, descend, shorten, unit
from model.attack.ledger import Ledger, Rows
from model.attack.library import batch_size, run_attack
from model.errors import AttackError

# Just inside the certified radius, so that float32's rounding cannot step over it.
_BELOW = 0.999
_STRETCHES = (1.0, 1.003, 1.03)
_FIRST_LENGTH = 0.5


def attack_within(
    ledger: Ledger,
    attack: str,
    budget: Budget,
    *,
    restarts: int,
    seed: int,
    only: Rows | None = None,
) -> int:
    """Run an attack of the library on every decision that still stands within a budget.

    Args:
        ledger: the questions; what turns them is written there.
        attack: its name.
        budget: norm and steps.
        restarts: each on what the ones before have left.
        seed: of what is drawn.
        only: rows to attack; None for all.

    Returns:
        How many questions were attacked.
    """
    block, wanted, most = ledger.block, _mask(ledger, only), 0
    for restart in range(restarts):
        mask = wanted & ledger.standing(budget.epsilon, budget.norm)
        if isinstance(block.decision, StaysNear | StaysClose):
            # Turned or not, it is asked how far the distance can be pushed.
            mask = wanted & ledger.is_right
        rows = np.flatnonzero(mask)
        most = max(most, rows.size)
        if not rows.size:
            break
        deltas = run_attack(attack, block, rows, budget, restart=restart, seed=seed)
        ledger.judge(rows, deltas, attack, within=budget.epsilon)
    return most


def search_shortest(
    ledger: Ledger, *, steps: int, restarts: int, seed: int, only: Rows | None = None
) -> None:
    """Look for the shortest perturbation that turns each decision.

    Args:
        ledger: the questions; what turns them is written there.
        steps: gradient steps of each restart.
        restarts: the first starts at the picture where it can, the others beside it.
        seed: of what is drawn.
        only: rows to attack; None for all.
    """
    for restart, rows in _passes(ledger, restarts, ledger.is_right & _mask(ledger, only)):
        lengths = _first_lengths(ledger, rows)
        found = shorten(
            _objective(ledger, rows),
            _start(ledger, rows, lengths, restart, seed),
            _column(ledger, lengths),
            steps=steps,
            box=_box(ledger, rows),
        )
        deltas = found.cpu().numpy().astype(np.float64)
        hit = deltas.any(axis=(1, 2, 3))
        ledger.judge(rows[hit], deltas[hit], "shortest", stretches=_STRETCHES)


def hunt(ledger: Ledger, rows: Rows, *, steps: int, restarts: int, seed: int) -> None:
    """Look for a counter-example: descend inside each question's own certified radius.

    The library cannot do this, as all of a batch share its l2 budget.

    Args:
        ledger: the questions of a certified metric.
        rows: those to attack.
        steps: gradient steps of each restart.
        restarts: the first starts at the picture where it can, the others beside it.
        seed: of what is drawn.

    Raises:
        AttackError: the metric is not certified.
    """
    radii = ledger.certified_radii
    if radii is None:
        raise AttackError(f"{ledger.block.subject.name} proves no radius that could be refuted")
    usable = np.isfinite(radii) & (radii > 0.0)
    for restart, part in _passes(ledger, restarts, usable & _mask(ledger, rows)):
        limits = _BELOW * radii[part]
        found = descend(
            _objective(ledger, part),
            _start(ledger, part, limits, restart, seed),
            _column(ledger, limits),
            steps=steps,
            box=_box(ledger, part),
        )
        ledger.judge(part, found.cpu().numpy().astype(np.float64), "hunt")


def _mask(ledger: Ledger, rows: Rows | None) -> Bool[np.ndarray, " Q"]:
    mask = np.full(len(ledger.block.ids), rows is None)
    if rows is not None:
        mask[rows] = True
    return mask


def _passes(
    ledger: Ledger, restarts: int, mask: Bool[np.ndarray, " Q"]
) -> Iterator[tuple[int, Rows]]:
    """Restarts, and in each of them batches of rows."""
    rows, most = np.flatnonzero(mask), batch_size(ledger.block.subject)
    for restart in range(restarts):
        for first in range(0, rows.size, most):
            yield restart, rows[first : first + most]


def _objective(ledger: Ledger, rows: Rows) -> Objective:
    """How far class 0 is above the best other class, and its unit gradient."""
    network, decision = ledger.block.subject.network, ledger.block.decision
    if network is None:
        raise AttackError(f"{ledger.block.subject.name} has no gradients")
    pictures = _tensor(ledger, ledger.block.pictures[rows])
    numbers = torch.from_numpy(rows).to(pictures.device)

    def objective(delta: Tensor) -> tuple[Tensor, Tensor]:
        delta = delta.detach().requires_grad_(True)
        scores = decision.logits(network(pictures + delta), numbers)
        gaps = scores[:, 0] - scores[:, 1:].amax(dim=1)
        (gradient,) = torch.autograd.grad(gaps.sum(), delta)
        return gaps.detach().reshape(-1, 1, 1, 1), unit(gradient)

    return objective


def _box(ledger: Ledger, rows: Rows) -> Callable[[Tensor], Tensor]:
    pictures = _tensor(ledger, ledger.block.pictures[rows])
    return lambda delta: (pictures + delta).clamp(0.0, 1.0) - pictures


def _first_lengths(ledger: Ledger, rows: Rows) -> Float64[np.ndarray, " R"]:
    """Where a search for the shortest begins: somewhat above what is proved."""
    if ledger.certified_radii is None:
        return np.full(rows.size, _FIRST_LENGTH)
    radii = ledger.certified_radii[rows]
    return np.where(np.isfinite(radii), np.maximum(1.3 * radii, 0.01), _FIRST_LENGTH)


def _start(
    ledger: Ledger, rows: Rows, lengths: Float64[np.ndarray, " R"], restart: int, seed: int
) -> Tensor:
    """No perturbation at first, then random ones; random at once where there is no gradient."""
    shape = ledger.block.pictures[rows].shape
    if restart == 0 and not ledger.block.decision.is_flat:
        return torch.zeros(shape, device=ledger.block.subject.device)
    drawn = np.random.default_rng([seed, restart, int(rows[0])]).standard_normal(shape)
    drawn *= (lengths / np.sqrt((drawn**2).sum(axis=(1, 2, 3))))[:, None, None, None]
    return _box(ledger, rows)(_tensor(ledger, drawn))


def _tensor(ledger: Ledger, array: Float64[np.ndarray, "..."]) -> Float[Tensor, "..."]:
    return torch.from_numpy(array).to(device=ledger.block.subject.device, dtype=torch.float32)


def _column(ledger: Ledger, numbers: Float64[np.ndarray, " R"]) -> Float[Tensor, "R 1 1 1"]:
    return _tensor(ledger, numbers).reshape(-1, 1, 1, 1)
