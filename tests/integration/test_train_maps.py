"""The default model's maps: every weight trained, gone on with, and a start for the next head."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from model.embedder import DEFAULT_CHECKPOINT
from model.errors import TrainingError
from model.train.config import load_recipe
from model.train.task import Sources, build
from model.train.trainer import train

_GALLERY = Path(__file__).parents[2] / "examples" / "gallery" / "clipart"
_CONFIG = load_recipe("wave-64-maps").with_changes(
    {
        "steps": 3, "batch_size": 8, "views": 2, "warmup_steps": 1, "train_split": "",
        "validation_split": "", "kind_weights": "", "save_every": 1, "tensorboard": False,
        "estimate_steps": 4, "precision": "float32",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for path in sorted(_GALLERY.glob("*.webp"))[:24]:
        shutil.copy(path, folder)
    return folder


def _built(pictures, work, config=_CONFIG):
    return build(config, Sources(pictures, start=DEFAULT_CHECKPOINT, work=work))


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, train(*_built(pictures, out), _CONFIG, out)


def test_every_weight_is_trained_and_the_network_is_proved(finished, pictures):
    out, checkpoint = finished
    assert checkpoint.lipschitz_bound <= 1.0 + 1e-6
    before = _built(pictures, out)[0].export()
    moved = {
        name
        for name, value in checkpoint.weights.items()
        if not np.array_equal(value, before[name])
    }
    assert moved == set(before) - {"wavelet.lowpass"}


def test_inputs_that_were_cut_short_and_a_stopped_run_end_the_same(finished, pictures, tmp_path):
    out, checkpoint = finished
    part = next((out / "inputs").glob("*.npy"))
    kept = part.read_bytes()
    part.unlink()
    student, task = _built(pictures, out)
    assert part.read_bytes() == kept
    real_loss, left = task.loss, iter(range(2))

    def stopping(student, batch):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real_loss(student, batch)

    task.loss = stopping
    with pytest.raises(KeyboardInterrupt):
        train(student, task, _CONFIG, tmp_path)
    again = train(*_built(pictures, tmp_path), _CONFIG, tmp_path)
    assert again.fingerprint == checkpoint.fingerprint


def test_the_batch_of_two_processes_is_the_batch_of_one(pictures, finished):
    _, task = _built(pictures, finished[0])
    whole, halves = task.batch(3, 0, 1), [task.batch(3, rank, 2) for rank in (0, 1)]
    for name, rows in whole.items():
        assert np.array_equal(rows, np.concatenate([half[name] for half in halves]))


def test_its_result_is_a_front_for_the_next_head(finished, pictures, tmp_path):
    out, checkpoint = finished
    config = load_recipe("wave-64").with_changes(
        {"steps": 1, "batch_size": 8, "views": 1, "head_basis": 16, "train_split": "",
         "validation_split": "", "validate_every": 0, "tensorboard": False}
    )  # fmt: skip
    sources = Sources(pictures, start=out / "best.safetensors", work=tmp_path)
    student, task = build(config, sources)
    assert task.identity()["start"] == checkpoint.fingerprint
    exported = student.export()
    assert np.allclose(
        exported["stages.0.maps.0.weight"], checkpoint.weights["stages.0.maps.0.weight"]
    )


def test_a_start_is_needed_and_must_be_a_wavelet_network(pictures, tmp_path):
    with pytest.raises(TrainingError, match="give --from"):
        build(_CONFIG, Sources(pictures, work=tmp_path))
    with pytest.raises(TrainingError, match="needs a folder"):
        build(_CONFIG, Sources(pictures, start=DEFAULT_CHECKPOINT))


def test_other_pictures_of_the_same_names_are_another_run(finished, pictures, tmp_path):
    renamed = sorted(pictures.glob("*.webp"))
    turned = tmp_path / "pictures"
    turned.mkdir()
    for path, other in zip(renamed, renamed[1:] + renamed[:1], strict=True):
        shutil.copy(other, turned / path.name)
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    student, task = _built(turned, out)
    with pytest.raises(TrainingError, match="training_contents_sha256"):
        train(student, task, _CONFIG, out)
    assert len(list((out / "inputs").glob("*.npy"))) == 2


def test_damaged_inputs_are_refused_by_name(finished, pictures, tmp_path):
    shutil.copytree(finished[0] / "inputs", tmp_path / "inputs")
    part = next((tmp_path / "inputs").glob("*.npy"))
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(TrainingError, match=part.name):
        _built(pictures, tmp_path)
