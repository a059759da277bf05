import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encoded, photo

from model.data.triplets import NIGHTS_SPLITS, load_triplet_pixels, read_triplets
from model.errors import DataError

NAMED = ("votes", "split", "is_imagenet")


def official_rows(root, split):
    """What the published loaders hand out, from their description alone.

    Column 0 is the id, 2 the target as float32, 4 to 6 the paths; votes, split and is_imagenet go
    by their names; rows keep the order of the file.
    """
    with (root / "data.csv").open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row]
    votes, part, imagenet = (header.index(name) for name in NAMED)
    rows = [row for row in rows if float(row[votes]) >= 6]
    if split.startswith("test_"):
        wanted = str(split == "test_imagenet")
        rows = [row for row in rows if row[part] == "test" and row[imagenet] == wanted]
    else:
        rows = [row for row in rows if row[part] == split]
    return [(row[0], np.float32(row[2]), *(root / path for path in row[4:7])) for row in rows]


def our_rows(triplets):
    return [(t.id, t.vote, t.reference, t.left, t.right) for t in triplets]


@st.composite
def tables(draw):
    """A table as text: names that are looked up stand anywhere, other columns hold anything."""
    others = draw(st.permutations([*NAMED, "prompt", "left_vote", "x"]))
    header = ["id", others[0], "right_vote", others[1], "ref_path", "left_path", "right_path",
              *others[2:]]  # fmt: skip
    number = st.sampled_from(["0", "1", "0.0", "1.0", "0.1", "0.6666666666666666", "5e-1", ".25"])
    path = st.sampled_from(["ref/000/000.png", "distort/000/000_0.png", "distort/000/000_1.png"])
    columns = {
        "id": st.integers(0, 99999).map(str),
        "right_vote": number,
        "left_vote": number,
        "ref_path": path,
        "left_path": path,
        "right_path": path,
        "votes": st.sampled_from(["1", "5", "6", "7", "8", "10", "6.0"]),
        "split": st.sampled_from(["train", "val", "test"]),
        "is_imagenet": st.sampled_from(["True", "False"]),
        "prompt": st.text("ab ,\"'\n;é", max_size=6),
        "x": st.text("0.x", max_size=3),
    }
    row = st.tuples(*(columns[name] for name in header))
    rows = draw(st.lists(row, max_size=12, unique_by=lambda values: values[0]))
    out = io.StringIO()
    csv.writer(out, lineterminator=draw(st.sampled_from(["\n", "\r\n"]))).writerows([header, *rows])
    blank = draw(st.sampled_from(["", "\n"]))
    return draw(st.sampled_from(["", "\ufeff"])) + out.getvalue() + blank


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("nights")
    for seed, name in enumerate(["ref/000/000", "distort/000/000_0", "distort/000/000_1"]):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photo(seed=seed), "PNG"))
    return root


@settings(max_examples=150, deadline=None)
@given(text=tables())
def test_rows_votes_splits_and_order_are_those_of_the_official_loader(tree, text):
    (tree / "data.csv").write_text(text, encoding="utf-8", newline="")
    for split in ("train", "val", "test_imagenet", "test_no_imagenet", "test"):
        expected = official_rows(tree, split)
        if expected:
            assert our_rows(read_triplets(tree, split)) == expected
        else:
            with pytest.raises(DataError, match=f"has no row of {split} with 6 votes or more"):
                read_triplets(tree, split)


HEADER = "id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,is_imagenet,prompt"
PATHS = "ref/000/000.png,distort/000/000_0.png,distort/000/000_1.png"


def write(root, *rows, header=HEADER):
    (root / "data.csv").write_text("\n".join([header, *rows]) + "\n")


def row(number=1, vote="1", votes="8", *, paths=PATHS, split="train", imagenet="True", prompt=""):
    return f"{number},0,{vote},{votes},{paths},{split},{imagenet},{prompt}"


def test_a_triplet_says_all_that_its_row_says(tree):
    write(tree, row(7, "0.25", "6", split="test", imagenet="False", prompt="An image of a dog"))
    (triplet,) = read_triplets(tree, "test")
    assert (triplet.id, triplet.vote, triplet.votes, triplet.split) == ("7", 0.25, 6, "test")
    assert (triplet.is_imagenet, triplet.group) == (False, None)
    assert read_triplets(tree) == [triplet]
    for seed, pixels in enumerate(load_triplet_pixels(triplet)):
        assert np.array_equal(pixels, photo(seed=seed))


def test_the_kind_of_a_synthetic_triplet_is_its_group(tree):
    write(tree, row(1, prompt="severity:blur"), row(2, prompt="nested:blur+jpeg"))
    assert [t.group for t in read_triplets(tree, "train")] == ["severity:blur", "nested:blur+jpeg"]


def test_test_is_both_of_its_halves_in_the_order_of_the_file(tree):
    write(tree, *(row(n, split="test", imagenet=str(n % 3 == 0)) for n in range(9)))
    ids = {split: [t.id for t in read_triplets(tree, split)] for split in NIGHTS_SPLITS[2:]}
    assert ids["test"] == [str(n) for n in range(9)]
    assert ids["test_imagenet"] == ["0", "3", "6"]
    assert ids["test_no_imagenet"] == ["1", "2", "4", "5", "7", "8"]


def test_names_of_the_columns_that_nobody_reads_are_free(tree):
    write(tree, row(), header=HEADER.replace("left_vote", "whatever").replace(",prompt", ",votes2"))
    assert len(read_triplets(tree, "train")) == 1


@pytest.mark.parametrize("name", ["id", "right_vote", "ref_path", "votes", "split", "is_imagenet"])
def test_a_column_that_is_missing_is_named(tree, name):
    write(tree, row(), header=HEADER.replace(name, "other"))
    with pytest.raises(DataError, match=f"data.csv: columns {name} were wanted"):
        read_triplets(tree, "train")


@pytest.mark.parametrize(
    "wrong",
    [
        {"vote": "1.5"},
        {"vote": "-0.1"},
        {"vote": "nan"},
        {"vote": ""},
        {"votes": "eight"},
        {"votes": ""},
        {"votes": "inf"},
        {"imagenet": "yes"},
        {"imagenet": ""},
    ],
)
def test_a_value_that_is_none_of_its_columns_is_refused_with_its_line(tree, wrong):
    write(tree, row(1), row(2, **wrong))
    with pytest.raises(DataError, match=r"data.csv, line 3: "):
        read_triplets(tree, "train")


@pytest.mark.parametrize(
    "content", [None, b"", b"\x89PNG\r\n", "id".encode("utf-16"), b"{HEAD}\n1,2"]
)
def test_what_is_no_table_is_refused(tree, content):
    (tree / "data.csv").unlink(missing_ok=True)
    if content is not None:
        (tree / "data.csv").write_bytes(content.replace(b"{HEAD}", HEADER.encode()))
    with pytest.raises(DataError, match=r"data\.csv"):
        read_triplets(tree, "train")


def test_an_unknown_split_and_one_without_rows_are_refused(tree):
    write(tree, row())
    with pytest.raises(DataError, match=r"NIGHTS has the splits train, val, test, .*'validation'"):
        read_triplets(tree, "validation")
    with pytest.raises(DataError, match="has no row of val with 6 votes or more"):
        read_triplets(tree, "val")


def test_a_picture_that_cannot_be_decoded_is_named(tree):
    (tree / "bad.png").write_bytes(encoded(photo(), "PNG")[:200])
    write(tree, row(paths="bad.png,bad.png,bad.png"))
    with pytest.raises(DataError, match=r"bad\.png: "):
        load_triplet_pixels(read_triplets(tree, "train")[0])


def test_rows_with_few_votes_are_left_out_whatever_they_hold(tree):
    write(tree, row(1, votes="5", vote="x", paths="a,b,c", split="y"), row(2, votes="6"))
    assert [t.id for t in read_triplets(tree, "train")] == ["2"]


def test_pictures_of_other_splits_need_not_be_there(tree):
    write(tree, row(1), row(2, split="val", paths="ref/1.png,distort/1_0.png,distort/1_1.png"))
    assert [t.id for t in read_triplets(tree, "train")] == ["1"]
    with pytest.raises(DataError, match=r"data.csv, id 2: there is no file .*ref/1.png"):
        read_triplets(tree, "val")
