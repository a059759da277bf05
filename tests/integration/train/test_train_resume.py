"""A run is killed, or told to stop: what it ends with is what it would have been."""

import json
import os
import random
import signal
import time

import pytest
from train_tools import QUICK, Forge, forge, outcome, quick, train

from model.nets.checkpoint import load_checkpoint

PAUSE = 0.03


@pytest.fixture(scope="module")
def runs():
    with forge() as started:
        yield started


@pytest.fixture(scope="module")
def whole(runs: Forge, tmp_path_factory):
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole")
    runs.start(out, pause=PAUSE)
    ended = runs.wait()
    assert ended["codes"] == [0]
    return outcome(out)


def steps_logged(folder) -> int:
    """The last step in a run's log, however much of its last line is written."""
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(runs, whole, tmp_path):
    wanted = whole
    dice = random.Random(11)
    for target in sorted(dice.sample(range(1, 10), 4)):
        (pid,) = runs.start(tmp_path, pause=PAUSE)
        while steps_logged(tmp_path) < target:
            time.sleep(0.005)
        time.sleep(dice.uniform(0.0, PAUSE))
        os.kill(pid, signal.SIGKILL)
        assert runs.wait()["codes"] == [-signal.SIGKILL]
    runs.start(tmp_path)
    assert runs.wait()["codes"] == [0]
    assert outcome(tmp_path) == wanted
    assert wanted["steps"] == list(range(1, 13))


def test_a_run_told_to_stop_saves_that_very_step_and_goes_on_from_it(runs, whole, tmp_path):
    for number in (signal.SIGINT, signal.SIGTERM):
        (pid,) = runs.start(tmp_path, pause=PAUSE, save_every=1000, validate_every=1000)
        metrics = tmp_path / "metrics.jsonl"
        seen = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        while not (metrics.exists() and len(metrics.read_text().splitlines()) >= seen + 2):
            time.sleep(0.005)
        os.kill(pid, number)
        ended = runs.wait()
        assert ended["codes"] == [130]
        assert "the same command goes on" in ended["messages"][0]
    runs.start(tmp_path, save_every=1000, validate_every=1000)
    ended = runs.wait()
    assert ended["codes"] == [0]
    assert "going on from step" in ended["messages"][0]
    # No validation on the way: the losses alone are those of the whole run.
    found = outcome(tmp_path)
    assert (found["steps"], found["losses"]) == (whole["steps"], whole["losses"])
    assert found["last"] == whole["last"]


def test_this_process_gets_what_the_other_ones_got(whole, tmp_path):
    """The run is the same in a library call, and a finished one is not run again."""
    student, task = quick("distill", QUICK)
    with (tmp_path / "said").open("w") as stream:
        checkpoint = train(student, task, QUICK, tmp_path, stream=stream)
        again = train(*quick("distill", QUICK), QUICK, tmp_path, stream=stream)
    assert outcome(tmp_path) == whole
    assert checkpoint.fingerprint == again.fingerprint == whole["best"][1]
    assert "holds this run, finished" in (tmp_path / "said").read_text()
    assert load_checkpoint(tmp_path / "last.safetensors").fingerprint == whole["last"]


def test_a_run_whose_batches_a_worker_makes_ends_the_same(whole, tmp_path):
    config = QUICK.with_changes({"workers": 1})
    with (tmp_path / "said").open("w") as stream:
        train(*quick("distill", config), config, tmp_path, stream=stream)
    assert outcome(tmp_path) == whole
