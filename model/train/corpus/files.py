"""Image files of a source: plain ones, members of zip archives, and those inside Qt resources.

A path in a source is POSIX-like and relative to its root; a member of an archive lies under it as
in a folder. Nothing is unpacked: members are read where they are.
"""

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from model.errors import CorpusError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif"})
_ZIP_SUFFIXES = frozenset({".zip", ".pk3"})
_CARVED_SUFFIXES = frozenset({".rcc"})
_MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP", re.DOTALL)
# Start-of-frame markers of the kinds of JPEG.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


class FileEntry(NamedTuple):
    """An image file by its path in its source: a file on disk, or a part of that file."""

    path: str
    file: Path
    member: str | None = None  # name inside a zip archive
    start: int = 0  # offset inside a resource file, in bytes
    length: int | None = None  # in bytes from there; None for a whole file

    def read(self, most: int) -> bytes:
        """The file's bytes, at most one more than `most`, so that a longer one shows."""
        try:
            if self.member is not None:
                with _zip(self.file).open(self.member) as member:
                    return member.read(most + 1)
            with self.file.open("rb") as file:
                file.seek(self.start)
                return file.read(most + 1 if self.length is None else min(self.length, most + 1))
        except _DAMAGE as exc:
            raise CorpusError(f"{self.path} cannot be read: {exc}") from exc


def list_files(root: Path, include: tuple[str, ...], exclude: tuple[str, ...]) -> list[FileEntry]:
    """Image files under a root that a pattern includes and none excludes, by path.

    Links are passed over: what they point to is there anyway, or is not the source's.
    """
    if not root.is_dir():
        raise CorpusError(f"there is no folder {root}")
    wanted, unwanted = _pattern(include), _pattern(exclude)
    chosen = (
        entry
        for folder, _, names in os.walk(root)
        for file in (Path(folder, name) for name in names)
        if file.is_file() and not file.is_symlink()
        for entry in _entries(file, file.relative_to(root).as_posix())
        if wanted.fullmatch(entry.path) and not unwanted.fullmatch(entry.path)
    )
    return sorted(chosen, key=lambda entry: entry.path)


def _entries(file: Path, path: str) -> Iterator[FileEntry]:
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        yield FileEntry(path, file)
    elif suffix in _ZIP_SUFFIXES:
        yield from _zip_entries(file, path)
    elif suffix in _CARVED_SUFFIXES:
        yield from _carved_entries(file, path)


def _zip_entries(file: Path, path: str) -> Iterator[FileEntry]:
    try:
        names = _zip(file).namelist()
    except _DAMAGE as exc:
        raise CorpusError(f"{file} is no zip archive that can be read: {exc}") from exc
    for name in names:
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            yield FileEntry(f"{path}/{name}", file, member=name)


def _carved_entries(file: Path, path: str) -> Iterator[FileEntry]:
    """Pictures found by the first bytes of their formats, in the order they lie in."""
    data = file.read_bytes()
    position = count = 0
    while (match := _MAGIC.search(data, position)) is not None:
        start = match.start()
        suffix, end = _carved_end(data, start)
        if end is None:
            position = start + 3
            continue
        count += 1
        name = f"{PurePosixPath(path).stem}-{count:04}{suffix}"
        yield FileEntry(f"{path}/{name}", file, start=start, length=end - start)
        position = end


def _carved_end(data: bytes, start: int) -> tuple[str, int | None]:
    """What a picture's first bytes say it is, and where it stops."""
    if data[start] == 0x89:
        last = data.find(b"IEND", start)
        return ".png", None if last < 0 else last + 8
    if data[start] == 0xFF:
        return ".jpg", _jpeg_end(data, start)
    end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    return ".webp", end if end <= len(data) else None


def _jpeg_end(data: bytes, start: int) -> int | None:
    """Walk the segments to the coded data, so that a thumbnail's end is not taken for the end.

    Sound and translations hold a JPEG's first bytes by chance: without a frame it is none.
    """
    position, has_frame = start + 2, False
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return None
        has_frame |= marker in _FRAMES
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:
            last = data.find(b"\xff\xd9", position) if has_frame else -1
            return None if last < 0 else last + 2
    return None


@lru_cache(maxsize=8)
def _zip(file: Path) -> zipfile.ZipFile:
    """An archive kept open, since its table is read anew each time it is opened."""
    return zipfile.ZipFile(file)


def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all patterns, as `glob.translate` makes it from Python 3.13 on.

    `*` and `?` stay inside a folder's name, `**` does not, and `**/` matches no folder too.
    """
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expressions = (
        "".join(meanings.get(part) or re.escape(part) for part in re.split(r"(\*\*/?|[*?])", one))
        for one in patterns
    )
    return re.compile("|".join(expressions) or r"(?!)")
