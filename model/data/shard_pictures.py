"""Webdataset shards, read by number: walked once for the place of each sample.

A shard is never unpacked and a picture is read from its place, so names in it lead nowhere; links
are refused.
"""

import itertools
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from model.data.files import file_stamp, name_problem, open_file, read_slice
from model.data.pictures import PICTURE_LIMITS, PICTURE_SUFFIXES, Picture
from model.data.shards import TAR_BLOCK, split_name
from model.errors import DataError

_LABEL_FIELDS = frozenset({"json", "cls"})
_MAX_FIELD_BYTES = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}

# Offset and size of a member's content in its shard.
_Place = tuple[int, int]


@dataclass(frozen=True)
class _Sample:
    """One sample, and where its parts lie in its shard."""

    key: str
    label: str | None
    shard: int
    image: _Place
    json: _Place | None


class ShardPictures:
    """The samples of some shards, ascending by key.

    The label is "label" of KEY.json, else KEY.cls, else None.

    Args:
        shards: plain tar files.
        name: what to call the set; the first shard's path if not given.

    Raises:
        DataError: a shard is compressed, cut off, damaged or without pictures; a sample has no
            picture, two, or a strange name or label; or a key comes twice.
    """

    def __init__(self, shards: Sequence[Path], *, name: str | None = None) -> None:
        self._shards = tuple(shards)
        self._name = str(self._shards[0]) if name is None else name
        self._stamps = [file_stamp(shard) for shard in self._shards]
        samples: dict[str, _Sample] = {}
        for number, shard in enumerate(self._shards):
            for sample in _read_samples(shard, number):
                if (other := samples.setdefault(sample.key, sample)) is not sample:
                    first = self._shards[other.shard].name
                    raise DataError(f"key {sample.key!r} of {shard} is in {first} already")
        self._samples = sorted(samples.values(), key=lambda sample: sample.key)
        self._ids = [sample.key for sample in self._samples]
        self._labels = [sample.label for sample in self._samples]

    @property
    def name(self) -> str:
        """What the set is called."""
        return self._name

    @property
    def ids(self) -> Sequence[str]:
        """The samples' keys, ascending."""
        return self._ids

    @property
    def labels(self) -> Sequence[str | None]:
        """The samples' labels."""
        return self._labels

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Picture:
        """Read one sample from its place."""
        sample = self._samples[index]
        shard, stamp = self._shards[sample.shard], self._stamps[sample.shard]
        data = read_slice(shard, *sample.image, stamp)
        fields: dict[str, Any] = {}
        if sample.json is not None:
            fields = _parse_json(read_slice(shard, *sample.json, stamp), shard, sample.key)
        return Picture(sample.key, sample.label, data, fields, where=f"{shard}: {sample.key}")


def _read_samples(path: Path, number: int) -> Iterator[_Sample]:
    """The samples of one shard, each whole and checked."""
    seen: set[str] = set()
    with open_file(path) as file:
        for key, members in itertools.groupby(_members(file, path), key=lambda member: member[0]):
            if key in seen:
                raise DataError(f"key {key!r} comes twice in {path}, with others between")
            seen.add(key)
            places = _places(key, members, path)
            image = _image(key, places, path)
            label = _label(key, places, file, path)
            yield _Sample(key, label, number, image, places.get("json"))
    if not seen:
        raise DataError(f"{path} holds no pictures")


def _places(key: str, members: Iterable[tuple[str, str, _Place]], path: Path) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for _, kind, place in members:
        if kind in places:
            raise DataError(f"{key}.{kind} comes twice in {path}")
        places[kind] = place
    return places


def _image(key: str, places: dict[str, _Place], path: Path) -> _Place:
    kinds = sorted(places.keys() & PICTURE_SUFFIXES)
    if len(kinds) != 1:
        raise DataError(
            f"one picture was wanted for key {key!r} of {path}, {len(kinds)} came "
            f"({', '.join(sorted(places))})"
        )
    size, limit = places[kinds[0]][1], PICTURE_LIMITS.max_image_bytes
    if not 0 < size <= limit:
        raise DataError(f"{key}.{kinds[0]} of {path} has {size} bytes, 1 to {limit} are accepted")
    return places[kinds[0]]


def _label(key: str, places: dict[str, _Place], file: BinaryIO, path: Path) -> str | None:
    """The class that the sample's JSON states, or its .cls."""
    for kind in places.keys() & _LABEL_FIELDS:
        if places[kind][1] > _MAX_FIELD_BYTES:
            raise DataError(f"{key}.{kind} of {path} has more than {_MAX_FIELD_BYTES} bytes")
    label: Any = None
    if "json" in places:
        label = _parse_json(_pread(file, places["json"]), path, key).get("label")
    if label is None and "cls" in places:
        label = _pread(file, places["cls"]).decode("utf-8", errors="replace").strip()
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise DataError(f"the label of {key!r} in {path} is no text and no whole number")
    if label is None:
        return None
    text = str(label)
    if not text or not text.isprintable():
        raise DataError(f"the label of {key!r} in {path} is empty or cannot be printed: {text!a}")
    return text


def _pread(file: BinaryIO, place: _Place) -> bytes:
    # Past the file's buffer and without moving its position, which tarfile goes by.
    return os.pread(file.fileno(), place[1], place[0])


def _parse_json(data: bytes, path: Path, key: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{key}.json of {path} is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise DataError(f"{key}.json of {path} is no JSON object")
    try:
        # What is read is written again, into reports and lists.
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as exc:
        raise DataError(f"{key}.json of {path} holds what is no text in UTF-8") from exc
    return cast("dict[str, Any]", value)


def _members(file: BinaryIO, path: Path) -> Iterator[tuple[str, str, _Place]]:
    """Key, field and place of each sample's member of a plain tar, to its proper end."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                # tarfile keeps every header it has seen; a large shard need not.
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
                if member.isdir():
                    continue
                name = _checked_name(member, path)
                parts = split_name(name)
                if parts is not None:
                    yield *parts, (member.offset_data, member.size)
            # tarfile takes a damaged header, or a cut between members, for the end.
            file.seek(archive.offset)  # pyright: ignore[reportAttributeAccessIssue]
            if file.read(TAR_BLOCK) != bytes(TAR_BLOCK):
                raise tarfile.ReadError("a header is damaged, or the end is missing")
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as exc:
        raise DataError(f"{path} is no whole, plain tar file: {exc}{_hint(file)}") from exc


def _hint(file: BinaryIO) -> str:
    kind = _COMPRESSED.get(os.pread(file.fileno(), 2, 0))
    return "" if kind is None else f"; it looks {kind}-compressed, unpack it once"


def _checked_name(member: tarfile.TarInfo, path: Path) -> str:
    if not member.isreg() or member.issparse():
        raise DataError(
            f"{member.name!r} in {path} is a link or no regular file; it is not followed"
        )
    if (problem := name_problem(member.name)) is not None:
        raise DataError(f"{member.name!r} in {path}: {problem}")
    return PurePosixPath(member.name).as_posix()
