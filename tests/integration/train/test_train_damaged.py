"""A run's folder that was cut short or changed by hand: the file is named, and what to do."""

import json
import shutil

import pytest
import torch
from train_tools import QUICK, outcome, quick, train

from model.errors import TrainingError


def run(out):
    return train(*quick("distill", QUICK), QUICK, out)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that ended in the middle, after two validations."""
    out = tmp_path_factory.mktemp("stopped")
    student, task = quick("distill", QUICK)
    real_loss, left = task.loss, iter(range(10))

    def stopping(student, batch):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real_loss(student, batch)

    task.loss = stopping
    with pytest.raises(KeyboardInterrupt):
        train(student, task, QUICK, out)
    return out


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def refused(folder, name, words):
    """The run in the folder is refused, by this file's name and for this reason."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(TrainingError) as caught:
        run(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / name} is damaged: ")
    assert words in message
    assert f"delete {folder} and start again, or take another --out" in message
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ('{"schema": "lips', "no JSON"),
        ("\xff", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ("{}", "it is not the record of a run"),
        ('{"schema": "lipsim-run-2"}', "it is not the record of a run"),
        ('{"schema": "lipsim-run-2", "run": [1]}', "it is not the record of a run"),
    ],
)
def test_a_damaged_record_is_named(folder, text, words):
    (folder / "run.json").write_bytes(text.encode("latin-1"))
    refused(folder, "run.json", words)


@pytest.mark.parametrize("name", ["state.pt", "best.pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_tensors_that_were_cut_short_are_named(folder, name, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    refused(folder, name, "")


@pytest.mark.parametrize(
    "damage", [b"\x80\x02}q\x00.", b"\x80\x02h\x00.", b"\x80\x02X\x01\x00.", b"\x80\x02]q\x00a."]
)
def test_bytes_that_are_nothing_of_ours_are_named(folder, damage):
    (folder / "state.pt").write_bytes(damage)
    refused(folder, "state.pt", "")


def _without(name):
    return lambda state: state.pop(name)


def _changed(value, *names):
    def change(state):
        for name in names[:-1]:
            state = state[name]
        state[names[-1]] = value

    return change


WEIGHT = "linear.1.weight"
STATES = {
    "no step": (_without("step"), "'step'"),
    "text step": (_changed("three", "step"), "invalid literal for int"),
    "no average": (_without("average"), "'average'"),
    "list of tensors": (_changed([], "student"), "state_dict to be dict-like"),
    "no weight": (lambda s: s["student"].pop(WEIGHT), WEIGHT),
    "no averaged weight": (lambda s: s["average"].pop(WEIGHT), WEIGHT),
    "weight of one": (_changed(torch.zeros(1), "average", WEIGHT), f"size mismatch for {WEIGHT}"),
    "numbers": (_changed([1.0], "student", WEIGHT), WEIGHT),
    "a stranger": (_changed(torch.zeros(1), "student", "x"), "Unexpected key(s) in state_dict"),
    "no moments": (lambda s: s["optimizer"].pop("state"), "'state'"),
}
BEST = {"no score": (_without("scores"), "'scores'")}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [("state.pt", *case) for case in STATES.values()]
    + [("best.pt", *case) for case in BEST.values()],
    ids=[f"state: {name}" for name in STATES] + [f"best: {name}" for name in BEST],
)
def test_members_that_are_missing_or_of_another_kind_are_named(folder, name, change, words):
    stored = torch.load(folder / name, weights_only=True)
    change(stored)
    torch.save(stored, folder / name)
    refused(folder, name, words)


def test_tensors_that_are_no_mapping_are_named(folder):
    torch.save([torch.zeros(3)], folder / "state.pt")
    refused(folder, "state.pt", "")


def test_a_damaged_report_is_named(folder):
    run(folder)
    report = json.loads((folder / "report.json").read_text())
    del report["best"]["fingerprint"]
    (folder / "report.json").write_text(json.dumps(report))
    refused(folder, "report.json", "'fingerprint'")


def test_another_checkpoint_in_the_place_of_the_reported_one_is_named(folder, tmp_path):
    run(folder)
    config = QUICK.with_changes({"seed": 1})
    other = train(*quick("distill", config, seed=1), config, tmp_path / "other")
    shutil.copy(tmp_path / "other" / "best.safetensors", folder)
    refused(folder, "best.safetensors", f"its fingerprint is {other.fingerprint}, the report's is")


def test_strange_lines_of_the_log_are_left_out(folder, tmp_path):
    run(tmp_path / "whole")
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n[1]\n")
    run(folder)
    assert outcome(folder) == outcome(tmp_path / "whole")
