"""Judged triplets, NIGHTS and BAPPS: which of two pictures people found closer to a reference.

Read as the official loaders read them; docs/data.md says what both layouts look like.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.data.edits import Pixels
from model.data.pictures import PICTURE_SUFFIXES, decode, read_file
from model.errors import DataError

NIGHTS_SPLITS = ("train", "val", "test", "test_imagenet", "test_no_imagenet")
TABLE = "data.csv"
FEWEST_VOTES = 6
# All that were published; the training part has `mix` in the place of the last four.
BAPPS_SUBSETS = ("traditional", "cnn", "superres", "deblur", "color", "frameinterp", "mix")
BAPPS_SPLITS = ("train", "val")

_COLUMNS = (
    *("id", "right_vote", "votes", "ref_path", "left_path", "right_path"),
    *("split", "is_imagenet"),
)
_BOOLEANS = {"true": True, "false": False}
# What the synthetic set writes as a prompt. The prompt of a real triplet is a group of its own.
_GROUP = re.compile(r"(severity|nested):[a-z+]+")
_FOLDERS = {
    **dict.fromkeys(("ref", "p0", "p1"), PICTURE_SUFFIXES),
    "judge": frozenset({"npy"}),
}


@dataclass(frozen=True)
class Triplet:
    """One question to people, and their answer.

    Attributes:
        id: the data set's own name of it.
        reference: the picture that the others are held against.
        left: one of them; BAPPS calls it p0.
        right: the other; p1.
        vote: share that found right closer, in [0, 1], as float32 holds it.
        votes: how many answered; None where the data set does not say.
        split: train, val or test.
        is_imagenet: whether the pictures' category is one of ImageNet's; None if not said.
        group: what a report tells apart (a subset of BAPPS, a kind of synthetic triplets), or None.
    """

    id: str
    reference: Path
    left: Path
    right: Path
    vote: float
    votes: int | None
    split: str
    is_imagenet: bool | None = None
    group: str | None = None


def load_triplet_pixels(triplet: Triplet) -> tuple[Pixels, Pixels, Pixels]:
    """Reference, left and right, upright and in RGB, (H, W, 3) each, read-only.

    Raises:
        DataError: one cannot be read or decoded; the message names its file.
    """
    reference, left, right = (
        decode(read_file(path), str(path))
        for path in (triplet.reference, triplet.left, triplet.right)
    )
    return reference, left, right


def read_triplets(root: Path, split: str | None = None) -> list[Triplet]:
    """The triplets of one split, whichever of the two layouts the folder has.

    Args:
        root: a folder with data.csv (NIGHTS), or with bapps/2afc, 2afc, or train/ and val/ (BAPPS).
        split: one of NIGHTS_SPLITS or BAPPS_SPLITS; None for the one that is there to measure on:
            test of NIGHTS, val of BAPPS.

    Raises:
        DataError: it is neither, or not what its layout wants; the message names the file.
    """
    if (root / TABLE).exists():
        return _read_nights(root, split or "test")
    for tree in (root / "bapps" / "2afc", root / "2afc", root):
        if any((tree / name).is_dir() for name in BAPPS_SPLITS):
            return _read_bapps(tree, split or "val")
    raise DataError(f"{root} holds neither {TABLE} (NIGHTS) nor bapps/2afc (BAPPS)")


def _read_nights(root: Path, split: str) -> list[Triplet]:
    """The triplets of one split with votes enough, in the order of the table."""
    if split not in NIGHTS_SPLITS:
        raise DataError(f"NIGHTS has the splits {', '.join(NIGHTS_SPLITS)}; {split!r} came")
    table = root / TABLE
    triplets: list[Triplet] = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
                raise DataError(f"{table}: columns {', '.join(missing)} were wanted, none came")
            for row in reader:
                triplet = _judged(root, row, f"{table}, line {reader.line_num}")
                if triplet is not None and _belongs(triplet, split):
                    triplets.append(triplet)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"{table} cannot be read as CSV in UTF-8: {exc}") from exc
    if not triplets:
        raise DataError(f"{table} has no row of {split} with {FEWEST_VOTES} votes or more")
    for triplet in triplets:
        for path in (triplet.reference, triplet.left, triplet.right):
            if not path.is_file():
                raise DataError(f"{table}, id {triplet.id}: there is no file {path}")
    return triplets


def _judged(root: Path, row: dict[str, str], where: str) -> Triplet | None:
    """The triplet of a row; None where too few people judged it."""
    try:
        votes = int(float(row["votes"]))
        if votes < FEWEST_VOTES:
            return None
        vote = float(np.float32(row["right_vote"]))
        is_imagenet = _BOOLEANS[row["is_imagenet"].lower()]
        reference, left, right = (root / row[f"{name}_path"] for name in ("ref", "left", "right"))
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError) as exc:
        raise DataError(f"{where}: numbers, and True or False, were wanted: {exc}") from exc
    if not 0.0 <= vote <= 1.0:
        raise DataError(f"{where}: right_vote is a number from 0 to 1; {vote} came")
    found = _GROUP.fullmatch(row.get("prompt") or "")
    about = (row["split"], is_imagenet, found and found[0])
    return Triplet(row["id"], reference, left, right, vote, votes, *about)


def _belongs(triplet: Triplet, split: str) -> bool:
    if split.startswith("test_"):
        return triplet.split == "test" and triplet.is_imagenet == (split == "test_imagenet")
    return triplet.split == split


def _read_bapps(tree: Path, split: str) -> list[Triplet]:
    """The triplets of one split, subset by subset, each in the order of its files.

    Left is p0, right is p1, and the vote is the judgement: the share that preferred p1.
    """
    if split not in BAPPS_SPLITS:
        raise DataError(f"BAPPS has the splits {' and '.join(BAPPS_SPLITS)}; {split!r} came")
    there = [subset for subset in BAPPS_SUBSETS if (tree / split / subset).is_dir()]
    triplets = [triplet for subset in there for triplet in _read_subset(tree, split, subset)]
    if not triplets:
        raise DataError(f"{tree / split} holds none of the subsets {', '.join(BAPPS_SUBSETS)}")
    return triplets


def _read_subset(tree: Path, split: str, subset: str) -> list[Triplet]:
    """The sorted files of the four folders belong together, so they must be called alike."""
    folder = tree / split / subset
    columns = [_sorted_files(folder / name, suffixes) for name, suffixes in _FOLDERS.items()]
    references = [path.stem for path in columns[0]]
    for name, paths in zip(_FOLDERS, columns, strict=True):
        stems = [path.stem for path in paths]
        if stems != references or len(set(stems)) != len(stems):
            odd = sorted(set(stems) ^ set(references)) or ["the order of the files"]
            raise DataError(f"{folder / name}: the names of ref/ were wanted, {odd[0]!r} differs")
    return [
        Triplet(
            id=f"{subset}/{reference.stem}",
            reference=reference,
            left=left,
            right=right,
            vote=_judgement(judge),
            votes=None,
            split=split,
            group=subset,
        )
        for reference, left, right, judge in zip(*columns, strict=True)
    ]


def _sorted_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The files of a folder that end so, by name; hidden and other files are passed over."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.suffix[1:].lower() in suffixes
    )


def _judgement(path: Path) -> float:
    """One number of a .npy file, which is never unpickled."""
    try:
        array = np.load(path, allow_pickle=False)
        # As the official loader hands it out.
        vote = float(np.asarray(array).astype(np.float32).reshape(()))
    except (OSError, ValueError, EOFError, TypeError) as exc:
        raise DataError(f"{path} is no .npy file of one number: {exc}") from exc
    if not 0.0 <= vote <= 1.0:
        raise DataError(f"{path}: a share from 0 to 1 was wanted, {vote} came")
    return vote
