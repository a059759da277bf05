"""Embeddings on disk: what a teacher said of every picture, so that it need not be asked again.

A folder of three files: embeddings.npy (N, D), ids.txt with one id a line in the same order, and
embeddings.json, which says what made them. Nothing in it can run code.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32
from pydantic import BaseModel, PositiveInt

from model.cli.files import sha256_of, write_aside
from model.errors import MetricError

FORMAT = "lipsim-embeddings-1"
VECTORS, IDS, RECORD = "embeddings.npy", "ids.txt", "embeddings.json"


class _About(BaseModel):
    """What the record of a folder says: of its embeddings, and of what made them."""

    format: Literal["lipsim-embeddings-1"]
    count: PositiveInt
    dim: PositiveInt
    sha256: str  # of the file of all embeddings
    record: dict[str, str]


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
        if not (finite := np.isfinite(chunk).all(axis=1)).all():
            bad = ids[done + int(np.argmin(finite))]
            raise MetricError(f"{file}: the embedding of {bad} is not finite")
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
        count: how many there are.
        sha256: of the file of all embeddings.
        record: what made them, for the record of a checkpoint.
    """

    def __init__(self, path: Path) -> None:
        """Opens a folder that `write_embeddings` made, and reads it once against its record.

        Raises:
            MetricError: there is none, or it is damaged, or not what its record says.
        """
        file = path / VECTORS
        try:
            about = _About.model_validate_json((path / RECORD).read_bytes())
        except (OSError, ValueError) as exc:  # pydantic's are among the latter
            raise MetricError(f"{path / RECORD} cannot be read: {exc}") from exc
        try:
            self.sha256 = sha256_of(file)
            if self.sha256 != about.sha256:
                raise MetricError(
                    f"{file}: sha256 {about.sha256} was wanted by {RECORD}, {self.sha256} came"
                )
            self._vectors: np.ndarray = np.lib.format.open_memmap(file, mode="r")
            ids = (path / IDS).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError, OverflowError) as exc:
            raise MetricError(f"{path} is damaged: {exc}") from exc
        _check_ids(ids, str(path / IDS))
        if not len(ids) == about.count == len(self._vectors):
            raise MetricError(f"{path}: {about.count} embeddings, but {len(ids)} ids")
        self._path, self._places = path, {one: place for place, one in enumerate(ids)}
        self.count, self.dim = len(ids), self._vectors.shape[1]
        self.record: Mapping[str, str] = about.record | {"embeddings_sha256": self.sha256}
        self.name = self.record.get("teacher", "unknown")

    def require(self, ids: Iterable[str]) -> None:
        """Refuses what has no embedding, naming the first."""
        if missing := next((one for one in ids if one not in self._places), None):
            raise MetricError(f"{self._path} has no embedding of {missing}")

    def rows(self, ids: Sequence[str]) -> Float32[np.ndarray, "N D"]:
        """The embeddings of these pictures, in their order.

        Raises:
            MetricError: one has no embedding; it is named.
        """
        self.require(ids)
        places = np.array([self._places[one] for one in ids], dtype=np.int64)
        return self._vectors[places].astype(np.float32)


def _check_ids(ids: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise MetricError(f"{where}: the id {one} comes twice")
        seen.add(one)
        if one.splitlines() != [one]:
            raise MetricError(f"{where}: {one!a} is no id, it is empty or breaks a line")
