"""A run is killed, or told to stop: what it ends with is what it would have been."""

import os
import random
import signal
import time

import pytest
from train_tools import QUICK, Forge, forge, outcome, quick

from model.checkpoint import load_checkpoint
from model.train.trainer import train

PAUSE = 0.03


@pytest.fixture(scope="module")
def runs():
    with forge() as started:
        yield started


@pytest.fixture(scope="module")
def whole(runs: Forge, tmp_path_factory):
    """An undisturbed run, and the seconds it took."""
    out = tmp_path_factory.mktemp("whole")
    runs.start(out, pause=PAUSE)
    ended = runs.wait()
    assert ended["codes"] == [0]
    return outcome(out), ended["seconds"]


def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(runs, whole, tmp_path):
    wanted, seconds = whole
    dice, kills = random.Random(11), 0
    for attempt in range(5):
        (pid,) = runs.start(tmp_path, pause=PAUSE)
        # The first three die before they can be done; the others where they happen to be.
        time.sleep(dice.uniform(0.2, 0.5 if attempt < 3 else 0.9) * seconds)
        os.kill(pid, signal.SIGKILL)
        kills += runs.wait()["codes"] == [-signal.SIGKILL]
    runs.start(tmp_path)
    assert runs.wait()["codes"] == [0]
    assert kills >= 3
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
    assert (found["steps"], found["losses"]) == (whole[0]["steps"], whole[0]["losses"])
    assert found["last"] == whole[0]["last"]


def test_this_process_gets_what_the_other_ones_got(whole, tmp_path):
    """The run is the same in a library call, and a finished one is not run again."""
    student, task = quick("distill", QUICK)
    with (tmp_path / "said").open("w") as stream:
        checkpoint = train(student, task, QUICK, tmp_path, stream=stream)
        again = train(*quick("distill", QUICK), QUICK, tmp_path, stream=stream)
    assert outcome(tmp_path) == whole[0]
    assert checkpoint.fingerprint == again.fingerprint == whole[0]["best"][1]
    assert "holds this run, finished" in (tmp_path / "said").read_text()
    assert load_checkpoint(tmp_path / "last.safetensors").fingerprint == whole[0]["last"]
