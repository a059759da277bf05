"""The default model's recipe from pictures to proof: repeatable, gone on with, and served."""

import shutil

import numpy as np
import pytest
import torch
from train_tools import built, check_dealing, drawings, small_recipe, train

from model.errors import TrainingError
from model.nets.checkpoint import load_checkpoint
from model.nets.network import build_network
from model.teachers.precomputed import write_embeddings

_CONFIG = small_recipe("wave-96", steps=4, head_basis=24, validate_every=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return drawings(tmp_path_factory.mktemp("pictures"), 30)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, train(*built(_CONFIG, pictures, out), _CONFIG, out)


def test_a_run_ends_in_a_proved_network_that_was_trained(finished, pictures):
    out, checkpoint = finished
    assert checkpoint.lipschitz_bound <= 1.0 + 1e-6
    assert load_checkpoint(out / "best.safetensors").fingerprint == checkpoint.fingerprint
    student, _ = built(_CONFIG, pictures, out)
    head = checkpoint.weights["head.weight"].astype(np.float64)
    start = student.export()["head.weight"].astype(np.float64)
    assert np.linalg.norm(head - start) > 1e-3 * np.linalg.norm(start)


def test_a_bank_that_was_cut_short_and_a_second_run_give_the_same_network(
    finished, pictures, tmp_path
):
    out, checkpoint = finished
    (bank,) = (out / "features").glob("*.npy")
    kept = bank.read_bytes()
    bank.unlink()
    student, task = built(_CONFIG, pictures, out)
    assert bank.read_bytes() == kept
    assert train(student, task, _CONFIG, tmp_path / "again").fingerprint == checkpoint.fingerprint


def test_what_is_made_before_the_first_step_is_told(pictures, tmp_path, capfd):
    built(_CONFIG, pictures, tmp_path)
    told = capfd.readouterr().err
    for what in ("decoding training pictures", "hashing training", "fitting the channel maps",
                 "features that the basis", "closed form", "copying validation"):  # fmt: skip
        assert what in told


def test_the_closed_form_start_finds_most_copies_already(pictures, tmp_path):
    student, task = built(_CONFIG, pictures, tmp_path)
    scores = task.validate(student)
    assert scores["recall_at_1"] >= 50.0
    assert all(0.0 <= value <= 100.0 for value in scores.values())
    network = build_network(student.config, student.export())
    assert network.prove().lipschitz_bound <= 1.0 + 1e-6


def test_a_damaged_bank_is_refused_by_name(finished, pictures, tmp_path):
    out, _ = finished
    shutil.copytree(out / "features", tmp_path / "features")
    part = next((tmp_path / "features").glob("*.npy"))
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(TrainingError, match=part.name):
        built(_CONFIG, pictures, tmp_path)


def test_the_batch_of_two_processes_is_the_batch_of_one(pictures, tmp_path):
    _, task = built(_CONFIG, pictures, tmp_path)
    check_dealing(task)


def test_a_published_checkpoint_is_no_front(pictures, tmp_path):
    config = _CONFIG.with_changes({"preset": "tiny"})
    with pytest.raises(TrainingError, match="trains wavelet networks"):
        built(config, pictures, tmp_path)


def test_other_words_of_the_teacher_are_another_run(pictures, tmp_path):
    config = _CONFIG.with_changes({"teacher_weight": 0.1, "steps": 1, "validate_every": 0})
    ids = sorted(path.name for path in pictures.iterdir())
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        rows = rng.normal(size=(len(ids), 4)).astype(np.float32)
        write_embeddings(tmp_path / name, ids, [rows], {"teacher": "the same"})
    out = tmp_path / "out"
    train(*built(config, pictures, out, embeddings=tmp_path / "first"), config, out)
    second = built(config, pictures, out, embeddings=tmp_path / "second")
    with pytest.raises(TrainingError, match="teacher_record"):
        train(*second, config, out)


def test_a_free_head_over_views_is_proved_along_each_coordinate(pictures, tmp_path):
    config = small_recipe(
        "wave-96", steps=4, head_basis=24, embedding_dim=16, validate_every=2,
        gallery_views="shift",
    )  # fmt: skip
    student, task = built(config, pictures, tmp_path)
    assert task.batch(0, 0, 1)["plain"].shape == (8, 5, 24)
    checkpoint = train(student, task, config, tmp_path)
    assert checkpoint.lipschitz_bound <= 1.0
    head = load_checkpoint(tmp_path / "best.safetensors")
    lengths = np.linalg.norm(checkpoint.weights["head.weight"].astype(np.float64), axis=1)
    assert head.output_scales == checkpoint.output_scales
    assert checkpoint.output_scales == pytest.approx(lengths, rel=1e-3)
    with torch.no_grad():
        best = task.validate(student.eval())
    assert best["recall_at_1"] >= 50.0
