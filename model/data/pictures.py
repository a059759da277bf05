"""Sets of pictures: a folder, the ImageNet layout, or a list of pictures beside them.

A set knows its ids and labels at once and reads a picture when it is asked for, by number, so that
a run may take them in any order. What each layout looks like is in docs/data.md.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from model.errors import DataError, ImageError
from model.pixels.decode import PILLOW_FORMATS, DecodeLimits, decode_image

USUAL_SPLITS = ("test", "val")
"""Parts of a data set to measure on, the better one first."""

# Files that say by their name that they hold a picture; what they hold, the decoder sees.
PICTURE_SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "png", "webp", "avif", "gif", "bmp", "tif", "tiff"}
)
LIST = "index.jsonl"
# The service's policy, and the formats an operator may allow there that need no library.
PICTURE_LIMITS = DecodeLimits(max_image_bytes=64 * 1024 * 1024, formats=PILLOW_FORMATS)
# One split, two names: ImageNet says the short one.
_SPLIT_ALIASES = {"validation": "val", "val": "validation"}
# What splits are called, in the order in which they are named to people.
_SPLITS = ("train", "val", "validation", "test")
_SHOWN_PROBLEMS = 10
_CHUNK = 1024


@dataclass(frozen=True)
class Picture:
    """One encoded picture of a set.

    Attributes:
        id: unique in its set; a relative POSIX path, or what a list calls it.
        label: its class, or None.
        data: the file, whole.
        fields: what a list says of it beside id, path and label; empty without a list.
        where: the file it came from, for messages.
    """

    id: str
    label: str | None
    data: bytes
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    where: str = ""

    def pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture upright and in RGB, by the decode policy of the service, read-only.

        Raises:
            DataError: it cannot be decoded; the message names the file.
        """
        return decode(self.data, self.where or self.id)


@runtime_checkable
class PictureSet(Protocol):
    """Pictures by ascending id, read one by one; safe in threads and after a fork.

    Reading one raises DataError where it cannot be read, IndexError where there are not so many.

    Attributes:
        name: what the set is called in messages and reports.
        ids: of each picture, ascending.
        labels: its class, in the order of ids.
    """

    @property
    def name(self) -> str: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Sequence[str | None]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Picture: ...


class FolderPictures:
    """Every picture file below a folder; its label is the folder it lies in, None at the top.

    A folder that holds `index.jsonl` has the pictures of that list and no others: an object a line
    with `path` from there, `id` (the path if not given), `label` and any other fields.

    Hidden files and folders, and files that do not say that they hold pictures, are passed over.
    Links are followed; a folder that several links lead to is read once.

    Raises:
        DataError: the folder cannot be listed, holds no picture, or a name cannot be an id; or a
            list cannot be read, or two pictures have one id.
    """

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._unread = sorted(_unread(root), key=lambda picture: picture.id)
        self.ids = [picture.id for picture in self._unread]
        self.labels = [picture.label for picture in self._unread]
        if not self.ids:
            raise DataError(
                f"no pictures in {root}; files end in {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        if twice := next((one for one, other in pairwise(self.ids) if one == other), None):
            raise DataError(f"two pictures in {root} have the id {twice!r}")

    def __len__(self) -> int:
        return len(self._unread)

    def __getitem__(self, index: int) -> Picture:
        picture = self._unread[index]
        return replace(picture, data=read_file(Path(picture.where)))


def evenly(count: int, most: int | None) -> list[int]:
    """At most so many of the numbers below count, evenly spread; None or 0 means all."""
    if not most or most >= count:
        return list(range(count))
    return [index * count // most for index in range(most)]


def open_pictures(path: Path, *, split: str | None = None) -> PictureSet:
    """Open a set of pictures: ROOT/SPLIT if a split is named, else the folder.

    `val` and `validation` stand for each other where only one is there.

    Raises:
        DataError: there is nothing of that kind, or it is damaged.
    """
    if not path.is_dir():
        raise DataError(f"a folder of pictures was wanted, nothing is at {path}")
    if split is None:
        return FolderPictures(path)
    part = _part(path, split)
    if part is None:
        raise DataError(f"no folder {split} in {path}")
    return FolderPictures(part)


def has_split(path: Path, split: str) -> bool:
    """Whether a folder has a part of that name."""
    return _part(path, split) is not None


def usual_split(path: Path) -> str | None:
    """The part of a data set that is there to be measured on; None where it has no parts.

    Raises:
        DataError: it has a training part alone: what a metric was trained on says little of it, so
            that has to be asked for.
    """
    usual = next((split for split in USUAL_SPLITS if has_split(path, split)), None)
    # A folder called train may be a label: pictures of trains.
    if usual is None and is_listed_part(path, "train"):
        raise DataError(
            f"{path} has a training part, but none of {', '.join(USUAL_SPLITS)}; "
            "to measure what was trained on, say --split train"
        )
    return usual


def splits_of(path: Path) -> list[str]:
    """The splits that a set of pictures has by their usual names; none where it is all one.

    A training part alone is all one: whoever takes everything takes that. So is a folder with one
    folder of such a name and no list in it, which may be a label: pictures of trains.
    """
    found = [split for split in _SPLITS if (path / split).is_dir()]
    if len(found) == 1 and (found[0] == _SPLITS[0] or not is_listed_part(path, found[0])):
        return []
    return found


def is_listed_part(path: Path, split: str) -> bool:
    """Whether a folder has a part of that name with a list in it, which no label has."""
    return (path / split / LIST).is_file()


def check_pictures(
    pictures: PictureSet, *, workers: int = 1, advance: Callable[[int], None] | None = None
) -> None:
    """Decode every picture of a set, so that a long run does not meet a bad one later.

    `advance` is told now and then how many more are done.

    Raises:
        DataError: some cannot be decoded; the first of them are named, in the order of ids.
    """
    problems: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(pictures), _CHUNK):
            numbers = range(start, min(start + _CHUNK, len(pictures)))
            answers = pool.map(partial(_problem_of, pictures), numbers)
            problems += [problem for problem in answers if problem is not None]
            if advance is not None:
                advance(len(numbers))
    if problems:
        said = [f"{len(problems)} of {len(pictures)} pictures of {pictures.name} are bad:"]
        said += problems[:_SHOWN_PROBLEMS]
        if (more := len(problems) - _SHOWN_PROBLEMS) > 0:
            said.append(f"and {more} more")
        raise DataError("\n  ".join(said))


def read_file(path: Path) -> bytes:
    """A file of a data set, whole.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror}") from exc


def decode(data: bytes, where: str) -> UInt8[np.ndarray, "H W 3"]:
    """Pixels of a file of a data set, upright and in RGB.

    Raises:
        DataError: it cannot be decoded; the message names `where`.
    """
    try:
        return decode_image(data, PICTURE_LIMITS).pixels
    except ImageError as exc:
        raise DataError(f"{where}: {exc}") from exc


def _problem_of(pictures: PictureSet, index: int) -> str | None:
    try:
        pictures[index].pixels()
    except DataError as error:
        return str(error)
    return None


def _part(path: Path, split: str) -> Path | None:
    names = (split, _SPLIT_ALIASES.get(split, split))
    return next((path / name for name in names if (path / name).is_dir()), None)


def _unread(root: Path) -> Iterator[Picture]:
    """The pictures below a folder, in no order and without their data."""

    def refuse(error: OSError) -> None:
        raise DataError(f"folder {error.filename} cannot be listed: {error.strerror}")

    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            # A second link to a folder, perhaps one that leads back to itself.
            subfolders.clear()
            continue
        seen.add(real)
        if LIST in files:
            subfolders.clear()
            yield from _listed(Path(folder))
            continue
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in filter(_says_picture, files):
            path = Path(folder, name)
            one = path.relative_to(root).as_posix()
            if not one.isprintable():
                raise DataError(f"{one!a} in {root} is no id: it cannot be printed")
            yield Picture(one, one.rpartition("/")[0] or None, b"", {}, str(path))


def _listed(folder: Path) -> Iterator[Picture]:
    """The pictures of the list that lies in a folder, without their data."""
    file = folder / LIST
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as exc:
        raise DataError(f"{file} cannot be read: {exc}") from exc
    for number, line in enumerate(lines, start=1):
        try:
            value: object = json.loads(line)
        except ValueError as exc:
            raise DataError(f"{file}, line {number}: no JSON: {exc}") from exc
        fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        path, label = fields.pop("path", None), fields.pop("label", None)
        one = fields.pop("id", path)
        if not isinstance(path, str) or not isinstance(one, str):
            raise DataError(f"{file}, line {number}: an object with a path was wanted, got {line}")
        label = None if label is None else str(label)
        yield Picture(one, label, b"", fields, str(folder / path))


def _says_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix[1:].lower() in PICTURE_SUFFIXES
