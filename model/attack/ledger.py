"""What is proved of some questions and what attacks have found, side by side.

Nothing enters that the metric's own path has not confirmed. A decision turned by less than its
certified radius is a counter-example, and it is kept.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.attack.block import Block
from model.attack.decisions import StaysClose, StaysNear
from model.attack.library import to_levels

_BISECTIONS = 12

Rows = Int64[np.ndarray, " R"]
Deltas = Float64[np.ndarray, "R 3 H W"]
Flags = Bool[np.ndarray, " R"]


@dataclass(frozen=True, eq=False)
class CounterExample:
    """A perturbation that turns a decision from inside its certified radius.

    Attributes:
        id: of the question.
        found_by: the attack.
        certified_radius: what was claimed, l2.
        length: l2 norm of the perturbation, smaller.
        picture: the unchanged pixels, (3, H, W).
        delta: the perturbation, (3, H, W).
    """

    id: str
    found_by: str
    certified_radius: float
    length: float
    picture: Float64[np.ndarray, "3 H W"]
    delta: Float64[np.ndarray, "3 H W"]


class Ledger:
    """The questions of a block, each with what is proved of it and what turned it.

    Attributes:
        block: the questions.
        is_right: whether the unchanged picture is decided rightly, (Q,); only these are attacked.
        certified_radii: l2, (Q,); 0 where the decision is wrong; None without a certificate.
        turning: smallest norm found that turns each decision, (Q,), l2 and linf; inf where none.
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
        self.is_right = block.decision.hold(block.vectors, rows)
        self.certified_radii = self._certify() if block.subject.is_certified else None
        self.turning = {norm: np.full(count, np.inf) for norm in ("l2", "linf")}
        self.found_by = [""] * count
        self.counter_examples: list[CounterExample] = []
        self.reached: dict[float, Float64[np.ndarray, " Q"]] = {}

    @property
    def attack_radii(self) -> Float64[np.ndarray, " Q"]:
        """Smallest l2 norm found that turns each decision; inf where none was."""
        return self.turning["l2"]

    def standing(self, epsilon: float, norm: str) -> Bool[np.ndarray, " Q"]:
        """Which decisions are right and have not been turned within a budget."""
        return self.is_right & (self.turning[norm] > epsilon)

    def ratios(self) -> Float64[np.ndarray, " Q"]:
        """Attack radius over certified radius, (Q,); NaN where one of them is missing."""
        out = np.full(len(self.block.ids), np.nan)
        if self.certified_radii is not None:
            usable = np.isfinite(self.attack_radii) & (self.certified_radii > 0.0)
            np.divide(self.attack_radii, self.certified_radii, out=out, where=usable)
        return out

    def reach_bounds(self, epsilon: float) -> Float64[np.ndarray, " Q"] | None:
        """Largest distances proved possible within a budget, (Q,); None where there are none."""
        block = self.block
        if not isinstance(block.decision, StaysNear) or not block.subject.is_certified:
            return None
        rows = range(len(block.ids))
        return np.array([block.decision.reach(row, epsilon, block.subject) for row in rows])

    def judge(
        self,
        rows: Rows,
        deltas: Deltas,
        found_by: str,
        *,
        stretches: tuple[float, ...] = (1.0,),
        within: float | None = None,
    ) -> None:
        """Ask the program which perturbations turn their decision; shorten these, write them down.

        Args:
            rows: the questions, each once.
            deltas: a perturbation for each.
            found_by: the attack.
            stretches: factors to try in turn: what float32 takes for a success may need to be a
                little longer in float64.
            within: the budget they keep; None where each has its own.
        """
        left = np.arange(rows.size)
        for stretch in stretches:
            scales = np.full(left.size, stretch)
            vectors = self._moved(rows[left], deltas[left], scales)
            self._note_distances(rows[left], vectors, within)
            turned = ~self.block.decision.hold(vectors, rows[left])
            hit = left[turned]
            if hit.size:
                self._shorten(rows[hit], stretch * deltas[hit], found_by)
            left = left[~turned]
            if not left.size:
                return

    def _certify(self) -> Float64[np.ndarray, " Q"]:
        block = self.block
        return np.array(
            [
                block.decision.certified_radius(vector, row, block.subject) if right else 0.0
                for row, (vector, right) in enumerate(
                    zip(block.vectors, self.is_right.tolist(), strict=True)
                )
            ]
        )

    def _shorten(self, rows: Rows, deltas: Deltas, found_by: str) -> None:
        """Find where each decision turns on the way to its perturbation, by bisection."""
        low, high = np.zeros(rows.size), np.ones(rows.size)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2.0
            turned = ~self.block.decision.hold(self._moved(rows, deltas, middle), rows)
            low, high = np.where(turned, low, middle), np.where(turned, middle, high)
        for row, delta in zip(rows.tolist(), self._scaled(rows, deltas, high), strict=True):
            self._write_down(row, delta, found_by)

    def _write_down(self, row: int, delta: Float64[np.ndarray, "3 H W"], found_by: str) -> None:
        length = float(np.sqrt((delta**2).sum()))
        if length < self.turning["l2"][row]:
            self.found_by[row] = found_by
        for norm, size in (("l2", length), ("linf", float(np.abs(delta).max()))):
            self.turning[norm][row] = min(self.turning[norm][row], size)
        radii = self.certified_radii
        if radii is not None and length < radii[row]:
            found = CounterExample(
                id=self.block.ids[row],
                found_by=found_by,
                certified_radius=float(radii[row]),
                length=length,
                picture=self.block.pictures[row],
                delta=delta,
            )
            self.counter_examples.append(found)

    def _note_distances(
        self, rows: Rows, vectors: Float64[np.ndarray, "R D"], within: float | None
    ) -> None:
        decision = self.block.decision
        if within is None or not isinstance(decision, StaysNear | StaysClose):
            return
        reached = self.reached.setdefault(within, np.zeros(len(self.block.ids)))
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            reached[row] = max(reached[row], decision.distance(vector, row))

    def _moved(
        self, rows: Rows, deltas: Deltas, scales: Float64[np.ndarray, " R"]
    ) -> Float64[np.ndarray, "R D"]:
        """Vectors of the pictures with scaled perturbations, by the metric's own path."""
        moved = self.block.pictures[rows] + self._scaled(rows, deltas, scales)
        return self.block.subject.embed(np.clip(moved, 0.0, 1.0))

    def _scaled(self, rows: Rows, deltas: Deltas, scales: Float64[np.ndarray, " R"]) -> Deltas:
        """Perturbations times factors, in the box, and of whole levels where only these exist."""
        pictures = self.block.pictures[rows]
        moved = np.clip(pictures + scales[:, None, None, None] * deltas, 0.0, 1.0) - pictures
        return to_levels(moved) if self.block.subject.has_levels else moved
