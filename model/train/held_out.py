"""Which pictures a run learns from, and which it is measured on."""

from pathlib import Path

from model.data.pictures import PictureSet, has_split, open_pictures, splits_of
from model.errors import DataError, TrainingError
from model.train.config import TrainConfig
from model.train.sampling import Part, evenly, held_out
from model.train.task import Sources


def training_and_validation(config: TrainConfig, sources: Sources) -> tuple[PictureSet, PictureSet]:
    """Training and validation pictures, by the data's own splits or by hash.

    Raises:
        DataError: there is no such data, or no such split of it.
        TrainingError: there is one picture alone, or no split is named of data that has some.
    """
    splits = splits_of(sources.data)
    if splits and not config.train_split:
        raise TrainingError(
            f"{sources.data} has the splits {', '.join(splits)}, and the run names none: it would "
            f"learn from all of them, what is measured too; say `--set train_split={splits[0]}`"
        )
    instead = "`--set train_split=` takes all there is"
    if splits:
        instead = f"it has the splits {', '.join(splits)}"
    pictures = _opened(sources.data, config.train_split, instead)
    if config.validation_split:
        instead = "`--set validation_split=` holds pictures out of the training part instead"
        validation = _opened(sources.data, config.validation_split, instead)
        return pictures, Part(validation, evenly(len(validation), config.validation_examples))
    if len(pictures) < 2:
        raise TrainingError(f"one picture cannot be trained and validated on: {pictures.name}")
    out = held_out(pictures.ids, config.validation_examples)
    inside = sorted(set(range(len(pictures))).difference(out))
    return Part(pictures, inside), Part(pictures, out)


def _opened(data: Path, split: str, instead: str) -> PictureSet:
    """A part of the data; where there is no such part, the error says what may be done instead."""
    try:
        return open_pictures(data, split=split or None)
    except DataError as exc:
        if not data.is_dir() or has_split(data, split):
            raise
        raise DataError(f"{exc}; {instead}") from exc
