"""`teach`: every picture once, the same after a kill, and nothing mixed that does not belong."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from image_files import encoded, photo
from typer.testing import CliRunner

from model.data.pictures import open_pictures
from model.errors import DataError, MetricError, TrainingError
from model.metrics.metric import squares
from model.teachers.load import load_teacher
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train import part_store
from model.train import teach as module
from model.train.__main__ import app
from model.train.teach import precompute

SIDE = 32


@pytest.fixture(scope="module")
def teacher():
    return load_teacher("efficientnet-lite0", size=SIDE)


@pytest.fixture
def pictures(tmp_path):
    return make_pictures(tmp_path / "pictures", 11)


def make_pictures(folder, count):
    for number in range(count):
        file = folder / f"class{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(photo(40 + number, 50, number), "PNG"))
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(part_store, "PART", 4)


def test_every_picture_has_the_embedding_that_the_teacher_gives_it(pictures, teacher, tmp_path):
    opened = open_pictures(pictures)
    found = precompute(opened, teacher, tmp_path / "out", batch=4)
    assert (found.count, found.dim, found.name) == (11, 1280, "efficientnet-lite0")
    for index in (0, 7, 10):
        x = torch.from_numpy(squares([opened[index].pixels()], SIDE)).float()
        with torch.no_grad():
            expected = teacher.embed(x).numpy()
        np.testing.assert_allclose(found.rows([opened.ids[index]]), expected, atol=1e-5)
    assert found.record["framing"] == "resize"
    assert found.record["input_size"] == str(SIDE)
    assert not (tmp_path / "out.parts").exists()


def test_another_framing_is_another_embedding(pictures, teacher, tmp_path):
    opened = open_pictures(pictures)
    a = precompute(opened, teacher, tmp_path / "a")
    b = precompute(opened, teacher, tmp_path / "b", framing="center-crop")
    assert not np.allclose(a.rows(opened.ids), b.rows(opened.ids), atol=1e-2)
    x = opened[0].pixels()[4:36, 9:41].transpose(2, 0, 1)[None] / np.float32(255)
    with torch.no_grad():
        expected = teacher.embed(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(b.rows(opened.ids[:1]), expected, atol=1e-5)


@pytest.mark.usefixtures("small_parts")
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(pictures, teacher, tmp_path):
    opened = open_pictures(pictures)
    precompute(opened, teacher, tmp_path / "whole", batch=3)

    class Stops:
        name, ids, labels = opened.name, opened.ids, opened.labels

        def __len__(self):
            return len(opened)

        def __getitem__(self, index):
            if index == 9:
                raise KeyboardInterrupt
            return opened[index]

    with pytest.raises(KeyboardInterrupt):
        precompute(Stops(), teacher, tmp_path / "cut", batch=3)
    parts = sorted(file.name[-18:] for file in (tmp_path / "cut.parts").glob("*.npy"))
    assert parts == ["000000000.part.npy", "000000004.part.npy"]
    asked = []

    class Counts(Stops):
        def __getitem__(self, index):
            asked.append(index)
            return opened[index]

    precompute(Counts(), teacher, tmp_path / "cut", batch=3)
    assert asked == [8, 9, 10]
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "cut" / file.name).read_bytes(), file.name


@pytest.fixture
def parts(small_parts, pictures, teacher, tmp_path, monkeypatch):  # noqa: ARG001
    """The folder of a run that had all its parts and did not gather them."""

    def fails(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_gather", fails)
        with pytest.raises(OSError, match="No space"):
            precompute(open_pictures(pictures), teacher, tmp_path / "out", batch=3)
    assert len(list((tmp_path / "out.parts").glob("*.npy"))) == 3
    return tmp_path / "out.parts"


@pytest.mark.parametrize("dim", [None, 5])
def test_a_run_that_only_has_to_gather_gathers(parts, pictures, teacher, tmp_path, dim):
    opened = open_pictures(pictures)
    precompute(opened, teacher, tmp_path / "out", batch=3, dim=dim)
    precompute(opened, teacher, tmp_path / "whole", batch=3, dim=dim)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes(), file.name
    assert not parts.exists()


def whole(count=4):
    return np.ones((count, 1280), dtype=np.float32)


@pytest.mark.parametrize(
    ("bad", "came"),
    [
        (b"", "a damaged file"),
        (b"PK\x03\x04 no archive", "a damaged file"),
        (b"\x93NUMPY\x01\x00", "a damaged file"),
        (whole(3), r"float32 \(3, 1280\)"),
        (whole()[:, :0], r"float32 \(4, 0\)"),
        (whole()[:, 1:], r"float32 \(4, 1279\)"),
        (whole().astype(np.float64), r"float64 \(4, 1280\)"),
        (whole() * np.float32(np.nan), r"float32 \(4, 1280\) with a number that is not finite"),
        (np.array([None]), "a damaged file"),
    ],
)
def test_a_bad_part_is_named_and_without_it_the_run_goes_on(parts, pictures, teacher, bad, came):
    out, part = parts.with_name("out"), next(parts.glob("*-000000004.part.npy"))
    good = part.read_bytes()
    if isinstance(bad, bytes):
        part.write_bytes(bad)
    else:
        np.save(part, bad)
    opened = open_pictures(pictures)
    words = rf"{part.name}: finite float32 \(4, 1280\) was wanted, {came}.* came; delete this file"
    for dim in (None, 5):
        with pytest.raises(TrainingError, match=words):
            precompute(opened, teacher, out, batch=3, dim=dim)
        assert not out.exists()
    part.unlink()
    precompute(opened, teacher, out, batch=3)
    held = (out / "embeddings.npy").read_bytes()
    assert good[128:] in held  # its rows, after the header


def test_a_part_that_was_cut_short_is_named(parts, pictures, teacher, tmp_path):
    part = next(parts.glob("*-000000008.part.npy"))
    part.write_bytes(part.read_bytes()[:-4])
    with pytest.raises(TrainingError, match=rf"{part.name}: .* a damaged file"):
        precompute(open_pictures(pictures), teacher, tmp_path / "out", batch=3)


@pytest.mark.usefixtures("small_parts")
def test_an_answer_that_is_not_finite_is_not_kept(pictures, tmp_path):
    class Poisoned:
        name, record, dim, input_size = "poisoned", {"teacher": "poisoned"}, 3, SIDE
        asked = 0

        def embed(self, x):
            vectors = torch.ones(len(x), 3)
            self.asked += len(x)
            if self.asked == 8:
                vectors[1, 2] = torch.nan
            return vectors

    opened = open_pictures(pictures)
    with pytest.raises(MetricError, match=f"the embedding of {opened.ids[5]} is not finite"):
        precompute(opened, Poisoned(), tmp_path / "out", dim=2)
    kept = [file.name[-18:] for file in (tmp_path / "out.parts").glob("*.npy")]
    assert kept == ["000000000.part.npy"]


def test_a_killed_process_goes_on_and_ends_the_same(tmp_path):
    pictures = make_pictures(tmp_path / "pictures", 320)
    command = [sys.executable, "-m", "model.train", "teach", str(pictures)]
    options = ["--size", "32", "--dim", "8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen([*command, str(tmp_path / "cut"), *options], env=environment)
    cut = tmp_path / "cut.parts"
    for _ in range(1200):
        if any(cut.glob("*-000000000.part.npy")) or killed.poll() is not None:
            break
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert any(cut.glob("*-000000000.part.npy"))
    assert not (tmp_path / "cut").exists()
    runner = CliRunner()
    cut, whole = (
        runner.invoke(app, ["teach", str(pictures), str(tmp_path / name), *options])
        for name in ("cut", "whole")
    )
    assert (cut.exit_code, whole.exit_code) == (0, 0), cut.output + whole.output
    assert "256 embeddings are there already" in cut.stderr
    assert "already" not in whole.stderr
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "cut" / file.name).read_bytes(), file.name


def test_components_are_kept_with_the_axes_that_lead_back(pictures, teacher, tmp_path):
    opened = open_pictures(pictures)
    whole = precompute(opened, teacher, tmp_path / "whole").rows(opened.ids)
    few = precompute(opened, teacher, tmp_path / "few", dim=5)
    assert (few.dim, few.record["components"]) == (5, "5")
    axes, mean = (np.load(tmp_path / "few" / f"{name}.npy") for name in ("axes", "mean"))
    np.testing.assert_allclose(few.rows(opened.ids), (whole - mean) @ axes.T, atol=1e-4)


@pytest.mark.parametrize("dim", [0, 12, 2000])
def test_more_components_than_there_can_be_are_refused_at_once(pictures, teacher, tmp_path, dim):
    with pytest.raises(MetricError, match="components were wanted of 11"):
        precompute(open_pictures(pictures), teacher, tmp_path / "out", dim=dim)
    assert not (tmp_path / "out.parts").exists()


def test_the_same_again_does_nothing_and_another_is_refused(pictures, teacher, tmp_path):
    opened = open_pictures(pictures)
    precompute(opened, teacher, tmp_path / "out")
    before = (tmp_path / "out" / "embeddings.npy").stat().st_mtime_ns
    precompute(opened, teacher, tmp_path / "out")
    assert (tmp_path / "out" / "embeddings.npy").stat().st_mtime_ns == before
    with pytest.raises(MetricError, match=r"made with another framing$"):
        precompute(opened, teacher, tmp_path / "out", framing="center-crop")
    with pytest.raises(MetricError, match=r"made with another components$"):
        precompute(opened, teacher, tmp_path / "out", dim=3)


def test_parts_of_another_teacher_or_of_other_pictures_are_not_taken(parts, teacher, tmp_path):
    others = open_pictures(make_pictures(tmp_path / "others", 12))
    found = precompute(others, teacher, tmp_path / "out", batch=3)
    expected = precompute(others, teacher, tmp_path / "whole", batch=3)
    assert np.array_equal(found.rows(others.ids), expected.rows(others.ids))
    assert not parts.exists()


def test_a_bad_picture_is_named_and_what_was_done_is_kept(pictures, teacher, tmp_path):
    (pictures / "class1" / "7.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"class1/7\.png"):
        precompute(open_pictures(pictures), teacher, tmp_path / "out")


def test_the_command_says_what_it_made(pictures, tmp_path):
    arguments = ["teach", str(pictures), str(tmp_path / "out"), "--size", "32", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["count"], said["dim"]) == (11, 1280)
    assert said["record"]["teacher"] == "efficientnet-lite0"
    assert PrecomputedEmbeddings(tmp_path / "out").count == 11


def test_the_command_says_which_splits_it_asked_for(tmp_path):
    for split in ("train", "test"):
        make_pictures(tmp_path / "pictures" / split, 2)
    arguments = ["teach", str(tmp_path / "pictures"), "--size", "32"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "all")])
    assert done.stdout.splitlines()[-1].endswith("all, of the splits train, test")
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "one"), "--split", "train"])
    assert done.stdout.splitlines()[-1].endswith("one, of train")


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--teacher", "gpt"], 1, "no teacher is called"),
        (["--teacher", "dreamsim:ensemble"], 1, "needs --weights FOLDER"),
        (["--split", "none"], 1, "none"),
        (["--size", "7"], 1, "at least 32"),
        (["--device", "banana"], 1, "like cpu or cuda, got 'banana'"),
        (["--batch", "0"], 2, "--batch"),
        (["--framing", "stretch"], 2, "--framing"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(pictures, tmp_path, extra, code, words):
    done = CliRunner().invoke(app, ["teach", str(pictures), str(tmp_path / "out"), *extra])
    assert done.exit_code == code
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()
