"""The default model's recipe from pictures to proof: repeatable, gone on with, and served."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import load_checkpoint
from model.errors import TrainingError
from model.network import build_network
from model.teachers.precomputed import write_embeddings
from model.train.config import load_recipe
from model.train.task import Sources, build
from model.train.trainer import train

_GALLERY = Path(__file__).parents[2] / "examples" / "gallery" / "clipart"
_CONFIG = load_recipe("wave-64").with_changes(
    {
        "steps": 4, "batch_size": 8, "views": 2, "head_basis": 24, "warmup_steps": 1,
        "train_split": "", "validation_split": "", "kind_weights": "", "validate_every": 2,
        "save_every": 1, "tensorboard": False, "estimate_steps": 4,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for path in sorted(_GALLERY.glob("*.webp"))[:30]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    student, task = build(_CONFIG, Sources(pictures, work=out))
    return out, train(student, task, _CONFIG, out)


def test_a_run_ends_in_a_proved_network_that_was_trained(finished, pictures):
    out, checkpoint = finished
    assert checkpoint.lipschitz_bound <= 1.0 + 1e-6
    assert load_checkpoint(out / "best.safetensors").fingerprint == checkpoint.fingerprint
    student, _ = build(_CONFIG, Sources(pictures, work=out))
    head = checkpoint.weights["head.weight"].astype(np.float64)
    start = student.export()["head.weight"].astype(np.float64)
    assert np.linalg.norm(head - start) > 1e-3 * np.linalg.norm(start)


def test_a_bank_that_was_cut_short_and_a_second_run_give_the_same_network(
    finished, pictures, tmp_path
):
    out, checkpoint = finished
    parts = sorted((out / "features").glob("*.npy"))
    kept = [path.read_bytes() for path in parts]
    parts[0].unlink()
    student, task = build(_CONFIG, Sources(pictures, work=out))
    assert [path.read_bytes() for path in parts] == kept
    assert train(student, task, _CONFIG, tmp_path / "again").fingerprint == checkpoint.fingerprint


def test_the_closed_form_start_finds_most_copies_already(pictures, tmp_path):
    student, task = build(_CONFIG, Sources(pictures, work=tmp_path))
    scores = task.validate(student)
    assert scores["recall_at_1"] >= 50.0
    assert all(0.0 <= value <= 100.0 for value in scores.values())
    network = build_network(student.config, student.export())
    assert network.prove().lipschitz_bound <= 1.0 + 1e-6


def test_a_damaged_part_is_refused_by_name(finished, pictures, tmp_path):
    out, _ = finished
    shutil.copytree(out / "features", tmp_path / "features")
    part = next((tmp_path / "features").glob("*.npy"))
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(TrainingError, match=part.name):
        build(_CONFIG, Sources(pictures, work=tmp_path))


def test_the_batch_of_two_processes_is_the_batch_of_one(pictures, tmp_path):
    _, task = build(_CONFIG, Sources(pictures, work=tmp_path))
    whole, halves = task.batch(3, 0, 1), [task.batch(3, rank, 2) for rank in (0, 1)]
    for name, rows in whole.items():
        assert np.array_equal(rows, np.concatenate([half[name] for half in halves]))


def test_a_published_checkpoint_is_no_front(pictures, tmp_path):
    config = _CONFIG.with_changes({"preset": "tiny"})
    with pytest.raises(TrainingError, match="trains wavelet networks"):
        build(config, Sources(pictures, work=tmp_path))


def test_other_words_of_the_teacher_are_another_run(pictures, tmp_path):
    config = _CONFIG.with_changes({"teacher_weight": 0.1, "steps": 1, "validate_every": 0})
    ids = sorted(path.name for path in pictures.iterdir())
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        rows = rng.normal(size=(len(ids), 4)).astype(np.float32)
        write_embeddings(tmp_path / name, ids, [rows], {"teacher": "the same"})
    out = tmp_path / "out"

    def built(name):
        return build(config, Sources(pictures, embeddings=tmp_path / name, work=out))

    train(*built("first"), config, out)
    with pytest.raises(TrainingError, match="teacher_record"):
        train(*built("second"), config, out)
