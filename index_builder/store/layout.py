"""Where an index lives on disk, and the only ways its directories change.

DATA_DIR/indexes/NAME/
    CURRENT                 one line: the served version and the seal of its manifest
    lock                    held by the one writer
    journal.sqlite          embeddings an interrupted build need not compute again
    versions/v000001/...    sealed, never changed
    versions/.tmp-*         a version being written; garbage once its writer is gone
    versions/.trash-*       a version being deleted

Every change is "write aside, fsync, rename, fsync the directory", so that a crash at any moment
leaves either the old state or the new one. What is not there, or could not be by its name, is an
IndexNotFoundError; what is damaged, a link, or unreadable an IndexFormatError.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Generator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from index_builder.errors import IndexFormatError, IndexNotFoundError

_INDEX_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VERSION_NAME = re.compile(r"v[0-9]{6,12}")
_CURRENT_LINE = re.compile(r"(v[0-9]{6,12}) ([0-9a-f]{64})\n")
_MAX_CURRENT_BYTES = 256


@dataclass(frozen=True)
class Current:
    """What CURRENT says: the served version and the seal of its manifest."""

    version: str
    seal: str


@dataclass(frozen=True)
class IndexPaths:
    """The paths of one index; none of them is made from anything but a validated name."""

    root: Path

    @property
    def current(self) -> Path:
        return self.root / "CURRENT"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite"

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    def version(self, name: str) -> Path:
        """The directory of one version."""
        if not _VERSION_NAME.fullmatch(name):
            raise IndexNotFoundError(f"a version is named like v000001, got {name!r}")
        return self.versions / name


def existing_version(paths: IndexPaths, version: str) -> Path:
    """The directory of a version that is there."""
    directory = paths.version(version)
    refuse_links(paths.versions, directory)
    if not directory.is_dir():
        known = ", ".join(list_versions(paths)) or "none"
        raise IndexNotFoundError(
            f"index {paths.root.name!r} has no version {version}; it has: {known}"
        )
    return directory


def index_paths(data_dir: Path, name: str) -> IndexPaths:
    """The paths of the index of that name, whether it exists or not."""
    if not _INDEX_NAME.fullmatch(name):
        raise IndexNotFoundError(
            "an index name is 1 to 64 letters, digits, '_', '.' or '-', and starts with a letter "
            f"or digit; got {name[:80]!r}"
        )
    return IndexPaths(data_dir / "indexes" / name)


def list_indexes(data_dir: Path) -> list[str]:
    """Names of the indexes that have a served version, as far as can be seen, sorted."""
    parent = data_dir / "indexes"
    if not parent.is_dir():
        return []
    return sorted(
        entry.name
        for entry in parent.iterdir()
        if _INDEX_NAME.fullmatch(entry.name) and _may_serve(entry)
    )


def _may_serve(index: Path) -> bool:
    try:
        return stat.S_ISREG((index / "CURRENT").stat().st_mode)
    except PermissionError:
        return True  # whoever opens it is told why, and the others go on
    except OSError:
        return False


def list_versions(paths: IndexPaths) -> list[str]:
    """Names of the complete versions, oldest first."""
    if not paths.versions.is_dir():
        return []
    names = [e.name for e in paths.versions.iterdir() if _VERSION_NAME.fullmatch(e.name)]
    return sorted(names, key=version_number)


def version_number(version: str) -> int:
    return int(version[1:])


def next_version(paths: IndexPaths) -> str:
    """The name after the newest version; the newest is never pruned, so no name comes twice."""
    existing = list_versions(paths)
    return f"v{(version_number(existing[-1]) if existing else 0) + 1:06d}"


def read_current(paths: IndexPaths) -> Current:
    """What CURRENT points at."""
    try:
        with open_regular(paths.current) as file:
            raw = file.read(_MAX_CURRENT_BYTES)
    except (FileNotFoundError, NotADirectoryError) as exc:
        data_dir = paths.root.parent.parent.absolute()
        there = ", ".join(list_indexes(data_dir)) or "none"
        raise IndexNotFoundError(
            f"no index {paths.root.name!r} in {data_dir} (there: {there}): make it with "
            f"`python -m index_builder build SOURCE --index {paths.root.name}`"
        ) from exc
    except OSError as exc:
        raise IndexFormatError(
            f"CURRENT of {paths.root.name!r} cannot be read: {exc.strerror}"
        ) from exc
    match = _CURRENT_LINE.fullmatch(raw.decode("ascii", errors="replace"))
    if match is None:
        raise IndexFormatError(
            f"CURRENT of index {paths.root.name!r} is damaged: wanted 'v000001 <seal>', got "
            f"{len(raw)} other bytes; choose a version with `python -m index_builder rollback --to "
            "VERSION`"
        )
    return Current(match[1], match[2])


def open_regular(path: Path) -> BufferedReader:
    """Open a file of an index for reading; what is no regular file is refused, never waited for."""

    def opener(name: str, flags: int) -> int:
        # A pipe in a file's place would keep a blocking open waiting for its writer, for ever.
        return os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW)

    try:
        file = open(path, "rb", opener=opener)  # noqa: SIM115 (a Path knows no opener)
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path)) from exc
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


@contextlib.contextmanager
def reading(path: Path) -> Generator[BufferedReader]:
    """Open a file of a version; one that cannot be read is an IndexFormatError that names it."""
    try:
        with open_regular(path) as file:
            yield file
    except OSError as exc:
        where = f"{path.parent.name}/{path.name}"
        raise IndexFormatError(f"{where} cannot be read: {exc.strerror}") from exc


def refuse_links(*folders: Path) -> None:
    """Refuse a folder of an index that is a link: whoever made the index may mean one elsewhere.

    The index's own folder, and what is above it, are the operator's: those may be links.
    """
    for folder in folders:
        if folder.is_symlink():
            raise IndexFormatError(
                f"{folder} is a link, which is not followed; link the whole index folder instead"
            )


def write_current(paths: IndexPaths, current: Current) -> None:
    """Point CURRENT at a version in one atomic step."""
    replace_durably(paths.current, f"{current.version} {current.seal}\n".encode("ascii"))


def replace_durably(path: Path, data: bytes) -> None:
    """Put these bytes at the path so that a crash leaves the old file or the new one."""
    aside = path.with_name(f".tmp-{path.name}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Force a file's bytes, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete_version(paths: IndexPaths, version: str) -> None:
    """Remove a version: out of sight in one step, then its bytes.

    A reader that has it open keeps reading: the system frees the files when the reader closes.
    """
    trash = paths.versions / f".trash-{version}"
    shutil.rmtree(trash, ignore_errors=True)
    paths.version(version).rename(trash)
    fsync(paths.versions)
    shutil.rmtree(trash)


def clean_garbage(paths: IndexPaths) -> None:
    """Delete what a killed writer left; only the holder of the lock may call this."""
    for entry in paths.versions.glob(".*"):
        shutil.rmtree(entry, ignore_errors=True)
    for entry in paths.root.glob(".tmp-*"):
        entry.unlink(missing_ok=True)
