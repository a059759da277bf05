"""Which split a picture is in: a function of its name alone, so that it is the same everywhere."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from model.train.corpus.recipe import SPLITS, Source

# What tells sizes and copies of one drawing apart: 640x480, @2x, -256, _01.
_TAIL = re.compile(r"(?:[-_. ]*(?:\d+x\d+|@\d+x|\d+)|[-_. ]+)\Z")


def group_of(source: Source, path: str) -> str:
    """The name that pictures of one split share, by the source's rule.

    For `stem` it is the file's name in lower case without what numbers it at its end; a name that
    is only a number stands for its folder.
    """
    pure = PurePosixPath(path)
    if source.group == "file":
        return path
    if source.group.startswith("folder:"):
        depth = int(source.group.partition(":")[2])
        return "/".join(pure.parts[:-1][:depth])
    return _bare(pure) or pure.parent.as_posix()


def usual_group(paths: Sequence[str]) -> str:
    """The rule for a folder of which nothing is known but its files: `stem`, or `file`.

    A camera numbers everything it takes (IMG_0001.png ...): by `stem` all of that were one group,
    and so in one split. Where more than a quarter of the pictures would share a name, or have
    none, a name says nothing of what belongs together.
    """
    (_, most), *_ = Counter(_bare(PurePosixPath(path)) for path in paths).most_common(1)
    return "file" if most > max(1, len(paths) / 4) else "stem"


def split_of(source: Source, path: str) -> str:
    """`train`, `validation` or `test`: where the hash of source and group falls."""
    place = uniform(f"split:{source.name}:{group_of(source, path)}")
    bound = 0.0
    for split in SPLITS:
        bound += source.share(split)
        if place < bound:
            return split
    return next(split for split in reversed(SPLITS) if source.share(split) > 0)


def label_of(source: Source, path: str) -> str | None:
    """The folder under the source's root, or None where there is none or no labels are kept."""
    folder = PurePosixPath(path).parent.as_posix()
    return folder if source.label == "folder" and folder != "." else None


def _bare(path: PurePosixPath) -> str:
    """A file's name in lower case without what numbers it at its end; empty for a number."""
    stem = path.stem.lower()
    while (shorter := _TAIL.sub("", stem)) != stem:
        stem = shorter
    return stem


def uniform(text: str) -> float:
    """A number in [0, 1) from the sha256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
