"""NIGHTS: triplets in a table `data.csv` beside folders of pictures.

Read as the official loaders do: id, vote and paths by position, `votes`, `split` and `is_imagenet`
by name, only rows with six votes or more, in the order of the file. Where those loaders would take
a wrong table and train on it, this one refuses.
"""

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.data.files import name_problem, read_bytes
from model.data.triplet import Triplet
from model.errors import DataError

NIGHTS_SPLITS = ("train", "val", "test", "test_imagenet", "test_no_imagenet")
TABLE = "data.csv"
FEWEST_VOTES = 6

# The official loaders go by these positions, and never look at the names there.
_BY_POSITION = {0: "id", 2: "right_vote", 4: "ref_path", 5: "left_path", 6: "right_path"}
_BY_NAME = ("votes", "split", "is_imagenet")
_ROW_SPLITS = ("train", "val", "test")
_MAX_TABLE_BYTES = 1 << 30
_WHOLE = re.compile(r"[0-9]{1,9}(\.0+)?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]*)?(e[+-]?[0-9]{1,3})?|\.[0-9]+", re.ASCII | re.IGNORECASE)
# The words that pandas takes for a column of booleans.
_TRUE = frozenset({"True", "TRUE", "true"})
_FALSE = frozenset({"False", "FALSE", "false"})
# What the synthetic set writes as a prompt. The prompt of a real triplet is a group of its own.
_GROUP = re.compile(r"(severity|nested):[a-z+]+")


def read_nights(root: Path, split: str) -> list[Triplet]:
    """The triplets of one split, in the order of the table.

    Args:
        root: the folder that holds data.csv, ref/ and distort/.
        split: one of NIGHTS_SPLITS; `test` is both of its halves.

    Raises:
        DataError: the table is missing, lacks a column, or has a row without votes, with the id of
            an earlier one or with a value that is none of its column's; a picture of the split is
            missing or outside root; or the split is unknown or empty. The message says file, row
            and column.
    """
    if split not in NIGHTS_SPLITS:
        raise DataError(f"NIGHTS has the splits {', '.join(NIGHTS_SPLITS)}; {split!r} came")
    inside = root.resolve()
    triplets = [
        _triplet(root, inside, row)
        for row in _judged_rows(root / TABLE)
        if _belongs(row.split, row.is_imagenet, split)
    ]
    if not triplets:
        raise DataError(f"{root / TABLE} has no row of {split} with {FEWEST_VOTES} votes or more")
    return triplets


@dataclass(frozen=True)
class _Row:
    """One line of the table, its values checked, its paths not yet."""

    table: Path
    line: int
    id: str
    vote: float
    votes: int
    paths: tuple[str, str, str]
    split: str
    is_imagenet: bool
    prompt: str


def _belongs(row_split: str, is_imagenet: bool, split: str) -> bool:
    if split == "test_imagenet":
        return row_split == "test" and is_imagenet
    if split == "test_no_imagenet":
        return row_split == "test" and not is_imagenet
    return row_split == split


def _judged_rows(table: Path) -> Iterator[_Row]:
    """The rows with votes enough; of the others only the votes are looked at."""
    try:
        text = read_bytes(table, _MAX_TABLE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{table} is not UTF-8: {exc}") from exc
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: dict[str, int] = {}  # of each id
    try:
        header = next(reader, list[str]())
        columns = _columns(table, header)
        for values in reader:
            where = f"{table}, line {reader.line_num}"
            if not values:  # an empty line
                continue
            if len(values) != len(header):
                raise DataError(f"{where}: {len(header)} columns were wanted, {len(values)} came")
            votes = _votes(values[columns["votes"]], where)
            if votes >= FEWEST_VOTES:
                row = _row(table, reader.line_num, values, columns, votes)
                if (first := lines.setdefault(row.id, row.line)) != row.line:
                    raise DataError(f"{where}: the id {row.id!r:.80} is on line {first} already")
                yield row
    except csv.Error as exc:
        raise DataError(f"{table}, line {reader.line_num}: no CSV: {exc}") from exc


def _columns(table: Path, header: list[str]) -> dict[str, int]:
    """Where each column is that is read by its name."""
    for position, wanted in _BY_POSITION.items():
        came = header[position] if position < len(header) else None
        if came != wanted:
            what = "none" if came is None else repr(came)
            raise DataError(f"{table}: column {wanted!r} was wanted at {position}, {what} came")
    for wanted in _BY_NAME:
        if header.count(wanted) != 1:
            raise DataError(
                f"{table}: one column {wanted!r} was wanted, {header.count(wanted)} came "
                f"among {', '.join(header)}"
            )
    return {name: header.index(name) for name in (*_BY_NAME, "prompt") if name in header}


def _row(table: Path, line: int, values: list[str], columns: dict[str, int], votes: int) -> _Row:
    where = f"{table}, line {line}"
    split = values[columns["split"]]
    if split not in _ROW_SPLITS:
        raise DataError(f"{where}: split is one of {', '.join(_ROW_SPLITS)}; {split!r:.80} came")
    text = values[columns["is_imagenet"]]
    if text not in _TRUE | _FALSE:
        raise DataError(f"{where}: is_imagenet is True or False; {text!r:.80} came")
    return _Row(
        table,
        line,
        id=values[0],
        vote=_vote(values[2], where),
        votes=votes,
        paths=(values[4], values[5], values[6]),
        split=split,
        is_imagenet=text in _TRUE,
        prompt=values[columns["prompt"]] if "prompt" in columns else "",
    )


def _votes(text: str, where: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise DataError(f"{where}: votes is a whole number; {text!r:.80} came")
    votes = int(text.partition(".")[0])
    if votes == 0:
        raise DataError(f"{where}: a triplet that nobody judged: votes is 0")
    return votes


def _vote(text: str, where: str) -> float:
    """The share for right, in the precision that the official loaders hand out."""
    number = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0.0 <= number <= 1.0:
        raise DataError(f"{where}: right_vote is a number from 0 to 1; {text!r:.80} came")
    return float(np.float32(number))


def _triplet(root: Path, inside: Path, row: _Row) -> Triplet:
    where = f"{row.table}, line {row.line}"
    reference, left, right = (
        _picture(root, inside, path, f"{where}, {name}")
        for path, name in zip(row.paths, ("ref_path", "left_path", "right_path"), strict=True)
    )
    group = row.prompt if _GROUP.fullmatch(row.prompt) else None
    return Triplet(
        row.id, reference, left, right, row.vote, row.votes, row.split, row.is_imagenet, group
    )


def _picture(root: Path, inside: Path, relative: str, where: str) -> Path:
    if (problem := name_problem(relative)) is not None:
        raise DataError(f"{where}: a path below the folder was wanted, {relative!r:.80}: {problem}")
    path = root / relative
    if not os.path.isfile(path):  # which answers False to a name too long, too
        raise DataError(f"{where}: there is no file {path}")
    if not path.resolve().is_relative_to(inside):
        raise DataError(f"{where}: {path} is a link that leads outside the folder")
    return path
