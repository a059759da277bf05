"""Which pictures and copies a batch holds: by kind."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from model.errors import TrainingError
from model.train.distributed import places_of
from model.train.sampling import view_generator

_DRAW = 5


class Draws:
    """The pictures of each step's global batch and a copy of each: functions of seed and step."""

    def __init__(
        self,
        weights: Float64[np.ndarray, " P"],
        *,
        seed: int,
        batch_size: int,
        views: int = 1,
    ) -> None:
        """Draws pictures by their probability, and one of so many views of each."""
        self._weights = weights
        self._seed, self._count, self._views = seed, batch_size, views

    def pairs(
        self, step: int, rank: int, world: int
    ) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
        """This process's pictures, and for each which of its copies is seen, from 1 on."""
        places = places_of(step, self._count, rank, world)
        views = [1 + view_generator(self._seed, place).integers(self._views) for place in places]
        return self.pictures(step)[np.array(places) % self._count], np.array(views)

    def pictures(self, step: int) -> Int64[np.ndarray, " B"]:
        """Their numbers; none twice where there are enough."""
        rng = np.random.default_rng([self._seed, _DRAW, step])
        is_scarce = bool(self._count > np.count_nonzero(self._weights))
        return rng.choice(len(self._weights), self._count, replace=is_scarce, p=self._weights)


def kind_probabilities(kind_weights: str, kinds: Sequence[str]) -> Float64[np.ndarray, " P"]:
    """Probability of each picture, by weights like "clipart=4,photo=3"; other kinds have 1."""
    said = f"got {kind_weights!r:.60}"
    try:
        pairs = [pair.split("=") for pair in kind_weights.split(",") if pair.strip()]
        table = {kind.strip(): float(weight) for kind, weight in pairs}
    except ValueError:
        raise TrainingError(f'kind_weights must be like "clipart=4,photo=3", {said}') from None
    if not all(0 <= weight < float("inf") for weight in table.values()):
        raise TrainingError(f"kind_weights must be finite and not negative, {said}")
    weights = np.array([table.get(kind, 1.0) for kind in kinds])
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise TrainingError(
            f"kind_weights must have a positive, finite sum over the pictures, {said}"
        )
    return weights / total
