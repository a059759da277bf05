import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, photo

from model.data.triplets import load_triplet_pixels, read_triplets
from model.errors import DataError

FOLDERS = ("ref", "p0", "p1")


def official_rows(tree, split, subset):
    """What the published loader hands out: sorted files of the four folders, side by side."""
    columns = []
    for folder, suffix in (*((name, ".png") for name in FOLDERS), ("judge", ".npy")):
        top = os.path.join(tree, split, subset, folder)
        columns.append(sorted(os.path.join(top, f) for f in os.listdir(top) if f.endswith(suffix)))
    return [
        (ref, p0, p1, np.load(judge).reshape(1).astype(np.float32)[0])
        for ref, p0, p1, judge in zip(*columns, strict=True)
    ]


def our_rows(triplets):
    return [(str(t.reference), str(t.left), str(t.right), np.float32(t.vote)) for t in triplets]


def put(folder, stem, judge, *, seed=0):
    for number, name in enumerate(FOLDERS):
        path = folder / name / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photo(8, 8, seed=seed + number), "PNG"))
    (folder / "judge").mkdir(exist_ok=True)
    np.save(folder / "judge" / f"{stem}.npy", judge)


STEMS = st.text("019ab-_", min_size=1, max_size=4)
JUDGES = st.tuples(
    st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 1 / 3, 1.0]),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([(1,), (), (1, 1, 1)]),
)


@settings(max_examples=30, deadline=None)
@given(rows=st.dictionaries(STEMS, JUDGES, min_size=1, max_size=5))
def test_pairs_judgements_and_order_are_those_of_the_official_loader(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("bapps")
    tree = root / "bapps" / "2afc"
    for stem, (value, dtype, shape) in rows.items():
        put(tree / "val" / "cnn", stem, np.full(shape, value, dtype))
    triplets = read_triplets(root, "val")
    assert our_rows(triplets) == official_rows(tree, "val", "cnn")
    assert read_triplets(tree) == triplets == read_triplets(root / "bapps")


@pytest.fixture
def tree(tmp_path):
    for split, subset, count in (("val", "traditional", 3), ("val", "cnn", 2), ("train", "mix", 1)):
        for number in range(count):
            put(
                tmp_path / split / subset,
                f"{number:06}",
                np.array([number / 5], np.float32),
                seed=number,
            )
    return tmp_path


def test_subsets_come_in_the_published_order(tree):
    triplets = read_triplets(tree, "val")
    assert [t.group for t in triplets] == ["traditional"] * 3 + ["cnn"] * 2
    assert [t.id for t in triplets][2:4] == ["traditional/000002", "cnn/000000"]
    assert [t.id for t in read_triplets(tree, "train")] == ["mix/000000"]


def test_left_is_p0_right_is_p1_and_the_vote_is_for_p1(tree):
    triplet = read_triplets(tree, "val")[4]
    assert (triplet.left.parent.name, triplet.right.parent.name) == ("p0", "p1")
    assert triplet.vote == float(np.float32(0.2))
    assert (triplet.votes, triplet.split, triplet.is_imagenet) == (None, "val", None)
    for number, pixels in enumerate(load_triplet_pixels(triplet)):
        assert np.array_equal(pixels, photo(8, 8, seed=1 + number))


def test_files_beside_the_pictures_are_passed_over(tree):
    for folder in ("ref", "judge"):
        (tree / "val" / "cnn" / folder / "notes.txt").write_text("x")
        (tree / "val" / "cnn" / folder / "._000000.png").write_text("x")
    assert len(read_triplets(tree, "val")) == 5


def test_what_is_not_there_is_named(tree, tmp_path):
    with pytest.raises(DataError, match="BAPPS has the splits train and val; 'test' came"):
        read_triplets(tree, "test")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="empty/train holds none of the subsets"):
        read_triplets(tmp_path / "empty", "train")
    with pytest.raises(DataError, match=r"holds neither data.csv \(NIGHTS\) nor bapps/2afc"):
        read_triplets(tree / "val", "val")
    (tree / "val" / "deblur").mkdir()
    with pytest.raises(DataError, match=r"there is no folder .*/val/deblur/ref"):
        read_triplets(tree, "val")


@pytest.mark.parametrize("name", ["ref/000001.png", "p0/000001.png", "judge/000001.npy"])
def test_a_file_that_is_missing_in_one_folder_is_named(tree, name):
    (tree / "val" / "traditional" / name).unlink()
    with pytest.raises(DataError, match="the names of ref/ were wanted, '000001' differs"):
        read_triplets(tree, "val")


def test_files_that_sorting_would_pair_wrongly_and_names_that_come_twice_are_refused(tree):
    folder = tree / "val" / "traditional"
    (folder / "p1" / "000001.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="/p1: the names of ref/ were wanted"):
        read_triplets(tree, "val")
    (folder / "p1" / "000001.jpg").unlink()
    # ".npy" sorts before ".o", ".png" after it.
    for place, suffix in (("ref", "png"), ("p0", "png"), ("p1", "png"), ("judge", "npy")):
        (folder / place / f"000001.{suffix}").rename(folder / place / f"000000.o.{suffix}")
    with pytest.raises(DataError, match="/judge: the names of ref/ were wanted"):
        read_triplets(tree, "val")


EXPLODED = []


class Bomb:
    def __reduce__(self):
        return (EXPLODED.append, (True,))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        pickle.dumps(Bomb()),
        np.array([Bomb()], object),
        np.zeros(2),
        np.array("0.4x"),
        np.array([1.5]),
        np.array([-0.2]),
        np.array([np.nan]),
    ],
)
def test_a_judgement_that_is_no_share_is_refused_and_never_unpickled(tree, content):
    file = tree / "val" / "cnn" / "judge" / "000001.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content, allow_pickle=True)
    with pytest.raises(DataError, match=r"judge/000001\.npy"):
        read_triplets(tree, "val")
    assert not EXPLODED
