"""What is proved of some questions and what attacks have found, side by side.

Nothing enters that the metric's own path has not confirmed. A decision flipped by less than its
certified radius is a counter-example, and it is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.attack.decisions import Match
from model.attack.pixel_metric import to_levels
from model.attack.questions import Block

Rows = Int64[np.ndarray, " R"]
Deltas = Float64[np.ndarray, "R 3 H W"]


class CounterExample(NamedTuple):
    """A perturbation that flips a decision from inside its certified radius.

    Attributes:
        fields: the question's `id`; the attack that it was `found_by`; the `certified_radius` that
            was claimed and the perturbation's smaller `length`, l2.
        picture: the unchanged pixels, (3, H, W).
        delta: the perturbation, (3, H, W).
    """

    fields: dict[str, Any]
    picture: Float64[np.ndarray, "3 H W"]
    delta: Float64[np.ndarray, "3 H W"]


class Ledger:
    """The questions of a block, each with what is proved of it and what flipped it.

    Attributes:
        block: the questions.
        is_right: whether the unchanged picture is decided rightly, (Q,); only these are attacked.
        certified_radii: l2, (Q,); 0 where the decision is wrong; NaN without a certificate.
        flip_norms: smallest norm found that flips each decision, (Q,), l2 and linf; inf where none.
        found_by: the attack that found the smallest l2 norm, (Q,); "" where none did.
        counter_examples: what should not exist.
        reached: for a budget the largest distance an attack within it has reached, (Q,); only
            where the decision is about a distance.
    """

    def __init__(self, block: Block) -> None:
        """Decides the unchanged questions and proves what can be proved."""
        self.block = block
        count = len(block.ids)
        rows = np.arange(count)
        self.is_right = block.decision.holds(block.vectors, rows)
        self.certified_radii = np.array([self._certified_radius(row) for row in range(count)])
        self.flip_norms = {norm: np.full(count, np.inf) for norm in ("l2", "linf")}
        self.found_by = [""] * count
        self.counter_examples: list[CounterExample] = []
        self.reached: dict[float, Float64[np.ndarray, " Q"]] = {}

    @property
    def attack_radii(self) -> Float64[np.ndarray, " Q"]:
        """Smallest l2 norm found that flips each decision; inf where none was."""
        return self.flip_norms["l2"]

    def standing(self, epsilon: float, norm: str) -> Bool[np.ndarray, " Q"]:
        """Which decisions are right and have not been flipped within a budget."""
        return self.is_right & (self.flip_norms[norm] > epsilon)

    def ratios(self) -> Float64[np.ndarray, " Q"]:
        """Attack radius over certified radius, (Q,); NaN where one of them is missing."""
        out = np.full(len(self.block.ids), np.nan)
        usable = np.isfinite(self.attack_radii) & (self.certified_radii > 0.0)
        return np.divide(self.attack_radii, self.certified_radii, out=out, where=usable)

    def reach_bounds(self, epsilon: float) -> Float64[np.ndarray, " Q"] | None:
        """Largest distances proved possible within a budget, (Q,); None where there are none."""
        block = self.block
        if not isinstance(block.decision, Match) or not block.metric.is_certified:
            return None
        rows = range(len(block.ids))
        return np.array([block.decision.reach(row, epsilon, block.metric) for row in rows])

    def answers(self) -> list[dict[str, Any]]:
        """What is known of each question, in plain types; None for no radius or an infinite one."""
        return [
            {
                "id": one,
                "is_right": bool(self.is_right[row]),
                "certified_radius": _finite(self.certified_radii[row]),
                "attack_radius": _finite(self.attack_radii[row]),
                "found_by": self.found_by[row] or None,
            }
            for row, one in enumerate(self.block.ids)
        ]

    def record(
        self,
        rows: Rows,
        deltas: Deltas,
        found_by: str,
        *,
        stretches: tuple[float, ...] = (1.0,),
        within: float | None = None,
    ) -> None:
        """Ask the program which perturbations flip their decision; shorten these, write them down.

        `stretches` are factors to try in turn: what float32 takes for a success may need to be a
        little longer in float64. `within` is the budget that all of them keep, if they do.
        """
        left = np.arange(rows.size)
        for stretch in stretches:
            scales = np.full(left.size, stretch)
            vectors = self._moved(rows[left], deltas[left], scales)
            self._note_distances(rows[left], vectors, within)
            flipped = ~self.block.decision.holds(vectors, rows[left])
            hit = left[flipped]
            if hit.size:
                self._shorten(rows[hit], stretch * deltas[hit], found_by)
            left = left[~flipped]
            if not left.size:
                return

    def _certified_radius(self, row: int) -> float:
        block = self.block
        if not block.metric.is_certified:
            return np.nan
        if not self.is_right[row]:
            return 0.0
        return block.decision.certified_radius(block.vectors[row], row, block.metric)

    def _shorten(self, rows: Rows, deltas: Deltas, found_by: str) -> None:
        """Write down where each decision flips on the way to its perturbation."""

        def flips(scales: Float64[np.ndarray, " R"]) -> Bool[np.ndarray, " R"]:
            return ~self.block.decision.holds(self._moved(rows, deltas, scales), rows)

        scaled = self._scaled(rows, deltas, smallest_scales(flips, rows.size))
        for row, delta in zip(map(int, rows), scaled, strict=True):
            length, radius = float(np.sqrt((delta**2).sum())), float(self.certified_radii[row])
            if length < self.flip_norms["l2"][row]:
                self.found_by[row] = found_by
            for norm, size in (("l2", length), ("linf", float(np.abs(delta).max()))):
                self.flip_norms[norm][row] = min(self.flip_norms[norm][row], size)
            if length < radius:
                about = {"id": self.block.ids[row], "found_by": found_by}
                fields = {**about, "certified_radius": radius, "length": length}
                found = CounterExample(fields, self.block.pictures[row], delta)
                self.counter_examples.append(found)

    def _note_distances(
        self, rows: Rows, vectors: Float64[np.ndarray, "R D"], within: float | None
    ) -> None:
        decision = self.block.decision
        if within is None or not isinstance(decision, Match):
            return
        reached = self.reached.setdefault(within, np.zeros(len(self.block.ids)))
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            reached[row] = max(reached[row], decision.pair(vector, row).distance)

    def _moved(
        self, rows: Rows, deltas: Deltas, scales: Float64[np.ndarray, " R"]
    ) -> Float64[np.ndarray, "R D"]:
        """Vectors of the pictures with scaled perturbations, by the metric's own path."""
        moved = self.block.pictures[rows] + self._scaled(rows, deltas, scales)
        return self.block.metric.embed(np.clip(moved, 0.0, 1.0))

    def _scaled(self, rows: Rows, deltas: Deltas, scales: Float64[np.ndarray, " R"]) -> Deltas:
        """Perturbations times factors, in the box, and of whole levels where only these exist."""
        pictures = self.block.pictures[rows]
        moved = np.clip(pictures + scales[:, None, None, None] * deltas, 0.0, 1.0) - pictures
        return to_levels(moved) if self.block.metric.has_levels else moved


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def smallest_scales(
    flips: Callable[[np.ndarray], np.ndarray], count: int, *, bisections: int = 12
) -> Float64[np.ndarray, " R"]:
    """The smallest factors in (0, 1] at which perturbations still flip, by bisection.

    `flips` says which of them, each times its factor, flip their decision; all do at 1.

    Each that is found flips, within 2**-bisections of one that does not.
    """
    low, high = np.zeros(count), np.ones(count)
    for _ in range(bisections):
        middle = (low + high) / 2.0
        flipped = flips(middle)
        low, high = np.where(flipped, low, middle), np.where(flipped, middle, high)
    return high
