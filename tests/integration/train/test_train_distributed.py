"""Two real processes over gloo: they take the steps of one, and survive the death of one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from image_files import encoded, photo
from listed_pictures import ListWriter
from paths import ROOT
from train_tools import Forge, forge, look_through, outcome

from model.train.run_folder import RunFolder

PAUSE = 0.03


@pytest.fixture(scope="module")
def runs():
    with forge() as started:
        yield started


def finished(runs: Forge, out: Path, **order) -> dict[str, torch.Tensor]:
    """Runs to the end; the weights it ends with."""
    runs.start(out, **order)
    ended = runs.wait()
    assert set(ended["codes"]) == {0}, ended["messages"]
    state = RunFolder(out).load_state()
    assert state is not None
    return state["student"]


@pytest.fixture(scope="module")
def pair(runs: Forge, tmp_path_factory):
    """An undisturbed run of two processes."""
    out = tmp_path_factory.mktemp("pair")
    return finished(runs, out, size=2, pause=PAUSE), outcome(out)


def test_two_processes_take_the_steps_of_one(runs, pair, tmp_path):
    weights, found = pair
    single = finished(runs, tmp_path)
    wanted = outcome(tmp_path)
    assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-4)
    assert found["steps"] == wanted["steps"]
    for name, value in single.items():
        assert float((weights[name] - value).abs().max()) <= 1e-4 * float(value.abs().max()), name


def test_a_loss_in_which_every_row_meets_every_row_is_that_of_one_process_too(runs, tmp_path):
    pair = finished(runs, tmp_path / "two", size=2, task="contrast")
    single = finished(runs, tmp_path / "one", task="contrast")
    losses = outcome(tmp_path / "one")["losses"]
    assert outcome(tmp_path / "two")["losses"] == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0]
    for name, value in single.items():
        assert float((pair[name] - value).abs().max()) <= 1e-9 * float(value.abs().max()), name


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_is_killed_the_other_says_so_and_a_restart_ends_the_same(
    runs, pair, tmp_path, victim
):
    pids = runs.start(tmp_path, size=2, pause=PAUSE)
    metrics = tmp_path / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 5):
        time.sleep(0.01)
    os.kill(pids[victim], signal.SIGKILL)
    killed = time.monotonic()
    ended = runs.wait()
    assert time.monotonic() - killed < 30
    assert ended["codes"][victim] == -signal.SIGKILL
    assert ended["codes"][1 - victim] == 1
    assert "another process of this run ended" in ended["messages"][1 - victim]
    finished(runs, tmp_path, size=2)
    assert outcome(tmp_path) == pair[1]


def test_a_batch_that_cannot_be_dealt_out_is_refused(runs, tmp_path):
    runs.start(tmp_path, size=2, batch_size=5)
    ended = runs.wait()
    assert ended["codes"] == [1, 1]
    assert "batch_size 5 is not divisible by 2 processes" in ended["messages"][0]


def test_torchrun_runs_the_command_line_as_it_is(tmp_path):
    """Each process checks its share of the pictures; the run ends with the bad one's name."""
    for i in range(20):
        (tmp_path / f"{i:02d}.png").write_bytes(encoded(photo(36, 40, i), "PNG"))
    (tmp_path / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n not quite")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("-m", "model.train", "distill", "--recipe", "tiny", "--data", str(tmp_path)),
            *("--out", str(tmp_path / "run"), "--steps", "1"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode != 0
    assert "07.png" in done.stderr
    assert not (tmp_path / "run").exists()


def test_each_of_two_processes_reads_its_share_of_the_pictures_and_finds_what_one_finds(
    runs, tmp_path
):
    with ListWriter(tmp_path, "data") as writer:
        for i in range(9):
            kind = {"kind": ("photo", "clipart", "texture")[i % 3]}
            writer.add(f"{i}", encoded(photo(36, 40, i), "PNG"), "png", kind)
    alone = look_through(tmp_path / "data", tmp_path)
    runs.start(tmp_path, task="look through", size=2)
    assert runs.wait()["codes"] == [0, 0]
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["found"] for one in both] == [alone["found"]] * 2
    assert sorted(both[0]["read"] + both[1]["read"]) == alone["read"]
    assert max(len(one["read"]) for one in both) <= 0.6 * len(alone["read"])
