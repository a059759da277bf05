"""Which example stands at which place of which step, and which ones are held out."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int64

from model.data.pictures import Picture, PictureSet

# What a generator is for: two uses of one seed must not draw the same numbers.
_ORDER, _VIEW = 1, 2


def example_at(seed: int, examples: int, place: int) -> int:
    """The example at a place of the endless row of shuffled epochs.

    Args:
        seed: of the run.
        examples: how many an epoch holds.
        place: step * batch size + place in the global batch.
    """
    epoch, position = divmod(place, examples)
    return int(_epoch_order(seed, examples, epoch)[position])


def view_generator(seed: int, place: int) -> np.random.Generator:
    """Draws what is random about the example at a place; independent of processes and attempts."""
    return np.random.default_rng([seed, _VIEW, place])


def held_out(ids: Sequence[str], most: int) -> list[int]:
    """Places of the examples that are validated on: the first by sha256 of their id.

    An example's rank does not hang on where it lies, so adding a few changes few. At most a tenth
    of the set, and at least one, is held out.
    """
    count = max(1, min(most, len(ids) // 10))
    ranked = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    return sorted(ranked[:count])


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers below count, evenly spread; 0 means all."""
    if most == 0 or most >= count:
        return list(range(count))
    return [index * count // most for index in range(most)]


def ids_digest(ids: Sequence[str]) -> str:
    """sha256 of the ids in their order, which says which examples a run had."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


class Part:
    """Some of a set's pictures, as a set."""

    def __init__(self, pictures: PictureSet, places: Sequence[int]) -> None:
        self._pictures, self._places = pictures, list(places)
        self._ids = [pictures.ids[place] for place in places]

    @property
    def name(self) -> str:
        """That of the whole."""
        return self._pictures.name

    @property
    def ids(self) -> Sequence[str]:
        """The id of each picture."""
        return self._ids

    @property
    def labels(self) -> Sequence[str | None]:
        """The class of each picture."""
        return [self._pictures.labels[place] for place in self._places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Picture:
        """Read one picture."""
        return self._pictures[self._places[index]]


@lru_cache(maxsize=2)
def _epoch_order(seed: int, examples: int, epoch: int) -> Int64[np.ndarray, " N"]:
    order: Any = np.random.default_rng([seed, _ORDER, epoch]).permutation(examples)
    return order
