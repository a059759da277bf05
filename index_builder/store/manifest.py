"""The manifest and the quarantine list of a sealed version; written and read side by side.

docs/index-format.md is the specification. The manifest is the root of trust: it lists every other
file with its size and sha256, carries the hash of its own content, and is accepted only byte for
byte as this module writes it. So any flipped bit, anywhere in a version, is noticed: what is not as
a writer leaves it is an IndexFormatError.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any

from index_builder.errors import IndexFormatError
from index_builder.store.columns import COLUMNS
from index_builder.store.layout import open_regular, reading
from index_builder.store.operating_points import Calibration, calibration_from, stored_fields
from index_builder.store.vectors import MAX_NORM_DEVIATION, ROWS, VECTORS, Rows, read_rows
from model.pixels.views import VIEWS, WHOLE

SCHEMA = "lipsim-index-3"
# Of versions whose entries have one vector each and no `rows.npy`: plain, with a `calibration`, and
# with one that is stale. They are read, and calibrated, but not built any more.
OLD_SCHEMA = "lipsim-index-1"
OLD_CALIBRATED_SCHEMA = "lipsim-index-2"
OLD_STALE_SCHEMA = "lipsim-index-2.1"
_OLD_SCHEMAS = (OLD_SCHEMA, OLD_CALIBRATED_SCHEMA, OLD_STALE_SCHEMA)
METRIC = "cosine"
MANIFEST = "manifest.json"
ITEMS = "items.sqlite"
THUMBNAILS = "thumbnails.sqlite"
QUARANTINE = "quarantine.jsonl"
DATA_FILES = (VECTORS, ROWS, ITEMS, THUMBNAILS, QUARANTINE, COLUMNS)
# Of versions of the same schema that were written before there were columns.
_WITHOUT_COLUMNS = (VECTORS, ROWS, ITEMS, THUMBNAILS, QUARANTINE)
_OLD_DATA_FILES = (VECTORS, ITEMS, THUMBNAILS, QUARANTINE)

_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """Size and sha256 of one file of a version."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Quarantined:
    """One file that could not become an item: where it was, a stable code, and the reason."""

    path: str
    code: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A version's description of itself.

    Attributes:
        schema: the format's name and number.
        version: the version's own name; equals its directory's.
        model_name: what the operator calls the model.
        model_fingerprint: sha256 of weights, config and decode policy; 64 hex digits.
        decode_policy: version string of the rules from bytes to pixels.
        metric: "cosine".
        entries: N, ids whose vectors are all equal collapsed.
        ids: number of ids; at least N.
        dim: d, length of a vector.
        norm_deviation: proved bound on | |f| - 1 | over all rows.
        source: the collection as it was named to the command.
        counts: what the build did: added, updated, removed, embedded, reused, duplicates,
            quarantined, skipped.
        created: UTC, ISO 8601.
        tool_version: version of this project that wrote it.
        files: size and sha256 of every other file.
        calibration: measured thresholds; None if there are none.
        vectors: rows of the vectors file, at least N; None in old versions, where it is N.
        views: names of the views that each picture was embedded in, in the order in which
            `rows.npy` counts them; None in old versions: the whole picture alone.
    """

    schema: str
    version: str
    model_name: str
    model_fingerprint: str
    decode_policy: str
    metric: str
    entries: int
    ids: int
    dim: int
    norm_deviation: float
    source: str
    counts: dict[str, int]
    created: str
    tool_version: str
    files: dict[str, FileRecord]
    calibration: Calibration | None = None
    vectors: int | None = None
    views: tuple[str, ...] | None = None

    @property
    def vector_count(self) -> int:
        """Rows of the vectors file, R."""
        return self.entries if self.vectors is None else self.vectors

    @property
    def view_names(self) -> tuple[str, ...]:
        return (WHOLE,) if self.views is None else self.views

    @property
    def operating_points(self) -> list[str]:
        return self.calibration.names if self.calibration else []

    @cached_property
    def seal(self) -> str:
        """Sha256 of the manifest's content: the identity of the version, said in each answer."""
        return hashlib.sha256(_canonical(self._fields())).hexdigest()

    def to_bytes(self) -> bytes:
        return _canonical({**self._fields(), "seal": self.seal})

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Manifest":
        """Read a manifest back."""
        try:
            fields: dict[str, Any] = json.loads(raw)
            if fields.get("schema") not in (SCHEMA, *_OLD_SCHEMAS):
                raise IndexFormatError(
                    f"{MANIFEST}: wanted schema {SCHEMA!r} or {', '.join(_OLD_SCHEMAS)}, got "
                    f"{str(fields.get('schema'))[:80]!r}; "
                    "rebuild the index with this version of the index builder"
                )
            seal = fields.pop("seal")
            files = {str(k): FileRecord(**v) for k, v in fields.pop("files").items()}
            if "calibration" in fields:
                fields["calibration"] = calibration_from(fields["calibration"])
            if "views" in fields:
                fields["views"] = tuple(fields["views"])
            manifest = cls(**fields, files=files)
            is_whole = manifest.seal == seal and manifest.to_bytes() == raw
            manifest.check_values()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise IndexFormatError(f"{MANIFEST} is damaged: {exc}") from exc
        if not is_whole:
            raise IndexFormatError(f"{MANIFEST} is damaged: its content does not match its seal")
        return manifest

    def _fields(self) -> dict[str, Any]:
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        if self.calibration is not None:
            fields["calibration"] = stored_fields(self.calibration)
        return fields

    def check_values(self) -> None:
        """Refuse a manifest whose numbers no build can have written."""
        is_sane = (
            self.metric == METRIC
            and 0 <= self.entries <= self.ids
            and self.dim > 0
            and (self.entries > 0 or self.ids == 0)
            and 0.0 <= self.norm_deviation <= MAX_NORM_DEVIATION
            and self._is_of_schema()
            # Fewer entries have no k-th competitor: everything would match.
            and (self.calibration is None or self.entries > self.calibration.k)
        )
        if not is_sane:
            raise IndexFormatError(f"{MANIFEST} states values that no build writes")

    def _is_of_schema(self) -> bool:
        views = self.views
        if views is None:
            return (
                self.vectors is None
                and set(self.files) == set(_OLD_DATA_FILES)
                and self.schema == _old_schema(self.calibration)
            )
        return (
            self.schema == SCHEMA
            and set(self.files) in (set(DATA_FILES), set(_WITHOUT_COLUMNS))
            and views[:1] == (WHOLE,)
            and len(set(views)) == len(views)
            and set(views) <= set(VIEWS)
            and self.vectors is not None
            and self.entries <= self.vectors <= self.entries * len(views)
        )

    def calibrated(self, calibration: Calibration) -> "Manifest":
        """The same gallery with these operating points."""
        schema = self.schema if self.views is not None else _old_schema(calibration)
        return replace(self, schema=schema, calibration=calibration)


def _old_schema(calibration: Calibration | None) -> str:
    """The schema of an old version with this calibration."""
    if calibration is None:
        return OLD_SCHEMA
    return OLD_STALE_SCHEMA if calibration.stale else OLD_CALIBRATED_SCHEMA


def _canonical(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return (text + "\n").encode("ascii")


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a version's directory."""
    with reading(directory / MANIFEST) as file:
        raw = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise IndexFormatError(f"{directory.name}/{MANIFEST} has more than {_MAX_MANIFEST_BYTES} B")
    return Manifest.from_bytes(raw)


def file_record(path: Path) -> FileRecord:
    """Size and sha256 of a file as it is on disk."""
    with open_regular(path) as file:
        return FileRecord(os.fstat(file.fileno()).st_size, _sha256(file))


def _sha256(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(directory: Path, manifest: Manifest) -> None:
    """Hold a version's directory against its manifest: names, sizes, then every byte."""
    wanted = {MANIFEST, *manifest.files}
    try:
        found = {entry.name for entry in directory.iterdir()}
    except OSError as exc:
        raise IndexFormatError(f"{directory.name} cannot be listed: {exc.strerror}") from exc
    if found != wanted:
        missing, surplus = sorted(wanted - found), sorted(found - wanted)
        raise IndexFormatError(f"{directory.name}: missing files {missing}, surplus {surplus[:5]}")
    for name, record in sorted(manifest.files.items()):
        with reading(directory / name) as file:
            size = os.fstat(file.fileno()).st_size
            is_whole = size == record.bytes and _sha256(file) == record.sha256
        if size != record.bytes:
            raise IndexFormatError(
                f"{directory.name}/{name} is damaged: wanted {record.bytes} bytes, got {size}"
            )
        if not is_whole:
            raise IndexFormatError(
                f"{directory.name}/{name} is damaged: its sha256 is not the manifest's; restore "
                "it, roll back, or rebuild the index"
            )


def rows_of(directory: Path, manifest: Manifest) -> Rows:
    """Whose view each row of a version's vectors is."""
    if manifest.views is None:
        return Rows.of_old(manifest.entries)
    return read_rows(
        directory / ROWS,
        manifest.vector_count,
        entries=manifest.entries,
        views=len(manifest.views),
    )


def write_quarantine(path: Path, quarantined: Iterable[Quarantined]) -> None:
    """Write the quarantine list: one JSON object a line, sorted by path."""
    with path.open("w", encoding="ascii") as file:
        for entry in sorted(quarantined, key=lambda q: (q.path, q.code, q.reason)):
            file.write(json.dumps(asdict(entry), ensure_ascii=True) + "\n")


def read_quarantine(path: Path) -> list[Quarantined]:
    """Read the quarantine list of a version."""
    try:
        with open_regular(path) as file:
            return [Quarantined(**json.loads(line.decode("ascii"))) for line in file]
    except (OSError, ValueError, TypeError, RecursionError) as exc:
        raise IndexFormatError(f"{path.name} is damaged: {exc}") from exc
