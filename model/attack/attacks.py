# pyright: basic
# torch's types are loose.
"""Attacks on a ledger's questions: within a budget, for the shortest flip, below what is proved."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.attack.apgd import apgd
from model.attack.descent import Ball, Deltas, Search, descend, shorten
from model.attack.ledger import Ledger, Rows
from model.attack.objectives import cross_entropy, dlr, flip_objective, margin
from model.attack.pixel_metric import to_levels
from model.attack.plan import Plan
from model.attack.square import square

METHODS = {
    "apgd-ce": apgd,
    "apgd-dlr": apgd,
    "apgd-margin": apgd,
    "apgd-targeted": apgd,
    "pgd": descend,
    "momentum": partial(descend, momentum=1.0),
    "square": square,
}
_LOSSES = {"apgd-ce": cross_entropy, "apgd-dlr": dlr}
# Just inside the certified radius, so that float32's rounding cannot step over it.
_BELOW = 0.999
_STRETCHES = (1.0, 1.003, 1.03)
_FIRST_LENGTH = 0.5
# Inputs of one pass: more do not run faster on a processor core.
_BATCH = {"cpu": 16, "cuda": 256}


def attack_within(
    ledger: Ledger, attack: str, epsilon: float, plan: Plan, only: Rows | None = None
) -> int:
    """Run an attack on every decision that still stands within a budget, in [0, 1] units.

    What flips one is recorded in the ledger; how many were attacked is returned. A restart is on
    what the ones before have left: the first starts at the picture where the attack can, the others
    off it; of `apgd-targeted` each takes the next runner-up. `only` are the rows to attack; a step
    of `square` is a look at the scores.
    """
    most = 0
    for restart in range(plan.restarts):
        # Of a distance, flipped or not, it is asked how far it can be pushed.
        is_flat = ledger.block.decision.is_flat
        rows = _rows(ledger.is_right if is_flat else ledger.standing(epsilon, plan.norm), only)
        most = max(most, rows.size)
        for part in _parts(ledger, rows):
            deltas = run_attack(ledger, attack, part, epsilon, plan, restart)
            ledger.record(part, deltas, attack, within=epsilon)
    return most


def run_attack(  # noqa: PLR0917
    ledger: Ledger, attack: str, rows: Rows, epsilon: float, plan: Plan, restart: int
) -> Float64[np.ndarray, "R 3 H W"]:
    """One restart of one attack on some questions.

    Returns:
        For each question the perturbation that came nearest to flipping it: exactly within the
        budget and the box, in float64. Whether it flips the decision is for the ledger to say.
    """
    block, method = ledger.block, METHODS[attack]
    runner_up = restart if attack == "apgd-targeted" else None
    loss = _LOSSES.get(attack, margin)
    objective = flip_objective(block, rows, loss=loss, runner_up=runner_up)
    ball = _ball(ledger, rows, np.full(rows.size, epsilon), plan.norm)
    search = Search(objective, ball.zeros(), stop=not block.decision.is_flat)
    if method is square:
        rng = np.random.default_rng([plan.seed, restart, int(rows[0])])
        found = square(search, ball, steps=plan.steps, rng=rng)
    else:
        # AutoPGD always starts off the picture.
        start = _start(ledger, rows, ball, restart + (method is apgd), plan.seed)
        found = method(search, start, ball, steps=plan.steps)
    has_levels = block.metric.has_levels
    return within_budget(_array(found), block.pictures[rows], epsilon, plan.norm, has_levels)


def search_shortest(
    ledger: Ledger, *, steps: int, restarts: int, seed: int, only: Rows | None = None
) -> None:
    """Look for the shortest perturbation that flips each decision.

    The first restart starts at the picture where it can, the others beside it. What flips a
    decision is recorded in the ledger.
    """
    rows = _rows(ledger.is_right, only)
    for restart in range(restarts):
        for part in _parts(ledger, rows):
            ball = _ball(ledger, part, _first_lengths(ledger, part), "l2")
            start = _start(ledger, part, ball, restart, seed)
            deltas = _array(shorten(flip_objective(ledger.block, part), start, ball, steps=steps))
            hit = deltas.any(axis=(1, 2, 3))
            ledger.record(part[hit], deltas[hit], "shortest", stretches=_STRETCHES)


def hunt(ledger: Ledger, rows: Rows, *, steps: int, restarts: int, seed: int) -> None:
    """Look for a counter-example: descend inside each question's own certified radius."""
    radii = ledger.certified_radii
    rows = rows[np.isfinite(radii[rows]) & (radii[rows] > 0.0)]
    for restart in range(restarts):
        for part in _parts(ledger, rows):
            ball = _ball(ledger, part, _BELOW * radii[part], "l2")
            search = Search(flip_objective(ledger.block, part), ball.zeros())
            start = _start(ledger, part, ball, restart, seed)
            ledger.record(part, _array(descend(search, start, ball, steps=steps)), "hunt")


def within_budget(
    deltas: Float64[np.ndarray, "Q 3 H W"],
    pictures: Float64[np.ndarray, "Q 3 H W"],
    epsilon: float,
    norm: str,
    has_levels: bool,
) -> Float64[np.ndarray, "Q 3 H W"]:
    """The perturbations, shortened until they are in the box and the budget in float64.

    With levels they cannot be shortened: one that is too long becomes none at all.
    """
    deltas = np.clip(pictures + deltas, 0.0, 1.0) - pictures
    deltas = to_levels(deltas) if has_levels else deltas
    if norm == "linf":
        lengths = np.abs(deltas).max(axis=(1, 2, 3), keepdims=True)
    else:
        lengths = np.sqrt((deltas**2).sum(axis=(1, 2, 3), keepdims=True))
    # A little below the budget, as a product of rounded numbers may be a little above it.
    factors = 0.0 if has_levels else epsilon * (1.0 - 1e-12) / np.maximum(lengths, 1e-300)
    return np.where(lengths > epsilon, deltas * factors, deltas)


def _rows(mask: Bool[np.ndarray, " Q"], only: Int64[np.ndarray, " _"] | None) -> Rows:
    rows = np.flatnonzero(mask)
    return rows if only is None else np.intersect1d(rows, only)


def _parts(ledger: Ledger, rows: Rows) -> Iterator[Rows]:
    most = _BATCH["cuda" if ledger.block.metric.device.startswith("cuda") else "cpu"]
    for first in range(0, rows.size, most):
        yield rows[first : first + most]


def _ball(ledger: Ledger, rows: Rows, limits: Float64[np.ndarray, " R"], norm: str) -> Ball:
    tensor = ledger.block.metric.tensor
    return Ball(norm, tensor(limits).reshape(-1, 1, 1, 1), tensor(ledger.block.pictures[rows]))


def _start(ledger: Ledger, rows: Rows, ball: Ball, restart: int, seed: int) -> Deltas:
    """No perturbation at first, then random ones; random at once where there is no gradient."""
    if restart == 0 and not ledger.block.decision.is_flat:
        return ball.zeros()
    return ball.draw(np.random.default_rng([seed, restart, int(rows[0])]))


def _array(deltas: Deltas) -> Float64[np.ndarray, "R 3 H W"]:
    return deltas.cpu().numpy().astype(np.float64)


def _first_lengths(ledger: Ledger, rows: Rows) -> Float64[np.ndarray, " R"]:
    """Where a search for the shortest begins: somewhat above what is proved."""
    radii = ledger.certified_radii[rows]
    return np.where(np.isfinite(radii), np.maximum(1.3 * radii, 0.01), _FIRST_LENGTH)
