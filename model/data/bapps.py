"""BAPPS: triplets as four folders ref/, p0/, p1/ and judge/ whose sorted files belong together."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.data.files import read_bytes
from model.data.pictures import PICTURE_SUFFIXES
from model.data.triplet import Triplet
from model.errors import DataError

# All that were published; the training part has `mix` in the place of the last four.
BAPPS_SUBSETS = ("traditional", "cnn", "superres", "deblur", "color", "frameinterp", "mix")
BAPPS_SPLITS = ("train", "val")

_PICTURE_FOLDERS = ("ref", "p0", "p1")
_JUDGE_FOLDER = "judge"
_MAX_JUDGE_BYTES = 1 << 16


def read_bapps(root: Path, split: str, subsets: Sequence[str] | None = None) -> list[Triplet]:
    """The triplets of one split, subset by subset, each in the order of its files.

    Left is p0, right is p1, and the vote is the judgement: the share that preferred p1.

    Args:
        root: the folder that holds bapps/2afc, or 2afc itself.
        split: train or val.
        subsets: some of BAPPS_SUBSETS, in the order wanted; None for all that are there.

    Raises:
        DataError: there is no such tree, split or subset; the four folders do not hold the same
            names; or a judgement is no single number from 0 to 1. The message names the file.
    """
    if split not in BAPPS_SPLITS:
        raise DataError(f"BAPPS has the splits {' and '.join(BAPPS_SPLITS)}; {split!r} came")
    tree = bapps_folder(root)
    chosen = BAPPS_SUBSETS if subsets is None else subsets
    for subset in chosen:
        if subset not in BAPPS_SUBSETS:
            raise DataError(f"BAPPS has the subsets {', '.join(BAPPS_SUBSETS)}; {subset!r} came")
    if subsets is None:
        chosen = [subset for subset in BAPPS_SUBSETS if (tree / split / subset).is_dir()]
    triplets = [triplet for subset in chosen for triplet in _read_subset(tree, split, subset)]
    if not triplets:
        raise DataError(f"{tree / split} holds none of the subsets {', '.join(BAPPS_SUBSETS)}")
    return triplets


def bapps_folder(root: Path) -> Path:
    """The folder 2afc of a tree.

    Raises:
        DataError: there is none.
    """
    for folder in (root / "bapps" / "2afc", root / "2afc", root):
        if any((folder / split).is_dir() for split in BAPPS_SPLITS):
            return folder
    raise DataError(f"neither {root / 'bapps' / '2afc'} nor {root} holds train/ or val/ of BAPPS")


def _read_subset(tree: Path, split: str, subset: str) -> list[Triplet]:
    folder = tree / split / subset
    suffixes = frozenset(f".{suffix}" for suffix in PICTURE_SUFFIXES)
    pictures = [_sorted_files(folder / name, suffixes, tree) for name in _PICTURE_FOLDERS]
    judges = _sorted_files(folder / _JUDGE_FOLDER, frozenset({".npy"}), tree)
    columns = [*pictures, judges]
    _check_pairs(folder, columns)
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


def _sorted_files(folder: Path, suffixes: frozenset[str], tree: Path) -> list[Path]:
    """The files of a folder that end so, by name; hidden and other files are passed over."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as exc:
        raise DataError(f"folder {folder} cannot be listed: {exc.strerror}") from exc
    found = [path for path in entries if not path.name.startswith(".")]
    for path in found:
        if path.is_dir():
            raise DataError(f"files were wanted in {folder}, {path.name} is a folder")
    found = [path for path in found if path.suffix.lower() in suffixes]
    if not found:
        raise DataError(f"{folder} holds no files that end in {', '.join(sorted(suffixes))}")
    inside = tree.resolve()
    for path in found:
        if not path.resolve().is_relative_to(inside):
            raise DataError(f"{path} is a link that leads outside the tree")
    return found


def _check_pairs(folder: Path, columns: list[list[Path]]) -> None:
    """Refuse folders that sorting would pair wrongly."""
    stems = [[path.stem for path in column] for column in columns]
    for name, there in zip((*_PICTURE_FOLDERS, _JUDGE_FOLDER), stems, strict=True):
        where = folder / name
        if twice := sorted(stem for stem, count in Counter(there).items() if count > 1):
            raise DataError(f"{where}: two files are called {twice[0]!r}")
        if missing := sorted(set(stems[0]) - set(there)):
            raise DataError(f"{where}: {missing[0]!r} of ref/ is missing")
        if surplus := sorted(set(there) - set(stems[0])):
            raise DataError(f"{where}: {surplus[0]!r} is there, and not in ref/")
        for wanted, came in zip(stems[0], there, strict=True):
            if wanted != came:
                raise DataError(f"{where}: {came!r} is sorted to the place of {wanted!r} of ref/")


def _judgement(path: Path) -> float:
    """One number of a .npy file, which is never unpickled."""
    data = read_bytes(path, _MAX_JUDGE_BYTES)
    # The one boundary to numpy's reader: whatever hostile bytes make it raise is a bad file.
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as exc:
        raise DataError(f"{path} is no .npy file of a number: {exc}") from exc
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise DataError(f"{path}: one number was wanted, {array.dtype} {array.shape} came")
    # As the official loader hands it out.
    vote = float(np.float32(array.reshape(-1)[0]))
    if not 0.0 <= vote <= 1.0:
        raise DataError(f"{path}: a share from 0 to 1 was wanted, {vote} came")
    return vote
