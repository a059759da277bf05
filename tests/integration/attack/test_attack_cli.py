"""`python -m model.attack` on real pictures: the CNN falls, ours holds, and a lie is caught."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import GALLERY
from torch import Tensor
from typer.testing import CliRunner

from model.attack.__main__ import app
from model.attack.pixel_metric import metric_of_input
from model.attack.plan import Plan
from model.attack.questions import ask
from model.cli.progress import Progress
from model.metrics.load import load_metric
from model.metrics.pixels import BlockMeans

EXAMPLES = GALLERY


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Twelve of the bundled pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, file in enumerate(sorted((EXAMPLES / "photos").rglob("*.*"))[:12]):
        (folder / f"{number:02}{file.suffix}").symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def triplets(pictures: Path, tmp_path_factory) -> Path:
    """Triplets in the layout of NIGHTS: the reference again, and another picture."""
    root = tmp_path_factory.mktemp("nights")
    lines = ["id,left_vote,right_vote,prompt,ref_path,left_path,right_path,votes,split,is_imagenet"]
    files = sorted(pictures.iterdir())
    for kind in ("ref", "distort"):
        (root / kind).mkdir()
    for number, file in enumerate(files):
        other = files[(number + 1) % len(files)]
        paths = [f"ref/{number}{file.suffix}"]
        for side, source in enumerate((file, other) if number % 2 else (other, file)):
            paths.append(f"distort/{number}_{side}{source.suffix}")
            (root / paths[-1]).write_bytes(source.read_bytes())
        (root / paths[0]).write_bytes(file.read_bytes())
        vote = 1 - number % 2
        lines.append(f"{number},{1 - vote},{vote},,{','.join(paths)},8,test,True")
    (root / "data.csv").write_text("\n".join(lines) + "\n")
    return root


def attack(*arguments: object):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_metric_is_reported_by_the_name_that_it_is_given(pictures: Path, tmp_path: Path):
    quick = ("--queries", 2, "--epsilon", 0.5, "--steps", 1, "--restarts", 1, "--shortest-steps", 0)
    done = attack(
        pictures, "--metric", "blockmean8", "--metric", "mine=blockmean8", "--out", tmp_path,
        *quick, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [one["metric"] for one in json.loads(done.stdout)["runs"]] == ["blockmean8", "mine"]
    assert "mine: " in done.stderr
    done = attack(pictures, "--metric", "raw", "--metric", "raw", "--out", tmp_path, *quick)
    assert done.exit_code == 1
    assert "two metrics are called 'raw'; write OTHER=SPEC" in done.stderr


def test_the_teacher_falls_where_ours_holds(pictures: Path, tmp_path: Path):
    done = attack(
        pictures, "--metric", "wave-96", "--metric", "teacher:efficientnet-lite0@64",
        "--queries", 4, "--epsilon", 0.5, "--steps", 10, "--restarts", 1,
        "--shortest-steps", 10, "--out", tmp_path, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ours, teacher = json.loads((tmp_path / "attack.json").read_text())["runs"]
    assert json.loads(done.stdout)["runs"] == [ours, teacher]
    assert ours["natural"] >= 0.75
    assert teacher["natural"] >= 0.75
    (held,), (fallen,) = ours["shares"], teacher["shares"]
    assert held["certified"] == held["attacked"] == ours["natural"]
    assert fallen["attacked"] <= 0.25
    assert fallen["certified"] is None
    assert ours["ratio_smallest"] is None or ours["ratio_smallest"] > 1.0
    assert (tmp_path / "attack.md").read_text().count("| wave-96") == 2


def test_a_metric_that_claims_too_much_ends_with_exit_code_1(
    pictures: Path, tmp_path: Path, monkeypatch
):
    class Boaster(BlockMeans):
        """Block means that claim half of their Lipschitz constant."""

        lipschitz_bound = 0.5

    def boast(spec: str, **options):
        return Boaster(8) if spec == "boaster" else load_metric(spec, **options)

    monkeypatch.setattr("model.metrics.load.load_metric", boast)
    arguments = (
        pictures, "--queries", 4, "--epsilon", 0.5, "--steps", 10, "--shortest-steps", 30,
    )  # fmt: skip
    honest = attack(*arguments, "--metric", "blockmean8", "--out", tmp_path / "honest")
    assert honest.exit_code == 0, honest.output
    caught = attack(*arguments, "--metric", "boaster", "--out", tmp_path / "caught")
    assert caught.exit_code == 1
    assert "counter-examples: a certificate is wrong" in caught.stderr
    file = next((tmp_path / "caught").glob("counter-example-*.npz"))
    with np.load(file) as saved:
        length = np.linalg.norm(saved["delta"])
        assert length == pytest.approx(float(saved["length"]), rel=1e-12)
        assert length < float(saved["certified_radius"])


@pytest.mark.parametrize("space", ["input", "upload"])
def test_triplets_are_attacked_by_their_reference(triplets: Path, tmp_path: Path, space: str):
    done = attack(
        triplets, "--objective", "2afc", "--space", space, "--metric", "blockmean8",
        "--queries", 4, "--epsilon", 0.5, "--attack", "apgd-ce", "--attack", "apgd-targeted",
        "--steps", 8, "--restarts", 1, "--shortest-steps", 20, "--out", tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (run,) = json.loads((tmp_path / "attack.json").read_text())["runs"]
    assert run["natural"] == 1.0
    assert run["counter_examples"] == []
    assert run["ratio_questions"] > 0


def test_a_distance_and_a_hash_are_attacked_too(pictures: Path, tmp_path: Path):
    done = attack(
        pictures, "--objective", "distance", "--metric", "blockmean8", "--metric", "phash",
        "--queries", 3, "--norm", "linf", "--epsilon", "8/255", "--attack", "square",
        "--steps", 10, "--restarts", 1, "--out", tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    blocks, phash = json.loads((tmp_path / "attack.json").read_text())["runs"]
    assert blocks["shares"][0]["epsilon"] == 8 / 255
    for run in (blocks, phash):
        assert 0.0 < run["shares"][0]["reached"] <= 2.0


def test_what_cannot_be_done_is_said_in_one_line(pictures: Path, tmp_path: Path):
    distance = (pictures, "--metric", "raw", "--objective", "distance")
    for arguments, words in (
        ((pictures, "--metric", "nobody"), "no metric is called"),
        ((pictures, "--metric", "phash", "--attack", "pgd"), "phash has no gradients"),
        ((pictures, "--metric", "phash", "--space", "upload"), "on square pictures only"),
        ((tmp_path / "nowhere", "--metric", "raw"), "nowhere"),
        ((pictures, "--metric", "raw", "--device", "banana"), "got 'banana'"),
        ((*distance, "--threshold", 0), "a distance threshold must be in (0, 2), got 0.0"),
        ((*distance, "--threshold", -1), "a distance threshold must be in (0, 2), got -1.0"),
        ((*distance, "--threshold", "nan"), "a distance threshold must be in (0, 2), got nan"),
    ):
        done = attack(*arguments, "--out", tmp_path / "out")
        assert done.exit_code == 1, done.output
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--epsilon", text) for text in ("none", "0", "1/0", "-1", "nan")),
        *((name, "moon") for name in ("--objective", "--space", "--grid", "--norm", "--attack")),
    ],
)
def test_a_command_line_that_is_wrong_ends_with_exit_code_2(
    pictures: Path, tmp_path: Path, option: str, value: str
):
    assert attack(pictures, option, value, "--out", tmp_path / "out").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "name", "words"),
    [
        (("--metric", "nobody"), "nobody", "no metric is called 'nobody'"),
        (("--metric", "phash", "--attack", "pgd"), "phash", "phash has no gradients, so pgd"),
        (("--metric", "phash", "--space", "upload"), "phash", "on square pictures only"),
    ],
)
def test_a_metric_that_cannot_be_attacked_is_named_first_and_does_not_end_the_others(
    pictures: Path, tmp_path: Path, arguments: tuple[str, ...], name: str, words: str
):
    done = attack(
        pictures, *arguments, "--metric", "blockmean8", "--queries", 2, "--epsilon", 0.5,
        "--steps", 2, "--restarts", 1, "--shortest-steps", 0, "--out", tmp_path,
    )  # fmt: skip
    assert done.exit_code == 1
    assert done.stderr.splitlines()[0].startswith(f"{name} is left out: ")
    assert f"error: {name} was not attacked: " in done.stderr
    report = json.loads((tmp_path / "attack.json").read_text())
    assert [run["metric"] for run in report["runs"]] == ["blockmean8"]
    ((left_out),) = report["not_attacked"]
    assert left_out["metric"] == name
    assert words in left_out["reason"]


def test_a_metric_that_answers_nothing_rightly_does_not_end_the_others(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Blind(BlockMeans):
        """Block means that see the same in every picture."""

        def __init__(self) -> None:
            super().__init__(8)
            self.name = "blind"

        def embed(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
            return np.ones((len(pictures), self.dim))

        def network(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), self.dim, dtype=x.dtype)

    def load(spec: str, **options: Any):
        return Blind() if spec == "blind" else load_metric(spec, **options)

    monkeypatch.setattr("model.metrics.load.load_metric", load)
    done = attack(
        pictures, "--metric", "blind", "--metric", "blockmean8", "--queries", 4, "--epsilon", 0.5,
        "--steps", 5, "--restarts", 1, "--shortest-steps", 5, "--out", tmp_path, "--json",
    )  # fmt: skip
    assert done.exit_code == 1
    said = "error: blind was not attacked: nothing was attacked: blind needs at least one question"
    assert said in done.stderr
    report = json.loads((tmp_path / "attack.json").read_text())
    assert json.loads(done.stdout) == report
    assert [run["metric"] for run in report["runs"]] == ["blockmean8"]
    assert [one["metric"] for one in report["not_attacked"]] == ["blind"]
    assert "**blind was not attacked:** nothing" in (tmp_path / "attack.md").read_text()


@pytest.mark.parametrize("metric", ["blockmean8", "phash"])
def test_a_single_picture_cannot_be_evicted(pictures: Path, tmp_path: Path, metric: str):
    (tmp_path / "one").mkdir()
    file = min(pictures.iterdir())
    (tmp_path / "one" / file.name).write_bytes(file.read_bytes())
    done = attack(tmp_path / "one", "--metric", metric, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "nothing was attacked: eviction needs at least two pictures, 1 came" in done.stderr
    assert "No counter-example" not in done.output
    assert not (tmp_path / "out").exists()


def test_triplets_that_are_all_judged_otherwise_leave_nothing_to_attack(
    triplets: Path, tmp_path: Path
):
    root = tmp_path / "nights"
    shutil.copytree(triplets, root)
    header, *rows = [line.split(",") for line in (root / "data.csv").read_text().splitlines()]
    swapped = [header, *([row[0], row[2], row[1], *row[3:]] for row in rows)]
    (root / "data.csv").write_text("\n".join(",".join(row) for row in swapped) + "\n")
    for metric in ("blockmean8", "phash"):
        done = attack(
            root, "--objective", "2afc", "--metric", metric, "--queries", 4, "--out", tmp_path / "o"
        )
        assert done.exit_code == 1
        assert f"nothing was attacked: {metric} needs at least one question" in done.stderr
        assert "0 of 4 were answered rightly" in done.stderr
        assert "No counter-example" not in done.output
        assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("vote", "is_same", "words"),
    [
        ("0.5", False, "at least one triplet whose vote is no tie was wanted, 12 ties came"),
        ("1", True, "blockmean8 must tell the alternatives of at least one triplet apart, 4 that"),
    ],
)
def test_triplets_without_a_choice_leave_nothing_to_attack(
    triplets: Path, tmp_path: Path, vote: str, is_same: bool, words: str
):
    root = tmp_path / "nights"
    shutil.copytree(triplets, root)
    header, *rows = [line.split(",") for line in (root / "data.csv").read_text().splitlines()]
    for row in rows:
        row[2], row[6] = vote, row[5] if is_same else row[6]
    (root / "data.csv").write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    done = attack(
        root, "--objective", "2afc", "--metric", "blockmean8", "--queries", 4, "--out", tmp_path
    )
    assert done.exit_code == 1
    assert f"error: nothing was attacked: {words}" in done.stderr


def test_of_data_with_parts_the_test_part_is_attacked(pictures: Path, tmp_path: Path):
    """What a network was trained on would be no test of it."""
    files = [path for path in sorted(pictures.rglob("*")) if path.suffix in {".png", ".jpg"}]
    for number, path in enumerate(files):
        part = tmp_path / "data" / ("test" if number % 3 == 0 else "train") / "some"
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part / f"{number}{path.suffix}")
    plan = Plan(data=tmp_path / "data", out=tmp_path / "out", objective="eviction", queries=2)
    block = ask(plan, metric_of_input(load_metric("raw")), Progress())[0]
    scores = block.decision.scores(
        torch.from_numpy(block.vectors).float(), torch.arange(len(block.ids))
    )
    assert scores.shape[1] == 1 + len(files[::3])  # the right entry's, then the gallery's


def test_of_triplets_without_a_test_part_the_validation_part_is_attacked(
    pictures: Path, tmp_path: Path
):
    """BAPPS, as it was published, has no other part that people judged enough."""
    one, other = sorted(pictures.iterdir())[:2]
    for folder, source in (("ref", one), ("p0", one), ("p1", other)):
        (tmp_path / "2afc" / "val" / "cnn" / folder).mkdir(parents=True)
        shutil.copy(source, tmp_path / "2afc" / "val" / "cnn" / folder / f"0{source.suffix}")
    (tmp_path / "2afc" / "val" / "cnn" / "judge").mkdir()
    np.save(tmp_path / "2afc" / "val" / "cnn" / "judge" / "0.npy", np.zeros(1, np.float32))
    plan = Plan(data=tmp_path, out=tmp_path / "out", objective="2afc")
    assert ask(plan, metric_of_input(load_metric("raw")), Progress())[0].ids == ["cnn/0"]
