"""What every collection gives: items, one in memory at a time, and what may be an id.

What is wrong with one file is told with that file (`SourceItem.problem`) and stops nothing; what is
wrong with the collection itself, such as a duplicate id in a list, is a SourceError before
anything is built.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

MAX_ID_BYTES = 4096


@dataclass(frozen=True)
class Problem:
    """Why one file cannot become an item: a stable code and a sentence."""

    code: str
    reason: str


@dataclass(frozen=True)
class SourceItem:
    """One file of a collection.

    Attributes:
        id: what the item will be called.
        path: where it is in the collection, for messages.
        data: the file's bytes; empty when there is a problem.
        metadata: what a list says beside id and path.
        problem: why it cannot be used; None if it can.
    """

    id: str
    path: str
    data: bytes = b""
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: Problem | None = None


@runtime_checkable
class Source(Protocol):
    """A collection that can be read once, in its own order."""

    @property
    def size(self) -> int | None:
        """Number of files, if it is known before reading."""
        ...

    def items(self) -> Iterator[SourceItem]:
        """The files, each read when it is its turn; a SourceError if the collection breaks off."""
        ...


@dataclass(frozen=True)
class PrefixedSource:
    """A collection whose ids all begin alike, so that they are not those of another one."""

    source: Source
    prefix: str

    @property
    def size(self) -> int | None:
        """As the collection's own."""
        return self.source.size

    def items(self) -> Iterator[SourceItem]:
        """The collection's, renamed."""
        for item in self.source.items():
            renamed = self.prefix + item.id
            yield replace(item, id=renamed, problem=item.problem or id_problem(renamed))


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a file or a folder above it is hidden, or is macOS's litter in an archive."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts)


def id_problem(item_id: str) -> Problem | None:
    """Why a string cannot be an id, or None.

    Control characters are refused because an id ends up in lists, logs and fixed-width arrays,
    where a NUL at its end would be lost.
    """
    try:
        length = len(item_id.encode("utf-8"))
    except UnicodeEncodeError:
        return Problem("unsafe_name", f"the name is not valid Unicode: {item_id[:200]!r}")
    if not 0 < length <= MAX_ID_BYTES:
        return Problem("unsafe_name", f"an id has 1 to {MAX_ID_BYTES} bytes, this has {length}")
    if any(ord(c) < 32 or ord(c) == 127 for c in item_id):
        return Problem("unsafe_name", f"the name holds control characters: {item_id[:200]!r}")
    return None


def printable(path: str) -> str:
    """A path as text that every file and terminal takes."""
    return path.encode("utf-8", errors="backslashreplace").decode("utf-8")


def read_file(path: Path, max_bytes: int) -> bytes | Problem:
    """The bytes of one regular file, or why not; never more than max_bytes are read.

    Opened without blocking, so that a pipe put in a file's place cannot hang a build.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return Problem("special_file", "not a regular file")
            if status.st_size > max_bytes:
                return Problem(
                    "image_bytes", f"at most {max_bytes} bytes are accepted, {status.st_size} came"
                )
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Problem("missing", "there is no such file")
    except OSError as exc:
        return Problem("unreadable", f"cannot be read: {exc.strerror}")
    if len(data) > max_bytes:
        return Problem("image_bytes", f"at most {max_bytes} bytes are accepted, more came")
    return data


def path_inside(root: Path, relative: str) -> Path | Problem:
    """The file below root that is meant, or why not; a link is followed only inside root."""
    try:
        real = (root / relative).resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return Problem("missing", "there is no such file")
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return Problem("link", "a link that leads nowhere")
    if not real.is_relative_to(root):
        return Problem("link", "a link that leads outside the collection")
    return real


def read_inside(root: Path, relative: str, max_bytes: int) -> bytes | Problem:
    """The bytes of a file below root, or why not; a link is followed only inside root."""
    real = path_inside(root, relative)
    return real if isinstance(real, Problem) else read_file(real, max_bytes)


def item_from(
    item_id: str, path: str, content: bytes | Problem, metadata: dict[str, Any] | None = None
) -> SourceItem:
    """An item of these bytes, or of this problem."""
    if isinstance(content, Problem):
        return SourceItem(item_id, path, metadata=metadata or {}, problem=content)
    return SourceItem(item_id, path, content, metadata or {})
