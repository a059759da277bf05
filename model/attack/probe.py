# pyright: basic
# torch's types are loose.
"""The module that a library attacks: it answers with scores and keeps the best input it was shown.

A library hands back the last input of a run. An attack wins if any input along the way turns the
decision, so the probe remembers, for each question, the input within the budget that came nearest
to turning it. A question that is turned costs nothing more, and when all are, the probe stops the
attack.

Libraries part, order and repeat a batch as they like and do not say which question an input belongs
to. The probe knows it from the input: questions run together only where their pictures are more
than two budgets apart, so an input within one budget of a picture is that question's.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from model.attack.decisions import Decision

# A score turned by less may be float32's doing, and the attack goes on.
_TURNED = -1e-4
# How much over its budget an input may be by rounding.
_ROUNDING = 1.0 + 1e-4


class AllTurnedError(Exception):
    """Every question's decision has been turned: there is nothing left to attack."""


class Probe(nn.Module):
    """Pixels to scores, class 0 first; nothing is asked of the metric for turned questions.

    Args:
        network: float32 pixels (B, 3, H, W) to raw vectors.
        decision: turns vectors into scores.
        rows: the questions under attack, (Q,).
        pictures: their unchanged pixels, float32, (Q, 3, H, W), far enough apart.
        epsilon: the budget.
        norm: "l2" or "linf".
        classes: the classes that compete, class 0 first, (Q, C); None for all.
        has_levels: show the metric multiples of 1/255 only.
        stop_when_turned: whether a turned question is left alone.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        decision: Decision,
        rows: Int64[Tensor, " Q"],
        pictures: Float[Tensor, "Q 3 H W"],
        *,
        epsilon: float,
        norm: str,
        classes: Int64[Tensor, "Q C"] | None = None,
        has_levels: bool = False,
        stop_when_turned: bool = True,
    ) -> None:
        super().__init__()
        # Held in a list, so that torch does not take it for a part to move or to put in training.
        self._network, self._decision = [network], decision
        self._rows, self._pictures, self._classes = rows, pictures, classes
        self._epsilon, self._norm = epsilon, norm
        self._has_levels, self.stop_when_turned = has_levels, stop_when_turned
        self.best = pictures.clone()
        self.gaps = torch.full((len(rows),), torch.inf, device=pictures.device)
        self.passes = 0
        with torch.no_grad():
            self.class_count = self._scores(pictures[:1], torch.zeros_like(rows[:1])).shape[1]

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Scores; where a question is turned already, constant ones that say so."""
        places, within = self._whose(x.detach())
        turned = torch.zeros((len(x), self.class_count), device=x.device)
        turned[:, 1] = 1.0
        live = ~self._is_turned()[places]
        if not live.any():
            if self.stop_when_turned and self._is_turned().all():
                raise AllTurnedError
            # Attached to the input, for libraries that differentiate without looking.
            return turned + 0.0 * x.sum()
        shown = self._snap(x[live], self._pictures[places[live]])
        scores = self._scores(shown, places[live])
        self.passes += len(shown)
        self._remember(shown.detach(), scores.detach(), places[live], within[live])
        return turned.index_put((live.nonzero()[:, 0],), scores)

    def _scores(self, x: Tensor, places: Tensor) -> Tensor:
        scores = self._decision.logits(self._network[0](x), self._rows[places])
        return scores if self._classes is None else scores.gather(1, self._classes[places])

    def _is_turned(self) -> Tensor:
        return (self.gaps < _TURNED) & self.stop_when_turned

    def _whose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Each input's question, and whether it keeps the budget."""
        distances = _distances(x, self._pictures, self._norm)
        nearest, places = distances.min(dim=1)
        return places, nearest <= self._epsilon * _ROUNDING

    def _snap(self, x: Tensor, pictures: Tensor) -> Tensor:
        """The nearest multiples of 1/255 that are not farther from the picture."""
        if not self._has_levels:
            return x
        levels = 255.0 * (x - pictures)
        whole = levels.sign() * (levels.abs() + 1e-3).floor()
        return pictures + whole / 255.0

    def _remember(self, x: Tensor, scores: Tensor, places: Tensor, within: Tensor) -> None:
        gaps = scores[:, 0] - scores[:, 1:].amax(dim=1)
        usable = within & ~gaps.isnan()
        # The same question may stand in a batch twice.
        lowest = self.gaps.scatter_reduce(0, places[usable], gaps[usable], "amin")
        chosen = usable & (gaps < self.gaps[places]) & (gaps == lowest[places])
        self.best[places[chosen]] = x[chosen]
        self.gaps = lowest


def apart(
    pictures: Float64[np.ndarray, "Q 3 H W"], epsilon: float, norm: str, most: int
) -> Iterator[list[int]]:
    """Parts of at most so many pictures, each two of a part more than two budgets apart."""
    left = list(range(len(pictures)))
    while left:
        # Those that do not fit wait for the next part; nobody compares all with all.
        candidates, left = left[:most], left[most:]
        some = torch.from_numpy(pictures[candidates])
        far = (_distances(some, some, norm) > 2.0 * epsilon * _ROUNDING).numpy()
        part: list[int] = []
        for place in range(len(candidates)):
            if far[place, part].all():
                part.append(place)
        yield [candidates[place] for place in part]
        waiting = set(range(len(candidates))) - set(part)
        left = [candidates[place] for place in sorted(waiting)] + left


def _distances(
    a: Float[Tensor, "A 3 H W"], b: Float[Tensor, "B 3 H W"], norm: str
) -> Float[Tensor, "A B"]:
    # Differences first: the product form of cdist is off by more than small budgets.
    return torch.cdist(
        a.flatten(1),
        b.flatten(1),
        p=2.0 if norm == "l2" else torch.inf,
        compute_mode="donot_use_mm_for_euclid_dist",
    )
