"""`python -m model.train distill` and `finetune`, from files to proved files."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, photo
from typer.testing import CliRunner

from model.embedder import DEFAULT_CHECKPOINT
from model.nets.checkpoint import load_checkpoint
from model.teachers.precomputed import write_embeddings
from model.train.__main__ import app
from model.train.run_folder import RunFolder

TINY = ("--recipe", "tiny", "--set", "input_size=64", "--set", "tensorboard=false")
QUICK = ("--batch-size", "4", "--set", "estimate_steps=3", "--set", "validate_every=2")


def call(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(20):
        (root / f"{i:02d}.png").write_bytes(encoded(photo(60, 60 + i, i), "PNG"))
    return root


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("embeddings") / "stored"
    rows = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    write_embeddings(path, [f"{i:02d}.png" for i in range(20)], [rows], {"teacher": "table"})
    return path


@pytest.fixture(scope="module")
def nights(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("nights")
    (root / "p").mkdir()
    header = "id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,is_imagenet,prompt"
    with (root / "data.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header.split(","))
        for i in range(12):
            names = [f"p/{i}_{side}.png" for side in ("ref", "left", "right")]
            for place, name in enumerate(names):
                pixels = photo(40, 40, i) // (1, 1 + i % 2, 2 - i % 2)[place]
                (root / name).write_bytes(encoded(pixels, "PNG"))
            vote = i % 2
            split = "val" if i >= 8 else "train"
            table.writerow([i, 1 - vote, vote, 6, *names, split, "True", ""])
    return root


@pytest.fixture(scope="module")
def taught(pictures, embeddings, tmp_path_factory) -> Path:
    """A distilled run, by the command line."""
    out = tmp_path_factory.mktemp("taught") / "run"
    data = ("--data", pictures, "--embeddings", embeddings, "--out", out)
    code, said, _ = call("distill", *data, *TINY, *QUICK, "--steps", 3, "--json")
    assert code == 0
    report = json.loads(said)
    assert report["checkpoint"] == str(out / "best.safetensors")
    assert report["best"]["lipschitz_bound"] <= 1 + 1e-6
    return out


def test_distilled_weights_are_a_checkpoint_that_says_how_it_was_made(taught):
    checkpoint = load_checkpoint(taught / "best.safetensors")
    assert (checkpoint.name, checkpoint.config.embedding_dim) == ("tiny", 16)
    record = checkpoint.training
    assert record["data"]["targets"]["teacher"] == "table"
    assert record["data"]["training_pictures"] == 18
    assert record["config"]["steps"] == 3
    assert str(taught.parent) not in json.dumps(record)  # no paths of this machine


def test_the_same_command_again_only_says_so_and_another_is_refused(taught, pictures, embeddings):
    data = ("--data", pictures, "--embeddings", embeddings, "--out", taught)
    code, said, told = call("distill", *data, *TINY, *QUICK, "--steps", 3)
    assert (code, "holds this run, finished" in told) == (0, True)
    assert "Lipschitz bound 1.0000" in said
    code, _, told = call("distill", *data, *TINY, *QUICK, "--steps", 4, "--seed", 1)
    assert code == 1
    assert "holds another run" in told
    assert "seed: 0 there, 1 here; steps: 3 there, 4 here" in told


def test_another_setting_is_refused_before_a_picture_is_read(taught, tmp_path):
    data = ("--data", tmp_path / "no-such-pictures", "--out", taught)
    code, _, told = call("distill", *data, *TINY, *QUICK, "--steps", 4)
    assert code == 1
    assert "holds another run" in told
    assert "steps: 3 there, 4 here" in told
    assert "data." not in told
    code, _, told = call("distill", *data, *TINY, *QUICK, "--steps", 3)
    assert "no-such-pictures" in told


@pytest.mark.parametrize("objective", ["hinge", "radius"])
def test_fine_tuning_starts_from_what_was_distilled(taught, nights, tmp_path, objective):
    start = ("--data", nights, "--from", taught / "best.safetensors", "--out", tmp_path / "run")
    options = (
        "--objective",
        objective,
        "--margin",
        "0.4",
        "--steps",
        2,
        "--set",
        "tensorboard=3",
    )
    code, _, told = call("finetune", *start, *options, *QUICK, "--recipe", "tiny-nights")
    assert (code, "tensorboard must be a valid boolean, got '3'" in told) == (1, True)
    options = (*options[:-1], "tensorboard=false")
    code, said, _ = call("finetune", *start, *options, *QUICK, "--recipe", "tiny-nights")
    assert code == 0
    assert "certified_0.141" in said
    checkpoint = load_checkpoint(tmp_path / "run" / "best.safetensors")
    parent = load_checkpoint(taught / "best.safetensors")
    assert checkpoint.training["data"]["start"] == parent.fingerprint
    assert checkpoint.config == parent.config
    assert checkpoint.fingerprint != parent.fingerprint


def test_the_default_model_can_be_fine_tuned_too(nights, tmp_path):
    start = ("--data", nights, "--from", DEFAULT_CHECKPOINT, "--out", tmp_path)
    options = ("--recipe", "tiny-nights", "--steps", 2, "--set", "tensorboard=false")
    code, _, told = call("finetune", *start, *options, *QUICK)
    assert code == 0, told
    assert load_checkpoint(tmp_path / "best.safetensors").config.architecture == "wave"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (("--recipe", "nope"), "no recipe is called 'nope'"),
        (("--set", "stepz=3"), "did you mean steps"),
        (("--device", "cuda"), "this torch finds no accelerator"),
        (("--device", "banana"), "device must be one that this torch can use, like cpu or cuda, "
         "got 'banana'"),
        (("--device", "meta"), "got 'meta'"),
        (("--teacher", "nobody"), "no teacher is called 'nobody'"),
        (("--set", "views=3"), "no setting of this task is called 'views'"),
        (("--embeddings", "absent"), "absent"),
        (("--data", "nowhere"), "nothing is at nowhere"),
        (("--set", "embedding_dim=8"), "must be as long as the teacher's, 1280, got 8"),
        (("--set", "input_size=60"), "input_size must be a multiple of 16"),
        (("--from", "absent.safetensors"), "no checkpoint file at absent.safetensors"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_exit_1(pictures, tmp_path, changes, complaint):
    code, _, told = call(
        "distill", "--data", pictures, "--out", tmp_path / "run", *TINY, "--steps", 1, *changes
    )
    assert code == 1
    assert complaint in told
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("library", ["pywt", "tensorboard"])
def test_a_missing_library_is_one_line_before_a_picture_is_read(monkeypatch, tmp_path, library):
    monkeypatch.setitem(sys.modules, library, None)
    code, said, complaint = call(
        "distill", "--recipe", "wave-96", "--data", tmp_path / "none", "--out", tmp_path / "run"
    )
    assert (code, said) == (1, "")
    assert complaint.count("\n") == 1
    assert "`make setup` in a clone, or pip install 'lipsim-retrieval[train]'" in complaint
    assert not (tmp_path / "run").exists()


def test_fine_tuning_refuses_an_unknown_device_too(nights, tmp_path):
    start = ("--data", nights, "--from", DEFAULT_CHECKPOINT, "--out", tmp_path / "run")
    code, _, told = call("finetune", *start, "--steps", 1, "--device", "banana")
    assert code == 1
    assert "got 'banana'" in told
    assert not (tmp_path / "run").exists()


def test_a_second_run_in_a_folder_at_work_is_refused_before_it_keeps_anything(pictures, tmp_path):
    options = ("--set", "views=2", "--set", "head_basis=16", "--set", "kind_weights=")
    splits = ("--set", "train_split=", "--set", "validation_split=", "--set", "warmup_steps=1")
    data = ("--recipe", "wave-96", "--data", pictures, "--out", tmp_path)
    with RunFolder(tmp_path).claimed():
        code, _, told = call("distill", *data, "--steps", 2, *QUICK, *options, *splits)
        assert (code, told) == (1, f"error: another run is at work in {tmp_path}\n")
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_picture_or_an_embedding_that_is_missing_is_named(pictures, embeddings, tmp_path):
    shutil.copytree(pictures, tmp_path / "more")
    (tmp_path / "more" / "99.png").write_bytes(encoded(photo(60, 60), "PNG"))
    options = ("--embeddings", embeddings, "--out", tmp_path / "run", *TINY, "--steps", 1)
    code, _, told = call("distill", "--data", tmp_path / "more", *options)
    assert code == 1
    assert "has no embedding of 99.png" in told
    (tmp_path / "more" / "99.png").unlink()
    (tmp_path / "more" / "07.png").write_bytes(b"not a picture")
    code, _, told = call("distill", "--data", tmp_path / "more", *options)
    assert code == 1
    assert "07.png" in told


def test_embeddings_of_pictures_framed_in_another_way_are_refused(pictures, tmp_path):
    rows = np.ones((20, 16), dtype=np.float32)
    record = {"teacher": "table", "framing": "center-crop"}
    write_embeddings(tmp_path / "e", [f"{i:02d}.png" for i in range(20)], [rows], record)
    data = ("--data", pictures, "--embeddings", tmp_path / "e", "--out", tmp_path / "run")
    code, _, told = call("distill", *data, *TINY, "--steps", 1)
    assert code == 1
    assert "framed by center-crop" in told
    assert "--set framing=center-crop" in told


def test_a_wrong_command_line_is_exit_2():
    assert call("distill")[0] == 2
    assert call("finetune", "--data", "x", "--out", "y")[0] == 2  # no --from
    assert call("nonsense")[0] == 2


def test_help_lists_every_command_and_loads_none_of_them():
    program = (
        "import sys; from typer.testing import CliRunner; from model.train.__main__ import app; "
        "print(CliRunner().invoke(app, ['--help']).stdout); "
        "print([m for m in ('torch', 'model.train.commands') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("[]")
    for name in ("corpus", "synthetic-2afc", "teach", "distill", "finetune"):
        assert name in done.stdout
