"""Which pictures a run learns from, and which it is measured on."""

from model.data.pictures import PictureSet, open_pictures
from model.errors import TrainingError
from model.train.config import TrainConfig
from model.train.sampling import Part, evenly, held_out
from model.train.task import Sources


def training_and_validation(config: TrainConfig, sources: Sources) -> tuple[PictureSet, PictureSet]:
    """Training and validation pictures, by the data's own splits or by hash.

    Raises:
        DataError: there is no such data, or no such split of it.
        TrainingError: there is one picture alone.
    """
    pictures = open_pictures(sources.data, split=config.train_split or None)
    if config.validation_split:
        validation = open_pictures(sources.data, split=config.validation_split)
        return pictures, Part(validation, evenly(len(validation), config.validation_examples))
    if len(pictures) < 2:
        raise TrainingError(f"one picture cannot be trained and validated on: {pictures.name}")
    out = held_out(pictures.ids, config.validation_examples)
    inside = sorted(set(range(len(pictures))).difference(out))
    return Part(pictures, inside), Part(pictures, out)
