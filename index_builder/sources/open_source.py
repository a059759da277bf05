"""The one door to all collections: what a path leads to, told by its content, or a SourceError."""

from collections.abc import Sequence
from pathlib import Path

from index_builder.errors import SourceError
from index_builder.sources.archives import open_archive
from index_builder.sources.base import Source
from index_builder.sources.folder import FilesSource, FolderSource
from index_builder.sources.lists import SUFFIXES, ListSource
from model.pixels.containers.sniff import content_format

_HEAD_BYTES = 1024
_COLLECTIONS = {"ZIP", "gzip", "bzip2", "xz", "tar", "plain text"}


def open_source(path: Path, *, max_bytes: int) -> Source:
    """Open a folder, a .csv or .jsonl list, a tar or zip archive, or a picture.

    No file of more than `max_bytes` is read.
    """
    if path.is_dir():
        return FolderSource(path, max_bytes=max_bytes)
    if not path.exists():
        raise SourceError(f"no folder, archive, list or picture at {path.absolute()}")
    if not path.is_file():
        raise SourceError(f"{path.name} is neither a folder nor a regular file")
    if path.suffix.lower() in SUFFIXES:
        return ListSource(path, max_bytes=max_bytes)
    # A file may be both: pictures come last, as whatever can be unpacked is meant as a collection.
    archive = open_archive(path, max_bytes=max_bytes)
    if archive is not None:
        return archive
    if is_picture(path):
        return FilesSource([path], max_bytes=max_bytes)
    raise SourceError(
        f"{path.name} is none of what can be indexed: a folder, a picture, a whole tar or zip "
        "archive, a list named .csv or .jsonl"
    )


def open_sources(paths: Sequence[Path], *, max_bytes: int) -> Source:
    """Open one collection, or several pictures as one."""
    if len(paths) == 1:
        return open_source(paths[0], max_bytes=max_bytes)
    for path in paths:
        if not path.is_file() or not is_picture(path):
            raise SourceError(
                f"{path} is no picture, and of several paths each must be one: `add` takes "
                "folders, archives and lists one at a time (`build` makes the index that one alone)"
            )
    return FilesSource(paths, max_bytes=max_bytes)


def name_of(paths: Sequence[Path]) -> str:
    """What a manifest calls the collection."""
    more = len(paths) - 1
    return f"{paths[0]} and {more} more" if more else str(paths[0])


def is_picture(path: Path) -> bool:
    """Whether a file may be one: of any format known by its first bytes, but archives and lists.

    Of formats that are not accepted decoding says so, and says it better.
    """
    with path.open("rb") as file:
        name = content_format(file.read(_HEAD_BYTES))
    return name is not None and name not in _COLLECTIONS
