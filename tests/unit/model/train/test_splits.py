import pytest
from image_files import encoded, photo
from listed_pictures import ListWriter

from model.errors import DataError, TrainingError
from model.train.config import TrainConfig
from model.train.sampling import training_and_validation

SPLITS = TrainConfig(train_split="train", validation_split="validation", validation_examples=2)


@pytest.fixture
def listed(tmp_path):
    with ListWriter(tmp_path / "listed", "train") as writer:
        for number in range(6):
            writer.add(str(number), encoded(photo(seed=number), "PNG"), "png")
    return tmp_path / "listed"


def test_a_missing_split_is_refused_with_the_setting_that_does_without(listed, tmp_path):
    with pytest.raises(DataError, match=r"no folder validation .*`--set validation_split=`"):
        training_and_validation(SPLITS, listed)
    (tmp_path / "plain").mkdir()
    with pytest.raises(DataError, match=r"no folder train .*`--set train_split=`"):
        training_and_validation(SPLITS, tmp_path / "plain")
    held_out = SPLITS.with_changes({"validation_split": ""})
    training, validation = training_and_validation(held_out, listed)
    assert (len(training), len(validation)) == (5, 1)


def test_a_split_that_is_there_and_damaged_is_refused_for_what_it_is(listed):
    (listed / "validation").mkdir()
    (listed / "validation" / "index.jsonl").write_text("no list")
    with pytest.raises(DataError, match=r"validation/index\.jsonl, line 1") as refused:
        training_and_validation(SPLITS, listed)
    assert "--set" not in str(refused.value)


def test_data_that_is_not_there_is_refused_for_that(tmp_path):
    with pytest.raises(DataError, match="nothing is at") as refused:
        training_and_validation(SPLITS, tmp_path / "none")
    assert "--set" not in str(refused.value)


def save(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(photo(seed=number), "PNG"))
    return root


def test_data_with_splits_is_not_trained_on_whole_because_the_run_names_none(listed, tmp_path):
    unsaid = TrainConfig(validation_examples=2)
    assert len(training_and_validation(unsaid, listed)[0]) == 5, "all there is trains"
    for split in ("validation", "test"):
        with ListWriter(tmp_path / "listed", split) as writer:
            writer.add(split, encoded(photo(seed=9), "PNG"), "png")
    folders = save(tmp_path / "folders", "train/a/0.png", "val/a/1.png", "test/a/2.png")
    for data, splits in ((listed, "train, validation, test"), (folders, "train, val, test")):
        message = rf"has the splits {splits}, .* say `--set train_split=train`"
        with pytest.raises(TrainingError, match=message):
            training_and_validation(unsaid, data)
        with pytest.raises(TrainingError, match=message):
            training_and_validation(unsaid.with_changes({"validation_split": "validation"}), data)
    said = unsaid.with_changes({"train_split": "train"})
    assert len(training_and_validation(said, listed)[0]) == 5


def test_one_folder_called_like_a_split_is_a_label(tmp_path):
    trains = save(tmp_path / "toys", *(f"{toy}/{n}.png" for toy in ("train", "cat") for n in "012"))
    unsaid = TrainConfig(validation_examples=2)
    assert len(training_and_validation(unsaid, trains)[0]) == 5


def test_a_split_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with ListWriter(tmp_path / "listed", "test") as writer:
        writer.add("0", encoded(photo(), "PNG"), "png")
    with pytest.raises(DataError, match=r"no folder train .*; it has the splits test$"):
        training_and_validation(SPLITS, tmp_path / "listed")
