"""Embeddings on disk: what a teacher said of every picture, so that it need not be asked again.

A folder of three files: embeddings.npy (N, D), ids.txt with one id a line in the same order, and
embeddings.json, which says what made them. Nothing in it can run code. The layout of the published
LipSim code, one torch.save of one tensor a picture, is read as well.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor

from model.cli.files import sha256_of, write_aside
from model.data.files import name_problem, read_bytes
from model.errors import DataError, MetricError
from model.teachers.weights import load_plain

FORMAT = "lipsim-embeddings-1"
VECTORS, IDS, RECORD = "embeddings.npy", "ids.txt", "embeddings.json"
_MOST_RECORD_BYTES = 1 << 20
_MOST_PICKLE_BYTES = 1 << 20
_ROWS_AT_ONCE = 4096
_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))


def write_embeddings(
    path: Path,
    ids: Sequence[str],
    chunks: Iterable[Float[np.ndarray, "_N D"]],
    record: Mapping[str, str],
    beside: Mapping[str, Float[np.ndarray, "..."]] | None = None,
) -> None:
    """Write embeddings to a folder, which appears when it is whole.

    Args:
        path: the folder; it must not exist.
        ids: one a row, all different, without line breaks.
        chunks: the embeddings, float32 or float16, some rows at a time: a teacher's word on a
            million pictures need not fit in memory.
        record: what made them; `teacher` is among them.
        beside: arrays that belong to them, each kept as NAME.npy.

    Raises:
        MetricError: ids and rows do not fit, a number is not finite, or the folder is there.
    """
    if path.exists():
        raise MetricError(f"{path} is there already")
    _check_ids(ids, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as aside:
        aside.mkdir()
        shape = _write_rows(aside / VECTORS, ids, chunks)
        for name, array in (beside or {}).items():
            np.save(aside / f"{name}.npy", array, allow_pickle=False)
        (aside / IDS).write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")
        digest = sha256_of(aside / VECTORS)
        about = {"format": FORMAT, "count": shape[0], "dim": shape[1], "sha256": digest}
        text = json.dumps({**about, "record": dict(record)}, indent=1, sort_keys=True)
        (aside / RECORD).write_text(text + "\n", encoding="utf-8")


def _write_rows(
    file: Path, ids: Sequence[str], chunks: Iterable[Float[np.ndarray, "_N D"]]
) -> tuple[int, int]:
    """All rows in one .npy file; its shape."""
    out: np.ndarray | None = None
    done = 0
    for chunk in chunks:
        if out is None:
            out = np.lib.format.open_memmap(file, "w+", chunk.dtype, (len(ids), chunk.shape[1]))
        if done + len(chunk) > len(ids):
            raise MetricError(f"{len(ids)} embeddings were wanted, more came")
        if not np.isfinite(chunk).all():
            bad = done + int(np.argmin(np.isfinite(chunk).all(axis=1)))
            raise MetricError(f"the embedding of {ids[bad]} is not finite")
        out[done : done + len(chunk)] = chunk
        done += len(chunk)
    if out is None or done != len(ids):
        raise MetricError(f"{len(ids)} embeddings were wanted, {done} came")
    out.flush()
    return out.shape[0], out.shape[1]


class PrecomputedEmbeddings:
    """Embeddings of pictures by their ids, read from disk as they are asked for.

    Attributes:
        name: of the teacher that made them.
        dim: length of an embedding.
        count: how many there are; None in the published layout, where nobody counted.
        sha256: of the file of all embeddings, which has it; None in the published layout.
        record: what made them, for the record of a checkpoint.
    """

    def __init__(self, path: Path) -> None:
        """Opens a folder that `write_embeddings` made, or one of the published layout.

        One of ours is read once as a whole, some rows at a time, and held against its record.

        The published layout is <class>/<stem>.pkl below path, with the ids of the ImageNet layout,
        <class>/<stem>.JPEG: path is then the folder of one split.

        Raises:
            MetricError: nothing of that kind is there, or it is damaged, or not what its record
                says.
        """
        rows = _OwnFolder(path) if (path / RECORD).exists() else _PublishedFolder(path)
        self._rows: _Rows = rows
        self.name, self.dim, self.record = rows.name, rows.dim, rows.record
        self.count, self.sha256 = rows.count, rows.sha256

    def rows(self, ids: Sequence[str]) -> Float32[np.ndarray, "N D"]:
        """The embeddings of these pictures, in their order.

        Raises:
            MetricError: one has no embedding, or an unusable one; it is named.
        """
        rows = np.empty((len(ids), self.dim), dtype=np.float32)
        for place, one in zip(rows, ids, strict=True):
            place[...] = self._rows.row(one)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise MetricError(f"the embedding of {ids[int(np.argmin(finite))]} is not finite")
        return rows


class _Rows(Protocol):
    name: str
    dim: int
    count: int | None
    sha256: str | None
    record: Mapping[str, str]

    def row(self, picture: str) -> Float[np.ndarray, " D"]: ...


class _OwnFolder:
    """A folder of ours."""

    def __init__(self, path: Path) -> None:
        about = _read_record(path)
        file = path / VECTORS
        try:
            digest = sha256_of(file)
            ids = (path / IDS).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as exc:
            raise MetricError(f"{path} is damaged: {exc}") from exc
        if digest != about["sha256"]:
            raise MetricError(
                f"{file}: sha256 {about['sha256']} was wanted by {RECORD}, {digest} came"
            )
        _check_ids(ids, str(path / IDS))
        vectors = _open_rows(file)
        if about.get("count") != len(vectors) or about.get("dim") != vectors.shape[1]:
            wanted = f"({about.get('count')!r:.40}, {about.get('dim')!r:.40})"
            raise MetricError(f"{file}: {wanted} was wanted by {RECORD}, {vectors.shape} came")
        if len(ids) != len(vectors):
            raise MetricError(f"{path}: {len(vectors)} embeddings, but {len(ids)} ids")
        for first in range(0, len(ids), _ROWS_AT_ONCE):
            finite = np.isfinite(vectors[first : first + _ROWS_AT_ONCE]).all(axis=1)
            if not finite.all():
                bad = ids[first + int(np.argmin(finite))]
                raise MetricError(
                    f"{file}: finite numbers were wanted, the embedding of {bad} is not finite"
                )
        self._path, self._vectors = path, vectors
        self._places = {one: place for place, one in enumerate(ids)}
        self.dim: int = vectors.shape[1]
        self.count: int | None = len(ids)
        self.sha256: str | None = digest
        self.record: Mapping[str, str] = about["record"] | {"embeddings_sha256": digest}
        self.name = self.record.get("teacher", "unknown")

    def row(self, picture: str) -> Float[np.ndarray, " D"]:
        place = self._places.get(picture)
        if place is None:
            raise MetricError(f"{self._path} has no embedding of {picture}")
        return self._vectors[place]


class _PublishedFolder:
    """A folder of the published layout: one tensor a file, read without running anything."""

    def __init__(self, path: Path) -> None:
        folders = sorted(path.glob("*/"))
        first = next((file for folder in folders for file in sorted(folder.glob("*.pkl"))), None)
        if first is None:
            raise MetricError(f"{path} holds neither {RECORD} nor files CLASS/STEM.pkl")
        self._path = path
        self.name = "unknown"
        self.dim = len(_read_pickle(first))
        self.count: int | None = None
        self.sha256: str | None = None
        self.record: Mapping[str, str] = {"teacher": self.name, "layout": "published"}

    def row(self, picture: str) -> Float[np.ndarray, " D"]:
        if (problem := name_problem(picture)) is not None:
            raise MetricError(f"{picture!a} is no id of a picture: {problem}")
        file = self._path / PurePosixPath(picture).with_suffix(".pkl")
        vector = _read_pickle(file)
        if len(vector) != self.dim:
            raise MetricError(f"{file}: {self.dim} numbers were wanted, {len(vector)} came")
        return vector


def _read_record(path: Path) -> dict[str, Any]:
    file = path / RECORD
    try:
        about: Any = json.loads(read_bytes(file, _MOST_RECORD_BYTES))
    except (DataError, ValueError) as exc:
        raise MetricError(f"{file} cannot be read: {exc}") from exc
    fields = cast("dict[str, Any]", about) if isinstance(about, dict) else {}
    if fields.get("format") != FORMAT:
        raise MetricError(f"{file}: format {FORMAT} was wanted, {fields.get('format')!r:.40} came")
    record: object = fields.get("record")
    held = cast("dict[str, Any]", record) if isinstance(record, dict) else {"": None}
    if not all(isinstance(text, str) for text in (fields.get("sha256"), *held.values())):
        raise MetricError(f"{file}: a record of texts and a sha256 were wanted")
    return fields


def _open_rows(file: Path) -> Float[np.ndarray, "N D"]:
    try:
        vectors = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, OverflowError) as exc:
        raise MetricError(f"{file} is damaged: {exc}") from exc
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype not in _DTYPES:
        raise MetricError(
            f"{file}: float32 or float16 (N, D), neither of them 0, was wanted, "
            f"{vectors.dtype} {vectors.shape} came"
        )
    return vectors


def _read_pickle(file: Path) -> Float[np.ndarray, " D"]:
    try:
        held = load_plain(io.BytesIO(read_bytes(file, _MOST_PICKLE_BYTES)))
    except (DataError, MetricError) as exc:
        raise MetricError(f"{file}: {exc}") from exc
    if not isinstance(held, Tensor) or held.ndim != 1 or not held.is_floating_point():
        what = f"{tuple(held.shape)}" if isinstance(held, Tensor) else type(held).__name__
        raise MetricError(f"{file}: one tensor (D,) of floats was wanted, {what} came")
    return held.detach().float().numpy()


def _check_ids(ids: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise MetricError(f"{where}: the id {one} comes twice")
        seen.add(one)
    if broken := next((one for one in ids if len(one.splitlines()) != 1), None):
        raise MetricError(f"{where}: {broken!a} is no id, it breaks a line")
    if "" in ids:
        raise MetricError(f"{where}: an id is empty")
