"""The default model's maps: every weight trained, gone on with, and a start for the next head."""

import shutil

import numpy as np
import pytest
from train_tools import built, check_dealing, drawings, small_recipe, train

from model.embedder import DEFAULT_CHECKPOINT
from model.errors import TrainingError

_CONFIG = small_recipe("wave-64-maps", steps=3, precision="float32")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return drawings(tmp_path_factory.mktemp("pictures"), 24)


def _built(pictures, work):
    return built(_CONFIG, pictures, work, start=DEFAULT_CHECKPOINT)


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
    check_dealing(task)


def test_its_result_is_a_front_for_the_next_head(finished, pictures, tmp_path):
    out, checkpoint = finished
    config = small_recipe("wave-64", steps=1, views=1, head_basis=16, validate_every=0)
    student, task = built(config, pictures, tmp_path, start=out / "best.safetensors")
    assert task.identity()["start"] == checkpoint.fingerprint
    exported = student.export()
    assert np.allclose(
        exported["stages.0.maps.0.weight"], checkpoint.weights["stages.0.maps.0.weight"]
    )


def test_a_start_is_needed_and_must_be_a_wavelet_network(pictures, tmp_path):
    with pytest.raises(TrainingError, match="give --from"):
        built(_CONFIG, pictures, tmp_path)


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
