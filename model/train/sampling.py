"""Which examples a run has: at each place of each step, and held out to be measured on."""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from model.data.pictures import (
    Picture,
    PictureSet,
    check_pictures,
    evenly,
    has_split,
    open_pictures,
    splits_of,
)
from model.errors import DataError, TrainingError
from model.train.config import TrainConfig
from model.train.distributed import own_share, progress

# What a generator is for: two uses of one seed must not draw the same numbers.
_ORDER, _VIEW = 1, 2


def example_at(seed: int, examples: int, place: int) -> int:
    """The example at a place (step * batch size + place in the batch) of all shuffled epochs."""
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


def identity_of(training: PictureSet, validation: PictureSet) -> dict[str, Any]:
    """Which pictures a run learns from and is measured on: how many, and a digest of their ids."""
    return {
        "training_pictures": len(training),
        "training_ids_sha256": ids_digest(training.ids),
        "validation_pictures": len(validation),
        "validation_ids_sha256": ids_digest(validation.ids),
    }


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
        return self._pictures.name

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    @property
    def labels(self) -> Sequence[str | None]:
        return [self._pictures.labels[place] for place in self._places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Picture:
        return self._pictures[self._places[index]]


def training_and_validation(config: TrainConfig, data: Path) -> tuple[PictureSet, PictureSet]:
    """Training and validation pictures, by the data's own splits or by hash."""
    splits = splits_of(data)
    if splits and not config.train_split:
        raise TrainingError(
            f"{data} has the splits {', '.join(splits)}, and the run names none: it would "
            f"learn from all of them, what is measured too; say `--set train_split={splits[0]}`"
        )
    instead = "`--set train_split=` takes all there is"
    if splits:
        instead = f"it has the splits {', '.join(splits)}"
    pictures = _opened(data, config.train_split, instead)
    if config.validation_split:
        instead = "`--set validation_split=` holds pictures out of the training part instead"
        validation = _opened(data, config.validation_split, instead)
        return pictures, Part(validation, evenly(len(validation), config.validation_examples))
    if len(pictures) < 2:
        raise TrainingError(f"one picture cannot be trained and validated on: {pictures.name}")
    out = held_out(pictures.ids, config.validation_examples)
    inside = sorted(set(range(len(pictures))).difference(out))
    return Part(pictures, inside), Part(pictures, out)


def check_decodes(config: TrainConfig, training: PictureSet, validation: PictureSet) -> None:
    """Decodes this process's share of the pictures that are tried before the first step."""
    for what, pictures in (("training", training), ("validation", validation)):
        tried = Part(pictures, own_share(evenly(len(pictures), config.checked_examples)))
        with progress().counter(f"decoding {what} pictures to try them", len(tried)) as advance:

            def passed(count: int, advance: Callable[[], None] = advance) -> None:
                for _ in range(count):
                    advance()

            check_pictures(tried, workers=config.workers or 1, advance=passed)


def _opened(data: Path, split: str, instead: str) -> PictureSet:
    """A part of the data; where there is no such part, the error says what may be done instead."""
    try:
        return open_pictures(data, split=split or None)
    except DataError as exc:
        if not data.is_dir() or has_split(data, split):
            raise
        raise DataError(f"{exc}; {instead}") from exc


@lru_cache(maxsize=2)
def _epoch_order(seed: int, examples: int, epoch: int) -> Int64[np.ndarray, " N"]:
    order: Any = np.random.default_rng([seed, _ORDER, epoch]).permutation(examples)
    return order
