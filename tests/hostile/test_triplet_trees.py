"""Every wrong tree of triplets ends in a DataError that names file, line and column."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from image_files import encoded, photo

from model.data.triplets import load_triplet_pixels, read_bapps, read_nights
from model.errors import DataError

COLUMNS = ["id", "left_vote", "right_vote", "votes", "ref_path", "left_path", "right_path",
           "split", "is_imagenet", "prompt"]  # fmt: skip
FIRST = ["0", "0", "1", "8", "r.png", "a.png", "b.png", "train", "True", "p"]
ROW = ["1", *FIRST[1:]]


@pytest.fixture
def nights(tmp_path):
    for name in ("r", "a", "b"):
        (tmp_path / f"{name}.png").write_bytes(encoded(photo(), "PNG"))
    return tmp_path


def write(root, columns=COLUMNS, row=ROW):
    (root / "data.csv").write_text(f"{','.join(columns)}\n{','.join(FIRST)}\n{','.join(row)}\n")


def without(name):
    return [column for column in COLUMNS if column != name]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            ["right_vote", "left_vote", "id", *COLUMNS[3:]],
            "'id' was wanted at 0, 'right_vote' came",
        ),
        (["id", "right_vote", "left_vote", *COLUMNS[3:]], "'right_vote' .* at 2, 'left_vote' came"),
        ([*COLUMNS[:4], "left_path", "ref_path", *COLUMNS[6:]], "'ref_path' .* at 4, 'left_path'"),
        ([*COLUMNS[:5], "right_path", "left_path", *COLUMNS[7:]], "'left_path' .* at 5"),
        ([*COLUMNS[:6], "path", *COLUMNS[7:]], "'right_path' was wanted at 6, 'path' came"),
        (["Id", *COLUMNS[1:]], "'id' was wanted at 0, 'Id' came"),
        ([" id", *COLUMNS[1:]], "'id' was wanted at 0, ' id' came"),
        (COLUMNS[:6], "'right_path' was wanted at 6, none came"),
        ([""], "'id' was wanted at 0, none came"),
        ([*COLUMNS[:3], "vote", *COLUMNS[4:]], "one column 'votes' was wanted, 0 came among id,"),
        (without("split"), "one column 'split' was wanted, 0 came"),
        (without("is_imagenet"), "one column 'is_imagenet' was wanted, 0 came"),
        ([*COLUMNS, "votes"], "one column 'votes' was wanted, 2 came"),
        ([*COLUMNS, "split"], "one column 'split' was wanted, 2 came"),
    ],
)
def test_wrong_columns_are_refused_by_name_and_place(nights, columns, words):
    write(nights, columns)
    with pytest.raises(DataError, match=words) as caught:
        read_nights(nights, "train")
    assert str(nights / "data.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("votes", "0", "a triplet that nobody judged: votes is 0"),
        ("votes", "0.0", "nobody judged"),
        *(("votes", v, "votes is a whole number; ") for v in
          ("", "-8", "8.5", "8 ", "1e1", "nan", "inf", "\u0668", "1_0", "0x8", "8" * 12)),
        *(("right_vote", v, "right_vote is a number from 0 to 1; ") for v in
          ("", "-0.1", "1.0001", "2", "nan", "inf", "NaN", " 1", "1_0", "0x1", "True",
           "\u0660", "1,", "9" * 5000)),
        *(("split", v, "split is one of train, val, test; ") for v in
          ("", "Train", "train ", "test_imagenet", "0")),
        *(("is_imagenet", v, "is_imagenet is True or False; ") for v in
          ("yes", "1", "0", "tRUE", "fALSE", "None", "True ", "")),
        ("id", "0", "the id '0' is on line 2 already"),
        ("ref_path", "", "ref_path: a path below the folder was wanted"),
        ("ref_path", "/etc/passwd", "ref_path: .* leads outside"),
        ("left_path", "../a.png", "left_path: .* leads outside"),
        ("right_path", "x/../../a.png", "right_path: .* leads outside"),
        ("right_path", "x\\a.png", "right_path: .* leads outside"),
        ("right_path", "x\0a.png", "right_path: .* cannot be printed"),
        ("ref_path", "missing.png", "ref_path: there is no file .*missing.png"),
        ("left_path", ".", "left_path: there is no file"),
        ("right_path", "z" * 300, "right_path: there is no file"),
        ("right_path", "r.png/x", "right_path: there is no file"),
        ("right_path", "outside.png", "right_path: .*outside.png is a link that leads outside"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_line_and_column(nights, column, value, words):
    (nights / "outside.png").symlink_to("/etc/passwd")
    row = [value if name == column else old for name, old in zip(COLUMNS, ROW, strict=True)]
    row = [f'"{value}"' if "," in value else value for value in row]
    write(nights, row=row)
    with pytest.raises(DataError, match=f"data.csv, line 3[:,].*{words}") as caught:
        read_nights(nights, "train")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_row_of_any_split_must_say_which_half_it_is_of(nights, split):
    for words, is_imagenet in (("True TRUE true", True), ("False FALSE false", False)):
        for word in words.split():
            write(nights, row=[*ROW[:7], split, word, "p"])
            assert read_nights(nights, split)[-1].is_imagenet is is_imagenet
    write(nights, row=[*ROW[:7], split, "", "p"])
    with pytest.raises(DataError, match="line 3: is_imagenet is True or False; '' came"):
        read_nights(nights, split)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file .*data.csv"),
        (b"", "'id' was wanted at 0, none came"),
        (b"\x89PNG\r\n\x1a\n", "data.csv is not UTF-8"),
        ("id".encode("utf-16"), "data.csv is not UTF-8"),
        (b"{HEAD}\n{ROW}\n1,2,3\n", "line 3: 10 columns were wanted, 3 came"),
        (b"{HEAD}\n{ROW},more\n", "line 2: 10 columns were wanted, 11 came"),
        (b'{HEAD}\n{ROW}\n"open', "line 3: no CSV: unexpected end of data"),
        (b'{HEAD}\n"a"b{ROW}\n', "line 2: no CSV: ',' expected after '\"'"),
        (b"{HEAD}\n" + b"x" * 200_000, "line 2: no CSV: field larger than field limit"),
        (b"{HEAD}\n", "data.csv has no row of train with 6 votes or more"),
    ],
)
def test_a_file_that_is_no_table_is_refused(nights, content, words):
    if content is not None:
        for name, text in (("{HEAD}", COLUMNS), ("{ROW}", ROW)):
            content = content.replace(name.encode(), ",".join(text).encode())
        (nights / "data.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_nights(nights, "train")


def test_a_table_that_is_a_pipe_does_not_hang(nights):
    os.mkfifo(nights / "data.csv")
    with pytest.raises(DataError, match=r"a regular file was wanted at .*data.csv"):
        read_nights(nights, "train")


def test_an_unknown_split_is_refused(nights):
    write(nights)
    with pytest.raises(DataError, match=r"NIGHTS has the splits train, val, test, .*'validation'"):
        read_nights(nights, "validation")


def test_a_picture_that_cannot_be_decoded_is_named(nights):
    write(nights)
    (nights / "b.png").write_bytes(encoded(photo(), "PNG")[:200])
    with pytest.raises(DataError, match=r"b\.png: "):
        load_triplet_pixels(read_nights(nights, "train")[0])


# BAPPS.


@pytest.fixture
def subset(tmp_path):
    folder = tmp_path / "bapps" / "2afc" / "val" / "cnn"
    for name in ("ref", "p0", "p1", "judge"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            if name == "judge":
                np.save(folder / name / f"{number}.npy", np.array([0.4], np.float32))
            else:
                (folder / name / f"{number}.png").write_bytes(encoded(photo(8, 8), "PNG"))
    return folder


def refuse(subset, words):
    with pytest.raises(DataError, match=words) as caught:
        read_bapps(subset.parents[3], "val")
    assert str(subset) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ref/1.png", "/p0: '1' is there, and not in ref/"),
        ("p0/1.png", "/p0: '1' of ref/ is missing"),
        ("p1/1.png", "/p1: '1' of ref/ is missing"),
        ("judge/1.npy", "/judge: '1' of ref/ is missing"),
    ],
)
def test_a_file_that_is_missing_in_one_folder_is_named(subset, name, words):
    (subset / name).unlink()
    refuse(subset, words)


def test_files_that_sorting_would_pair_wrongly_are_refused(subset):
    # ".npy" sorts before ".o", ".png" after it.
    for folder in ("ref", "p0", "p1"):
        (subset / folder / "1.png").rename(subset / folder / "0.o.png")
    (subset / "judge" / "1.npy").rename(subset / "judge" / "0.o.npy")
    refuse(subset, "/judge: '0' is sorted to the place of '0.o' of ref/")


def test_a_name_that_comes_twice_is_refused(subset):
    (subset / "p1" / "1.jpg").write_bytes(b"x")
    refuse(subset, "/p1: two files are called '1'")


def test_what_is_no_file_of_the_tree_is_refused(subset):
    (subset / "p0" / "0.png").unlink()
    (subset / "p0" / "0.png").symlink_to("/etc/passwd")
    refuse(subset, "0.png is a link that leads outside the tree")
    (subset / "p0" / "0.png").unlink()
    (subset / "p0" / "0.png").mkdir()
    refuse(subset, "files were wanted in .*/p0, 0.png is a folder")


def test_a_folder_without_files_is_refused(subset):
    for path in (subset / "judge").iterdir():
        path.unlink()
    refuse(subset, r"/judge holds no files that end in \.npy")


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def npz():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", npy(np.zeros(1)))
    return out.getvalue()


EXPLODED = []


def explode():
    EXPLODED.append(True)


class Bomb:
    def __reduce__(self):
        return (explode, ())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no .npy file"),
        (b"\x93NUMPY", "no .npy file"),
        (npy(np.array([0.4]))[:-1], "no .npy file"),
        (npz(), "no .npy file"),
        (pickle.dumps(Bomb()), "no .npy file"),
        (npy(np.array([Bomb()], object)), "no .npy file"),
        (npy(np.zeros(3)).replace(b"(3,)", b"(9999999999999,)"), "no .npy file"),
        (npy(np.zeros(3)).replace(b"(3,)", b"(-1,)"), "no .npy file"),
        (npy(np.zeros(2)), r"one number was wanted, float64 \(2,\) came"),
        (npy(np.zeros(0)), "one number was wanted"),
        (npy(np.array("0.4")), "one number was wanted, <U3"),
        (npy(np.array([True])), "one number was wanted, bool"),
        (npy(np.array([0.4j])), "one number was wanted, complex128"),
        (npy(np.array([1.5])), "a share from 0 to 1 was wanted, 1.5 came"),
        (npy(np.array([-0.2])), "a share from 0 to 1 was wanted, -0.2"),
        (npy(np.array([np.nan])), "a share from 0 to 1 was wanted, nan came"),
        (npy(np.array([np.inf])), "a share from 0 to 1 was wanted, inf came"),
        (npy(np.zeros(1)) + b"x" * 70_000, "at most 65536 bytes"),
    ],
)
def test_a_judgement_that_is_no_share_is_refused_and_never_unpickled(subset, content, words):
    (subset / "judge" / "1.npy").write_bytes(content)
    refuse(subset, f"judge/1.npy.*{words}|{words}.*judge/1.npy")
    assert not EXPLODED
