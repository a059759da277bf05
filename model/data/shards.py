"""Webdataset shards, written plainly: tar files of samples KEY.webp + KEY.json.

The same samples in the same order make the same bytes, on any day and for any user.
"""

import contextlib
import io
import json
import re
import tarfile
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from model.data.files import name_problem
from model.data.pictures import PICTURE_SUFFIXES
from model.errors import DataError

DEFAULT_SHARD_BYTES = 64 * 1024 * 1024
TAR_BLOCK = 512

# Webdataset's own rule: a sample's key ends at the first dot of the file's name.
_KEY_AND_FIELD = re.compile(r"((?:.*/)?[^./][^.]*)\.([^/]*)", re.DOTALL)
# Webdataset's own rule: notes about the shard.
_NOTES = re.compile(r"__[^/]*__($|/)")


class ShardWriter:
    """Writes samples into SPLIT-000000.tar, SPLIT-000001.tar ...; the same samples, the same bytes.

    The shards appear under their names when the writer is closed, all at once; if it is left by an
    exception, none does. Members are in the order of adding, the picture before its JSON.

    Args:
        directory: where; made if it is not there.
        split: the first part of the shards' names.
        max_bytes: a shard is closed before it grows beyond this; one sample may be larger.

    Raises:
        DataError: the directory holds shards of that split already, or the split is no plain name.
    """

    def __init__(self, directory: Path, split: str, max_bytes: int = DEFAULT_SHARD_BYTES) -> None:
        if re.fullmatch(r"[A-Za-z0-9]+", split) is None:
            raise DataError(f"a split's name of letters and digits was wanted, got {split!r}")
        directory.mkdir(parents=True, exist_ok=True)
        if found := sorted(directory.glob(f"{split}-*.tar")):
            raise DataError(f"{directory} holds {found[0].name} already; remove it first")
        self._directory = directory
        self._split = split
        self._max_bytes = max_bytes
        self._keys: set[str] = set()
        self._parts: list[Path] = []
        self._archive: tarfile.TarFile | None = None
        self._shard_bytes = 0
        self._is_closed = False
        for left_over in directory.glob(f".{split}-*.tar.part"):
            left_over.unlink()
        self.paths: list[Path] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, or leave nothing behind if there was an error."""
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError):  # the disk may be full
            self._close_shard()
        for part in self._parts:
            part.unlink(missing_ok=True)

    def add(
        self, key: str, image_bytes: bytes, ext: str, json_fields: dict[str, Any] | None = None
    ) -> None:
        """Add one sample.

        Args:
            key: unique among the split; its last part has no dot.
            image_bytes: the encoded picture, as it is.
            ext: the picture's suffix without a dot, as "webp".
            json_fields: what KEY.json says; no such member if None.

        Raises:
            DataError: the key, suffix, picture or members cannot be read back, the key came before,
                or the writer is closed.
        """
        if self._is_closed:
            raise DataError(f"the shards of {self._split} are closed; {key!r} comes too late")
        if ext not in PICTURE_SUFFIXES:
            raise DataError(f"a suffix of {sorted(PICTURE_SUFFIXES)} was wanted, got {ext!r}")
        if not _can_be_read_back(key):
            raise DataError(f"a key that webdataset can read back was wanted, got {key!r}")
        if not image_bytes:
            raise DataError(f"a picture was wanted for {key!r}, 0 bytes came")
        if key in self._keys:
            raise DataError(f"key {key!r} was added before")
        members = [(f"{key}.{ext}", image_bytes)]
        if json_fields is not None:
            members.append((f"{key}.json", _as_json(key, json_fields)))
        self._keys.add(key)
        size = sum(TAR_BLOCK + len(data) + -len(data) % TAR_BLOCK for _, data in members)
        archive = self._archive
        if archive is None or self._shard_bytes + size > self._max_bytes:
            archive = self._next_shard()
        self._shard_bytes += size
        for name, data in members:
            # A TarInfo of our own: no time, no owner, so the bytes depend on the samples alone.
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    def close(self) -> list[Path]:
        """Give the shards their names.

        Returns:
            Their paths; none if nothing was added.
        """
        self._close_shard()
        self._is_closed = True
        for number, part in enumerate(self._parts):
            self.paths.append(part.rename(self._directory / f"{self._split}-{number:06}.tar"))
        self._parts = []
        return self.paths

    def _next_shard(self) -> tarfile.TarFile:
        self._close_shard()
        part = self._directory / f".{self._split}-{len(self._parts):06}.tar.part"
        self._parts.append(part)
        self._archive = tarfile.open(part, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._shard_bytes = 0
        return self._archive

    def _close_shard(self) -> None:
        if self._archive is not None:
            self._archive.close()
            self._archive = None


def split_name(name: str) -> tuple[str, str] | None:
    """Key and field of a member by webdataset's rule, or None for one that is no sample's."""
    match = _KEY_AND_FIELD.fullmatch(name)
    if match is None or _NOTES.match(name) is not None:
        return None
    return match[1], match[2].lower()


def _as_json(key: str, fields: dict[str, Any]) -> bytes:
    try:
        # Readers refuse what no report could repeat, so it is not written either.
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"text in UTF-8 was wanted for {key}.json, got {fields!r:.200}") from error
    return json.dumps(fields, sort_keys=True, allow_nan=False).encode()


def _can_be_read_back(key: str) -> bool:
    return (
        name_problem(key) is None
        and PurePosixPath(key).as_posix() == key
        and split_name(f"{key}.png") == (key, "png")
    )
