# pyright: basic
# The library has no types, and torch's are loose.
"""Attacks of the library on a block of questions, by name.

The library computes in float32. What an attack finds is projected again in float64, so the norm
that is reported is the norm there is.
"""

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from model.attack.block import Block, Budget
from model.attack.probe import Probe, apart
from model.attack.subjects import Subject
from model.attack.toolbox import attack_probe
from model.errors import AttackError

ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-margin", "apgd-targeted", "pgd", "momentum", "square")
BLACK_BOX_ATTACKS = ("square",)
NORMS = ("l2", "linf")

# Inputs of one pass: more do not run faster on a processor core, and turned ones are not computed.
_BATCH = {"cpu": 16, "cuda": 256}


def batch_size(subject: Subject) -> int:
    """How many inputs of a metric run best together."""
    return _BATCH["cuda" if subject.device.startswith("cuda") else "cpu"]


def check_attack(attack: str, subject: Subject, norm: str) -> None:
    """Refuse an attack that cannot be run, before anything is.

    Raises:
        AttackError: the name or the norm is unknown, or the metric has no gradients for it.
    """
    if attack not in ATTACKS:
        raise AttackError(f"an attack must be one of {', '.join(ATTACKS)}, got {attack!r}")
    if norm not in NORMS:
        raise AttackError(f"a norm must be one of {', '.join(NORMS)}, got {norm!r}")
    if subject.network is None and attack not in BLACK_BOX_ATTACKS:
        raise AttackError(
            f"{subject.name} has no gradients, so {attack} cannot attack it; "
            f"{', '.join(BLACK_BOX_ATTACKS)} can"
        )
    if attack in BLACK_BOX_ATTACKS and subject.height != subject.width:
        raise AttackError(f"{attack} wants square pictures, got {subject.height}x{subject.width}")


def run_attack(
    attack: str,
    block: Block,
    rows: Int64[np.ndarray, " Q"],
    budget: Budget,
    *,
    restart: int,
    seed: int,
) -> Float64[np.ndarray, "Q 3 H W"]:
    """One restart of one attack on some questions.

    Args:
        attack: one of ATTACKS.
        block: questions.
        rows: those to attack.
        budget: norm and steps.
        restart: from 0 on; the first starts at the picture where the attack can, the others off
            it. For `apgd-targeted` it is also which runner-up is the target.
        seed: of what is drawn.

    Returns:
        For each question the perturbation that came nearest to turning it, (Q, 3, H, W): exactly
        within the budget and the box, in float64. Whether it turns the decision is for the caller
        to check.

    Raises:
        AttackError: the attack cannot be run on this metric.
        DependencyError: the library is not installed.
    """
    subject = block.subject
    check_attack(attack, subject, budget.norm)
    pictures = block.pictures[rows]
    deltas = np.zeros_like(pictures)
    for number, part in enumerate(
        apart(pictures, budget.epsilon, budget.norm, batch_size(subject))
    ):
        targets = _targets(block, rows[part], restart) if attack == "apgd-targeted" else None
        probe = _probe(block, rows[part], budget, targets)
        starts_off = restart > 0 or block.decision.is_flat
        attack_probe(attack, probe, budget, starts_off=starts_off, seed=[seed, restart, number])
        found = probe.best.cpu().numpy().astype(np.float64)
        deltas[part] = within_budget(
            found - pictures[part], pictures[part], budget, has_levels=subject.has_levels
        )
    return deltas


def within_budget(
    deltas: Float64[np.ndarray, "Q 3 H W"],
    pictures: Float64[np.ndarray, "Q 3 H W"],
    budget: Budget,
    *,
    has_levels: bool = False,
) -> Float64[np.ndarray, "Q 3 H W"]:
    """The perturbations, shortened until they are in the box and the budget in float64.

    With levels they cannot be shortened: one that is too long becomes none at all.
    """
    deltas = np.clip(pictures + deltas, 0.0, 1.0) - pictures
    if has_levels:
        deltas = to_levels(deltas)
    if budget.norm == "linf":
        lengths = np.abs(deltas).max(axis=(1, 2, 3), keepdims=True)
    else:
        lengths = np.sqrt((deltas**2).sum(axis=(1, 2, 3), keepdims=True))
    # A little below the budget, as a product of rounded numbers may be a little above it.
    factors = 0.0 if has_levels else budget.epsilon * (1.0 - 1e-12) / np.maximum(lengths, 1e-300)
    return np.where(lengths > budget.epsilon, deltas * factors, deltas)


def to_levels(deltas: Float64[np.ndarray, "Q 3 H W"]) -> Float64[np.ndarray, "Q 3 H W"]:
    """The nearest multiples of 1/255 that are not longer, rounding aside."""
    levels = 255.0 * deltas
    return np.sign(levels) * np.floor(np.abs(levels) + 1e-3) / 255.0


def _targets(block: Block, rows: Int64[np.ndarray, " Q"], turn: int) -> Int64[np.ndarray, "Q 2"]:
    """Class 0 and the runner-up whose turn it is; the nearest ones come first, then again."""
    chosen: list[tuple[int, int]] = []
    for row in rows.tolist():
        rivals = block.decision.rivals(block.vectors[row], row, turn + 1)
        chosen.append((0, rivals[turn % len(rivals)]))
    return np.array(chosen, dtype=np.int64)


def _probe(
    block: Block,
    rows: Int64[np.ndarray, " Q"],
    budget: Budget,
    classes: Int64[np.ndarray, "Q 2"] | None,
) -> Probe:
    subject = block.subject

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(subject.device)

    return Probe(
        subject.network or _black_box(subject),
        block.decision,
        on_device(rows),
        on_device(block.pictures[rows].astype(np.float32)),
        epsilon=budget.epsilon,
        norm=budget.norm,
        classes=None if classes is None else on_device(classes),
        has_levels=subject.has_levels,
        stop_when_turned=not block.decision.is_flat,
    )


def _black_box(subject: Subject):  # noqa: ANN202
    """The metric's own path as a network without gradients."""

    def network(x: Tensor) -> Tensor:
        vectors = subject.embed(x.detach().cpu().numpy().astype(np.float64))
        return torch.from_numpy(vectors).to(device=subject.device, dtype=torch.float32)

    return network
