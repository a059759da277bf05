import hashlib
import json
import subprocess
import sys
from collections import Counter
from itertools import product

import numpy as np
import pytest
from image_files import encoded, photo
from PIL import Image
from typer.testing import CliRunner

from model.data.pictures import open_pictures
from model.data.triplets import load_triplet_pixels, read_triplets
from model.errors import CorpusError, DataError
from model.train.__main__ import app
from model.train.distortions import FAMILIES
from model.train.synthetic_2afc import draw_triplet, plan_triplets, square, write_synthetic_2afc

HEADER = "id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,is_imagenet,prompt"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(12):
        noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        big = Image.fromarray(noise).resize((300 - 9 * seed, 260), Image.Resampling.BICUBIC)
        (folder / f"{seed:02}.png").write_bytes(encoded(big, "PNG"))
    return open_pictures(folder)


@pytest.fixture(scope="module")
def tree(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "a"
    write_synthetic_2afc(pictures, out, 40, seed=5)
    return out


def digests(tree):
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    return {path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files}  # fmt: skip


def test_the_real_loader_reads_the_set(tree):
    assert (tree / "data.csv").read_text().splitlines()[0] == HEADER
    counts = {}
    for split in ("train", "val", "test", "test_imagenet", "test_no_imagenet"):
        triplets = read_triplets(tree, split)
        counts[split] = len(triplets)
        assert {t.votes for t in triplets} <= {6, 8}
        assert {t.vote for t in triplets} <= {0.0, 1.0}
        for triplet in triplets[:2]:
            shapes = {pixels.shape for pixels in load_triplet_pixels(triplet)}
            assert shapes == {(224, 224, 3)}
    # Row 22 of 40 has five votes.
    assert counts["train"] + counts["val"] + counts["test"] == 39
    assert counts["test_imagenet"] + counts["test_no_imagenet"] == counts["test"]
    assert min(counts.values()) > 0


def test_the_kind_of_a_row_comes_back_as_its_group(tree):
    groups = [t.group for t in read_triplets(tree, "train")]
    for group in groups:
        kind, _, families = group.partition(":")
        assert kind in ("severity", "nested")
        named = families.split("+")
        assert len(set(named)) == (1 if kind == "severity" else 2)
        assert set(named) <= set(FAMILIES)
    assert {group.partition(":")[0] for group in groups} == {"severity", "nested"}


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(pictures, tree, tmp_path):
    """And a larger set begins with the smaller one."""
    whole = digests(tree)
    write_synthetic_2afc(pictures, tmp_path / "b", 12, seed=5)
    part = digests(tmp_path / "b")
    table = "data.csv"
    assert (tree / table).read_text().startswith((tmp_path / "b" / table).read_text())
    assert len(part) == 37
    assert all(whole[name] == part[name] for name in part if name != table)
    write_synthetic_2afc(pictures, tmp_path / "c", 10, seed=6)
    assert digests(tmp_path / "c")["distort/000/000_0.png"] != whole["distort/000/000_0.png"]


def test_the_closer_picture_is_the_less_distorted_one(tree):
    """On smooth pictures the pixels themselves show it for nearly all triplets."""
    right = []
    for triplet in read_triplets(tree, "train"):
        reference, *sides = (pixels.astype(float) for pixels in load_triplet_pixels(triplet))
        left_change, right_change = (np.abs(side - reference).mean() for side in sides)
        right.append((right_change < left_change) == (triplet.vote == 1.0))
    assert np.mean(right) > 0.85


def test_plans_are_balanced_within_each_split():
    plans = plan_triplets(pictures=2000, triplets=1440, seed=3)
    assert Counter(plan.split for plan in plans) == {"train": 1152, "val": 144, "test": 144}
    combinations = set(product((False, True), FAMILIES, (False, True), (False, True)))
    for split, times in (("train", 16), ("val", 2), ("test", 2)):
        counts = Counter(
            (p.is_nested, p.family, p.right_is_closer, p.is_imagenet)
            for p in plans
            if p.split == split
        )
        assert counts == dict.fromkeys(combinations, times)
    assert [plan.votes for plan in plans[:24]] == [8, 6] * 11 + [5, 6]
    assert {(p.family, p.added) for p in plans} <= {
        (a, b) for a in FAMILIES for b in FAMILIES if a != b
    }
    assert len({(p.family, p.added) for p in plans if p.is_nested}) == 72


def test_a_picture_stays_in_one_split_however_often_it_is_drawn():
    plans = plan_triplets(pictures=25, triplets=400, seed=1)
    splits = {}
    for plan in plans:
        splits.setdefault(plan.picture, set()).add(plan.split)
    assert len(splits) == 25
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}


def test_nested_pictures_differ_by_one_distortion_and_severity_by_strength():
    picture = photo(224, 224, seed=2)
    for plan in plan_triplets(pictures=10, triplets=20, seed=0):
        reference, left, right = draw_triplet(picture, plan, seed=0)
        assert np.array_equal(reference, square(picture))
        assert not np.array_equal(left, right)
        swapped = draw_triplet(picture, replace_side(plan), seed=0)
        assert np.array_equal(left, swapped[2])
        assert np.array_equal(right, swapped[1])


def replace_side(plan):
    return plan._replace(right_is_closer=not plan.right_is_closer)


def test_rows_whose_sides_look_alike_are_left_to_nobody(tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    for value in range(10):
        flat = np.full((50, 50, 3), 20 * value + 3, np.uint8)
        (folder / f"{value}.png").write_bytes(encoded(flat, "PNG"))
    counts = write_synthetic_2afc(open_pictures(folder), tmp_path / "out", 20, seed=0)
    triplets = read_triplets(tmp_path / "out", "train")
    assert len(triplets) <= counts["judged"] < 16
    for triplet in triplets:
        assert triplet.left.read_bytes() != triplet.right.read_bytes()


def test_what_cannot_be_made_is_refused_and_leaves_nothing(pictures, tree, tmp_path):
    with pytest.raises(CorpusError, match="is there already"):
        write_synthetic_2afc(pictures, tree, 10, seed=0)
    with pytest.raises(DataError, match=r"12 pictures .* and 9 triplets came"):
        write_synthetic_2afc(pictures, tmp_path / "x", 9, seed=0)
    few = tmp_path / "few"
    few.mkdir()
    for number in range(9):
        (few / f"{number}.png").write_bytes(encoded(photo(), "PNG"))
    with pytest.raises(DataError, match=r"9 pictures \(.*few\) and 10 triplets came"):
        write_synthetic_2afc(open_pictures(few), tmp_path / "x", 10, seed=0)
    (few / "9.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"9\.png: "):
        write_synthetic_2afc(open_pictures(few), tmp_path / "x", 10, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few"]


def test_the_command_says_what_it_made_or_why_not(pictures, tmp_path):
    command = [sys.executable, "-m", "model.train", "synthetic-2afc", pictures.name]
    command += [tmp_path / "out", "--triplets", "10", "--seed", "2", "--json"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    said = json.loads(done.stdout)
    assert said == {"out": str(tmp_path / "out"), "triplets": 10, "judged": 10,
                    "splits": {"train": 8, "val": 1, "test": 1}}  # fmt: skip
    again = subprocess.run(command, capture_output=True, check=False, text=True)
    assert again.returncode == 1
    assert json.loads(again.stdout)["error"]["type"] == "CorpusError"
    assert again.stderr.strip().startswith("error: ")
    assert "Traceback" not in again.stderr


def test_pictures_with_splits_are_drawn_from_one_of_them(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "in" / split).mkdir(parents=True)
        for n in range(10):
            (tmp_path / "in" / split / f"{n}.png").write_bytes(encoded(photo(seed=n), "PNG"))
    arguments = ["synthetic-2afc", str(tmp_path / "in"), str(tmp_path / "out"), "--triplets", "10"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "has the splits train, test: say which with --split" in done.stderr
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, [*arguments, "--split", "train"]).exit_code == 0
