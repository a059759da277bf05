import dataclasses

import pytest
from image_files import encoded, photo

from model.data.shards import ShardWriter
from model.errors import DataError
from model.train.config import TrainConfig
from model.train.held_out import training_and_validation
from model.train.task import Sources

SPLITS = TrainConfig(train_split="train", validation_split="validation", validation_examples=2)


@pytest.fixture
def shards(tmp_path):
    with ShardWriter(tmp_path / "shards", "train") as writer:
        for number in range(6):
            writer.add(str(number), encoded(photo(seed=number), "PNG"), "png")
    return tmp_path / "shards"


def test_a_missing_split_is_refused_with_the_setting_that_does_without(shards, tmp_path):
    with pytest.raises(DataError, match=r"no shards validation-.*`--set validation_split=`"):
        training_and_validation(SPLITS, Sources(shards))
    (tmp_path / "plain").mkdir()
    with pytest.raises(DataError, match=r"no folder train .*`--set train_split=`"):
        training_and_validation(SPLITS, Sources(tmp_path / "plain"))
    held_out = dataclasses.replace(SPLITS, validation_split="")
    training, validation = training_and_validation(held_out, Sources(shards))
    assert (len(training), len(validation)) == (5, 1)


def test_a_split_that_is_there_and_damaged_is_refused_for_what_it_is(shards):
    (shards / "validation-000000.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"validation-000000\.tar") as refused:
        training_and_validation(SPLITS, Sources(shards))
    assert "--set" not in str(refused.value)


def test_data_that_is_not_there_is_refused_for_that(tmp_path):
    with pytest.raises(DataError, match="nothing is at") as refused:
        training_and_validation(SPLITS, Sources(tmp_path / "none"))
    assert "--set" not in str(refused.value)
