"""The files of a sealed version: manifest, vectors, quarantine list; written and read side by side.

docs/index-format.md is the specification. The manifest is the root of trust: it lists every other
file with its size and sha256, carries the hash of its own content, and is accepted only byte for
byte as this module writes it. So any flipped bit, anywhere in a version, is noticed: what is not as
a writer leaves it is an IndexFormatError.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from index_builder.errors import IndexFormatError
from index_builder.store.layout import open_regular, reading
from index_builder.store.operating_points import Calibration, calibration_from, stored_fields
from model.certificate.rounding import gamma, round_up

SCHEMA = "lipsim-index-1"
# The same with a `calibration`, and with one that is stale: a reader that does not know it says so,
# not "damaged".
CALIBRATED_SCHEMA = "lipsim-index-2"
STALE_SCHEMA = "lipsim-index-2.1"
METRIC = "cosine"
MANIFEST = "manifest.json"
VECTORS = "vectors.npy"
ITEMS = "items.sqlite"
THUMBNAILS = "thumbnails.sqlite"
QUARANTINE = "quarantine.jsonl"
DATA_FILES = (VECTORS, ITEMS, THUMBNAILS, QUARANTINE)

# Rounding a unit float64 vector to float32 moves its norm by about 6e-8; ten times that is damage.
MAX_NORM_DEVIATION = 1e-6
_HEADER_BYTES = 128
_BLOCK_BYTES = 1 << 22
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
        schema: the format's name and number, which follows from `calibration`.
        version: the version's own name; equals its directory's.
        model_name: what the operator calls the model.
        model_fingerprint: sha256 of weights, config and decode policy; 64 hex digits.
        decode_policy: version string of the rules from bytes to pixels.
        metric: "cosine".
        entries: N, rows of the vectors file, equal vectors collapsed.
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

    @property
    def operating_points(self) -> list[str]:
        return self.calibration.names if self.calibration else []

    def seal(self) -> str:
        """Sha256 of the manifest's content: the identity of the version."""
        return hashlib.sha256(_canonical(self._fields())).hexdigest()

    def to_bytes(self) -> bytes:
        return _canonical({**self._fields(), "seal": self.seal()})

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Manifest":
        """Read a manifest back."""
        try:
            fields: dict[str, Any] = json.loads(raw)
            if fields.get("schema") not in (SCHEMA, CALIBRATED_SCHEMA, STALE_SCHEMA):
                raise IndexFormatError(
                    f"{MANIFEST}: wanted schema {SCHEMA!r}, {CALIBRATED_SCHEMA!r} or "
                    f"{STALE_SCHEMA!r}, got {str(fields.get('schema'))[:80]!r}; "
                    "rebuild the index with this version of the index builder"
                )
            seal = fields.pop("seal")
            files = {str(k): FileRecord(**v) for k, v in fields.pop("files").items()}
            if "calibration" in fields:
                fields["calibration"] = calibration_from(fields["calibration"])
            manifest = cls(**fields, files=files)
            is_whole = manifest.seal() == seal and manifest.to_bytes() == raw
            manifest.check_values()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise IndexFormatError(f"{MANIFEST} is damaged: {exc}") from exc
        if not is_whole:
            raise IndexFormatError(f"{MANIFEST} is damaged: its content does not match its seal")
        return manifest

    def _fields(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.calibration is None:
            del fields["calibration"]
        else:
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
            and set(self.files) == set(DATA_FILES)
            and self.schema == schema_for(self.calibration)
            # Fewer entries have no k-th competitor: everything would match.
            and (self.calibration is None or self.entries > self.calibration.k)
        )
        if not is_sane:
            raise IndexFormatError(f"{MANIFEST} states values that no build writes")


def schema_for(calibration: Calibration | None) -> str:
    """The schema of a manifest with this calibration."""
    if calibration is None:
        return SCHEMA
    return STALE_SCHEMA if calibration.stale else CALIBRATED_SCHEMA


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


def vectors_header(entries: int, dim: int) -> bytes:
    """The 128 bytes before the rows: a .npy header, version 1.0, padded to a fixed length.

    A fixed length lets a writer fill it in last, when N is known, and lets a reader compare it
    byte for byte instead of parsing it.
    """
    fields = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({entries}, {dim}), }}"
    prefix = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + fields.ljust(_HEADER_BYTES - 11).encode("ascii") + b"\n"


class VectorsWriter:
    """Appends float32 rows to a vectors file whose length is known only at the end."""

    def __init__(self, file: BinaryIO, dim: int) -> None:
        self._file = file
        self._dim = dim
        self.entries = 0
        file.write(vectors_header(0, dim))

    def append(self, row: bytes) -> int:
        """Write one row of little-endian float32 and give its number."""
        if len(row) != 4 * self._dim:
            raise IndexFormatError(f"wanted a row of {4 * self._dim} bytes, got {len(row)}")
        self._file.write(row)
        self.entries += 1
        return self.entries - 1

    def finish(self) -> None:
        """Write the true number of rows into the header."""
        self._file.seek(0)
        self._file.write(vectors_header(self.entries, self._dim))
        self._file.flush()


def map_vectors(path: Path, entries: int, dim: int) -> Float[np.ndarray, "N D"]:
    """Memory-map the rows of a vectors file, read-only; (N, d) float32."""
    wanted = _HEADER_BYTES + 4 * entries * dim
    with reading(path) as file:
        header = file.read(_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
        if header != vectors_header(entries, dim) or size != wanted:
            raise IndexFormatError(
                f"{path.name} is damaged: wanted {wanted} bytes for {entries} rows of {dim} "
                f"float32, got {size}, or another header"
            )
        if entries == 0:  # an empty map is refused by the system
            return np.empty((0, dim), dtype=np.float32)
        return np.memmap(file, dtype="<f4", mode="r", offset=_HEADER_BYTES, shape=(entries, dim))


def norm_deviation(vectors: Float[np.ndarray, "N D"]) -> float:
    """Proved bound on | |f| - 1 | over all rows; 0 if there are none.

    The squares of float32 values are exact in float64; summing d of them and the root are off by
    at most gamma(d + 2), relatively.
    """
    entries, dim = vectors.shape
    step = max(1, _BLOCK_BYTES // (8 * dim))
    worst = 0.0
    for start in range(0, entries, step):
        block = np.asarray(vectors[start : start + step], dtype=np.float64)
        deviation = np.abs(np.sqrt(np.einsum("nd,nd->n", block, block)) - 1.0)
        if not np.isfinite(deviation).all():
            row = start + int(np.argmin(np.isfinite(deviation)))
            raise IndexFormatError(f"{VECTORS} is damaged: row {row} holds NaN or infinity")
        worst = max(worst, float(deviation.max()))
    if entries == 0:
        return 0.0
    bound = round_up(round_up(worst) + round_up(gamma(dim + 4) * (1.0 + 2.0 * worst)))
    if not bound <= MAX_NORM_DEVIATION:
        raise IndexFormatError(f"{VECTORS}: wanted unit vectors, one is off by {worst:.3g}")
    return bound


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
