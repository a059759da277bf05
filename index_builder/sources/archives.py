"""Archives: tar (plain, gzip, bzip2, xz) and zip, read member by member, never unpacked to disk.

An archive is somebody else's data. Names that lead elsewhere, links, devices, encrypted members and
members larger than an image may be are quarantined by name. What a decompressor may give in all is
bounded by the archive's own size, since pictures hardly compress: a bomb ends there.
"""

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from index_builder.errors import SourceError
from index_builder.sources.base import (
    Problem,
    SourceItem,
    id_problem,
    is_hidden,
    item_from,
    printable,
)

_MAX_RATIO = 200
_FREE_BYTES = 1 << 30
# tarfile reads an extended header in one piece, of whatever length the header states.
_MAX_READ_BYTES = 64 << 20
_DRIVE = re.compile(r"^[A-Za-z]:")
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)


class _BudgetError(Exception):
    """The archive gives more bytes than one of pictures can."""


class _Budget:
    """Counts bytes given by a decompressor against what the archive's size allows."""

    def __init__(self, archive_bytes: int) -> None:
        self._left = _MAX_RATIO * archive_bytes + _FREE_BYTES

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _BudgetError(f"unpacks to more than {_MAX_RATIO} times its size")


class _CappedReader:
    """A forward reader over a decompressor: bounded single reads, bounded total.

    tarfile steps one byte back before each header. Through a decompressor that could mean starting
    over, so the last byte is kept for it; any longer step back is refused.
    """

    def __init__(self, file: io.BufferedIOBase, budget: _Budget) -> None:
        self._file = file
        self._budget = budget
        self._position = 0
        self._pushed_back = b""
        self.last_read = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_READ_BYTES:
            raise _BudgetError(f"a header states a length of {size} bytes")
        if size == 0:
            return b""
        fresh = self._file.read(size - len(self._pushed_back))
        self._budget.spend(len(fresh))
        self.last_read = self._pushed_back + fresh
        self._pushed_back = b""
        self._position += len(self.last_read)
        return self.last_read

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Forward by reading, so that skipped bytes are counted too; back by one byte at most."""
        if whence == io.SEEK_SET and offset == self._position - 1 and self.last_read:
            self._pushed_back = self.last_read[-1:]
            self._position = offset
        elif whence != io.SEEK_SET or offset < self._position:
            raise _BudgetError("its headers point backwards")
        while self._position < offset and self.read(min(offset - self._position, 1 << 20)):
            pass
        return self._position


def open_archive(path: Path, *, max_bytes: int) -> "TarSource | ZipSource | None":
    """Open an archive by its content; None if it is neither tar nor zip that can be read."""
    # Tar first: a plain tar whose last member is a zip ends like a zip.
    if _is_tar(path):
        return TarSource(path, max_bytes=max_bytes)
    try:
        return ZipSource(path, max_bytes=max_bytes)
    except (*_DAMAGE, NotImplementedError, ValueError):
        return None


def _decompressed(path: Path) -> io.BufferedIOBase:
    """The archive's bytes with gzip, bzip2 or xz taken off, known by their first bytes."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if magic.startswith(b"BZh"):
        return bz2.open(path)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(path)
    return path.open("rb")


def _is_tar(path: Path) -> bool:
    try:
        with _decompressed(path) as file:
            block = file.read(512)
    except _DAMAGE:
        return False
    # An empty tar is two blocks of zeros; any other begins with a header whose checksum holds.
    if len(block) < 512 or not any(block):
        return len(block) == 512
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _member_id(name: str) -> str:
    """The name as a relative POSIX path without leading './' or doubled slashes."""
    return PurePosixPath(name).as_posix()


class _Names:
    """Judges members' names: safe, not hidden, and each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def judge(self, name: str) -> Problem | None:
        path = PurePosixPath(name)
        is_seen = path.as_posix() in self._seen
        self._seen.add(path.as_posix())
        if path.is_absolute() or ".." in path.parts or "\\" in name or _DRIVE.match(name):
            return Problem("unsafe_name", f"the name leads outside the archive: {name[:200]!r}")
        if is_seen and id_problem(name) is None:
            return Problem("duplicate_id", "the archive holds this name more than once")
        return id_problem(name)


def _too_large(size: int, max_bytes: int) -> Problem:
    return Problem("image_bytes", f"at most {max_bytes} bytes are accepted, {size} came")


class TarSource:
    """The regular files of a tar archive, in its order."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes

    @property
    def size(self) -> int | None:
        """Unknown before the end: a tar has no directory."""
        return None

    def items(self) -> Iterator[SourceItem]:
        names = _Names()
        count = 0
        try:
            with _decompressed(self._path) as file:
                reader = _CappedReader(file, _Budget(self._path.stat().st_size))
                with tarfile.open(fileobj=cast("BinaryIO", reader), mode="r:") as archive:
                    for member in archive:
                        # tarfile keeps every header it has seen; a large archive need not.
                        archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
                        count += 1
                        if not member.isdir() and not is_hidden(PurePosixPath(member.name)):
                            yield self._item(archive, member, names)
                # tarfile takes a damaged header, or a cut between members, for the end.
                if reader.last_read != bytes(512):
                    raise tarfile.ReadError("a header is damaged, or the end is missing")
        except (*_DAMAGE, _BudgetError, ValueError, RecursionError) as exc:
            raise SourceError(f"{self._path.name} breaks off after {count} members: {exc}") from exc

    def _item(self, archive: tarfile.TarFile, member: tarfile.TarInfo, names: _Names) -> SourceItem:
        label = printable(_member_id(member.name))
        problem = names.judge(member.name) or self._member_problem(member)
        if problem is not None:
            return SourceItem(label, label, problem=problem)
        file = archive.extractfile(member)
        data = file.read(member.size) if file is not None else b""
        if len(data) != member.size:
            raise tarfile.ReadError(f"{label} is cut off")
        return item_from(label, label, data)

    def _member_problem(self, member: tarfile.TarInfo) -> Problem | None:
        if member.issym() or member.islnk():
            return Problem("link", "a link inside an archive is not followed")
        if not member.isreg():
            return Problem("special_file", "not a regular file")
        if member.size > self._max_bytes:
            return _too_large(member.size, self._max_bytes)
        return None


class ZipSource:
    """The files of a zip archive, in the order of its directory."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        with zipfile.ZipFile(path) as archive:
            self._size = sum(not member.is_dir() for member in archive.infolist())

    @property
    def size(self) -> int | None:
        return self._size

    def items(self) -> Iterator[SourceItem]:
        names = _Names()
        budget = _Budget(self._path.stat().st_size)
        try:
            with zipfile.ZipFile(self._path) as archive:
                for member in archive.infolist():
                    if not member.is_dir() and not is_hidden(PurePosixPath(member.filename)):
                        yield self._item(archive, member, names, budget)
        except (*_DAMAGE, _BudgetError) as exc:
            raise SourceError(f"{self._path.name} cannot be read to its end: {exc}") from exc

    def _item(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, names: _Names, budget: _Budget
    ) -> SourceItem:
        # The name as stored: zipfile cuts at a NUL, which could make two names one.
        label = printable(_member_id(member.filename))
        problem = names.judge(member.orig_filename) or self._member_problem(member)
        if problem is not None:
            return SourceItem(label, label, problem=problem)
        return item_from(label, label, self._read(archive, member, budget))

    def _read(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: _Budget
    ) -> bytes | Problem:
        try:
            with archive.open(member) as file:
                data = file.read(self._max_bytes + 1)
        except (*_DAMAGE, NotImplementedError, RuntimeError, ValueError) as exc:
            return Problem("archive_member", f"the member is damaged: {exc}")
        budget.spend(len(data))
        return _too_large(len(data), self._max_bytes) if len(data) > self._max_bytes else data

    def _member_problem(self, member: zipfile.ZipInfo) -> Problem | None:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind == stat.S_IFLNK:
            return Problem("link", "a link inside an archive is not followed")
        if kind not in (0, stat.S_IFREG):
            return Problem("special_file", "not a regular file")
        if member.flag_bits & 0x1:
            return Problem("encrypted", "the member is encrypted")
        if member.file_size > self._max_bytes:
            return _too_large(member.file_size, self._max_bytes)
        return None
