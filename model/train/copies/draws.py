"""Which pictures and copies a batch holds: by kind, and beside what looks like them.

A picture's hardest competitors are the few that look like it, and a random batch seldom holds one:
so half of a batch may be drawn, and each picture brings a neighbour.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from model.errors import TrainingError
from model.train.distributed import places_of
from model.train.sampling import view_generator

_DRAW = 5
_BLOCK = 1024


class Draws:
    """The pictures of each step's global batch and a copy of each: functions of seed and step."""

    def __init__(
        self,
        weights: Float64[np.ndarray, " P"],
        neighbours: Int64[np.ndarray, "P K"] | None,
        *,
        seed: int,
        batch_size: int,
        views: int = 1,
    ) -> None:
        """Draws pictures by their probability, and one of so many views of each.

        With `neighbours`, the pictures that look most like each, half of a batch is drawn.
        """
        if neighbours is not None and batch_size % 2:
            raise TrainingError(f"with neighbours, batch_size must be even, got {batch_size}")
        self._weights, self._neighbours = weights, neighbours
        self._seed, self._count, self._views = seed, batch_size, views

    def pairs(
        self, step: int, rank: int, world: int
    ) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
        """This process's pictures, and for each which of its copies is seen, from 1 on."""
        places = places_of(step, self._count, rank, world)
        views = [1 + view_generator(self._seed, place).integers(self._views) for place in places]
        return self.pictures(step)[np.array(places) % self._count], np.array(views)

    def pictures(self, step: int) -> Int64[np.ndarray, " B"]:
        """Their numbers; a drawn one stands before its neighbour."""
        rng = np.random.default_rng([self._seed, _DRAW, step])
        if self._neighbours is None:
            return self._drawn(rng, self._count)
        drawn = self._drawn(rng, self._count // 2)
        which = rng.integers(self._neighbours.shape[1], size=len(drawn))
        return np.stack([drawn, self._neighbours[drawn, which]], axis=1).ravel()

    def _drawn(self, rng: np.random.Generator, count: int) -> Int64[np.ndarray, " B"]:
        """Pictures by weight; none twice where there are enough."""
        is_scarce = bool(count > np.count_nonzero(self._weights))
        return rng.choice(len(self._weights), count, replace=is_scarce, p=self._weights)


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


def nearest_pictures(embeddings: Float[np.ndarray, "P D"], count: int) -> Int64[np.ndarray, "P K"]:
    """The pictures of highest cosine with each, itself left out, best first; at most `count`."""
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-30)
    most = min(count, len(units) - 1)
    found: list[Int64[np.ndarray, "B K"]] = []
    for first in range(0, len(units), _BLOCK):
        cosines = units[first : first + _BLOCK] @ units.T
        cosines[np.arange(len(cosines)), first + np.arange(len(cosines))] = -np.inf
        found.append(np.argsort(-cosines, axis=1, kind="stable")[:, :most])
    return np.concatenate(found)
