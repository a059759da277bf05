"""Calibration on a list of pairs."""

import csv

import pytest
from calibrate_tools import PICTURES, calibrate
from index_tools import black_picture, picture, saved_again, write_folder

from index_builder.build.maintenance import verify_index
from index_builder.calibration.queries import LabelledPairs
from index_builder.errors import SourceError

pytestmark = pytest.mark.without_shape_checks


def write_pairs(folder, rows, columns=("path", "id")):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return LabelledPairs(folder / "pairs.csv")


def test_a_labelled_list_gives_positives_and_negatives_of_every_kind(data_dir, tmp_path):
    folder = write_folder(tmp_path / "queries", 330)
    write_folder(folder, 330, first=20_000)
    (folder / "black.png").write_bytes(black_picture())
    rows = [(f"{n:04d}.png", f"{n:04d}.png", "same") for n in range(330)]
    rows += [(f"{n}.png", "", "stranger") for n in range(20_000, 20_330)]
    rows += [("black.png", "", ""), ("0001.png", "0001.png", "")]
    pairs = write_pairs(folder, rows, ("path", "id", "kind"))
    calibration = calibrate(data_dir, pairs).calibration
    assert calibration.pairs == "labelled"
    assert calibration.source.endswith("pairs.csv")
    assert calibration.queries == 662
    assert calibration.pictures == 661, "the second query of one original is of the same group"
    measured = calibration.point("balanced").measured
    # Noise and its own copy: the same picture is found by a margin that no stranger has.
    assert measured["same"].hits == measured["same"].positives > 100
    assert measured["stranger"].positives == 0
    assert measured["stranger"].negatives > 100
    assert measured["same"].negatives == measured["same"].positives


def test_a_picture_counts_once_whatever_its_files_are_called(data_dir, tmp_path):
    """By another path, linked, copied, saved again: one stranger is no 660 strangers."""
    folder = write_folder(tmp_path / "queries", 330)
    (folder / "q.png").write_bytes(picture(20_000))
    rows = [(f"{n:04d}.png", f"{n:04d}.png") for n in range(330)]
    rows += [("./" * n + "q.png", "") for n in range(200)]
    for n in range(200):
        (folder / f"link{n}.png").hardlink_to(folder / "q.png")
        (folder / f"copy{n}.png").write_bytes((folder / "q.png").read_bytes())
        (folder / f"again{n}.png").write_bytes(saved_again(picture(20_000), n))
        rows += [(f"{kind}{n}.png", "") for kind in ("link", "copy", "again")]
    with pytest.raises(SourceError, match=r"from 1\d\d pictures in the smaller half, it takes 299"):
        calibrate(data_dir, write_pairs(folder, rows))


def test_a_file_listed_with_its_original_and_without_is_one_picture(data_dir, tmp_path):
    folder = write_folder(tmp_path / "queries", PICTURES)
    rows = [(f"{n:04d}.png", f"{n:04d}.png") for n in range(PICTURES)]
    rows += [(f"{n:04d}.png", "") for n in range(4)]
    # Two originals that one file is said to be a copy of hang together too.
    rows += [("0010.png", "0011.png")]
    calibration = calibrate(data_dir, write_pairs(folder, rows)).calibration
    assert calibration.queries == PICTURES + 5
    assert calibration.pictures == PICTURES - 1


# Enough pictures for an operating point, were it not for the line before them.
ENOUGH = [("0000.png", f"{n:04d}.png") for n in range(PICTURES)]
BAD_LISTS = [
    ([], ("path", "id"), "lists no query"),
    ([("0000.png",)], ("path",), "wanted a header line with id and path"),
    ([("0000.png", "nope")], ("path", "id"), "line 2: no item 'nope' in the index"),
    ([("", "0000.png")], ("path", "id"), "line 2: wanted a path, got none"),
    ([("../in.png", "")], ("path", "id"), "line 2: path '../in.png' leaves the list's folder"),
    ([("/etc/passwd", "")], ("path", "id"), "line 2: path '/etc/passwd' is absolute: wanted a"),
    # Said before anything is measured, and before a list is said to be too short.
    ([("absent.png", "")], ("path", "id"), "line 2: 'absent.png': there is no such file: wanted"),
    ([("link.png", "")], ("path", "id"), "line 2: 'link.png': a link that leads outside"),
    ([("bad.png", ""), *ENOUGH], ("path", "id"), "line 2: 'bad.png' cannot be used"),
    ([("0000.png", "", "a\tb")], ("path", "id", "kind"), "a kind is 1 to 64 printable"),
    ([("0000.png", "", "x" * 65)], ("path", "id", "kind"), "a kind is 1 to 64 printable"),
    ([("0000.png", "0000.png")], ("path", "id"), "no operating point can be claimed"),
    ([("0000.png", "0000.png", "extra")], ("path", "id"), "line 2: wanted 2 values"),
]


@pytest.mark.parametrize(("rows", "columns", "message"), BAD_LISTS, ids=lambda x: str(x)[:30])
def test_a_list_that_cannot_be_used_is_refused_by_line_and_changes_nothing(
    data_dir, tmp_path, rows, columns, message
):
    folder = write_folder(tmp_path / "queries", 1)
    (folder / "bad.png").write_bytes(b"bad")
    (tmp_path / "outside.png").write_bytes(picture(0))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SourceError) as refusal:
        calibrate(data_dir, write_pairs(folder, rows, columns))
    assert message in str(refusal.value)
    assert verify_index(data_dir, "default").version == "v000001"
