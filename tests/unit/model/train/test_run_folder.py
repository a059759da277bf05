"""What a run keeps on disk, when the disk or another run is against it."""

import json
import os
import sys

import pytest
import torch

from model.errors import DependencyError, TrainingError
from model.train.config import TrainConfig
from model.train.run_folder import Best, MetricLog, RunFolder, replacing


def test_states_and_best_weights_come_back_as_they_were(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.load_state() is None
    assert folder.load_best() is None
    tensors = {"student": {"a": torch.arange(4.0)}, "optimizer": {"state": {0: {}}}, "average": {}}
    folder.save_state({"step": 3, "seconds": 1.0, **tensors})
    folder.save_best(Best(step=2, scores={"score": 0.5}, weights={"a": torch.ones(2)}))
    loaded, best = folder.load_state(), folder.load_best()
    assert loaded is not None
    assert best is not None
    assert loaded["step"] == 3
    assert torch.equal(loaded["student"]["a"], torch.arange(4.0))
    assert (best.step, best.scores, best.weights["a"].tolist()) == (2, {"score": 0.5}, [1.0, 1.0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "state.pt"]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut", b"\x80\x02cos\nsystem\n(S'x'\ntR."])
def test_a_damaged_state_is_named(tmp_path, damage):
    (tmp_path / "state.pt").write_bytes(damage)
    with pytest.raises(TrainingError, match=r"state\.pt is damaged"):
        RunFolder(tmp_path).load_state()


class Trap:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_nothing_that_a_state_says_is_run(tmp_path):
    torch.save({"step": Trap(tmp_path / "sprung")}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt is damaged"):
        RunFolder(tmp_path).load_state()
    assert not (tmp_path / "sprung").exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")

    def interrupted():
        with replacing(path) as aside:
            aside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    with (
        pytest.raises(TrainingError, match=r"cannot be written: .*no space"),
        replacing(path),
    ):
        raise OSError(28, "no space left on device")


def test_another_config_or_other_data_is_refused_by_the_names_of_what_differs(tmp_path):
    folder, config = RunFolder(tmp_path), TrainConfig(steps=5)
    folder.agree(config, {"training_pictures": 10, "record": (1, 2)})
    folder.agree(config.with_changes({"workers": 3}), {"training_pictures": 10, "record": (1, 2)})
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.001 there, 0\.01 here; seed: 0"):
        folder.agree(
            config.with_changes({"seed": 2, "learning_rate": 0.01}),
            {"training_pictures": 10, "record": (1, 2)},
        )
    with pytest.raises(TrainingError, match=r"data\.training_pictures: 10 there, 11 here"):
        folder.agree(config, {"training_pictures": 11, "record": (1, 2)})
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(TrainingError, match="is not the record of a run"):
        folder.agree(config, {})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(TrainingError, match=r"run\.json is damaged: no JSON object"):
        folder.agree(config, {})


def test_one_folder_is_for_one_run_at_a_time(tmp_path):
    with (
        RunFolder(tmp_path).claimed(),
        pytest.raises(TrainingError, match="another run is at work in"),
        RunFolder(tmp_path).claimed(),
    ):
        pass
    with RunFolder(tmp_path).claimed():
        pass


def read(path):
    return [(line["step"], line["kind"]) for line in map(json.loads, path.read_text().splitlines())]


def test_a_run_that_goes_on_forgets_what_its_predecessor_wrote_after_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path, None, 0) as log:
        for step in range(1, 6):
            log.write(step, "train", {"loss": 1.0})
            if step % 2 == 0:
                log.write(step, "validation", {"score": 1.0})
    with path.open("a") as file:
        file.write('{"step": 6, "ki')  # killed in the middle of a line
    with MetricLog(path, None, 4) as log:
        log.write(4, "validation", {"score": 2.0})
        log.write(5, "train", {"loss": 3.0})
    # The validation of step 4 is done again: its state is saved before it.
    assert read(path) == [
        (1, "train"),
        (2, "train"),
        (2, "validation"),
        (3, "train"),
        (4, "train"),
        (4, "validation"),
        (5, "train"),
    ]


def test_event_files_are_written_or_what_they_need_is_said(tmp_path, monkeypatch):
    with MetricLog(tmp_path / "m", tmp_path / "events", 0) as log:
        log.write(1, "train", {"loss": 1.0})
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(DependencyError, match=r"\[train\].*--set tensorboard=false"):
        MetricLog(tmp_path / "m", tmp_path / "events", 0)
