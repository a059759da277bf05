"""The reader of a sealed index: open, verify, search; the half that runs in the service.

A GalleryIndex is one version and never changes. To serve a new version, open it and drop the old.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int

from index_builder.errors import (
    IndexFormatError,
    IndexModelMismatchError,
    IndexNotFoundError,
)
from index_builder.search.faiss_flat import CpuFlatSearch, FlatSearch, open_flat_search
from index_builder.search.unseen import float32_query, unseen_bound
from index_builder.store import layout
from index_builder.store.columns import COLUMNS, Columns
from index_builder.store.items import Entry, ItemsReader
from index_builder.store.manifest import (
    ITEMS,
    MANIFEST,
    THUMBNAILS,
    Manifest,
    check_files,
    read_manifest,
    rows_of,
)
from index_builder.store.vectors import VECTORS, Rows, map_vectors, norm_deviation
from model.certificate.pairs import Candidates
from model.errors import EmbeddingError

_OPEN_TRIES = 5
_LOCK_TRIES = 10
_LOCK_PAUSE_S = 0.01

list_indexes = layout.list_indexes


def current_version(data_dir: Path, name: str = "default") -> str:
    """The version being served, like "v000001"; cheap enough to poll."""
    return current_seal(data_dir, name)[0]


def current_seal(data_dir: Path, name: str = "default") -> tuple[str, str]:
    """The version being served and its seal, which tells two versions of one name apart."""
    current = layout.read_current(layout.index_paths(data_dir, name))
    return current.version, current.seal


class GalleryIndex:
    """One sealed version, opened: every byte was checked against its manifest.

    Safe to share between threads. `close` it when no search is under way any more.

    Attributes:
        version: like "v000001".
        norm_deviation: proved bound on | |f| - 1 | over the stored rows.
        vectors: the rows as stored, memory-mapped, (R, d) float32.
        rows: whose view each of them is.
    """

    def __init__(self, directory: Path, name: str, manifest_file: int) -> None:
        """Check and map a version's directory; `GalleryIndex.open` is the way in."""
        self._manifest_file = manifest_file
        self.name = name
        self.version = directory.name
        self.manifest: Manifest = read_manifest(directory)
        if self.manifest.version != self.version:
            raise IndexFormatError(
                f"{self.version}/{MANIFEST} describes {self.manifest.version}: it was moved"
            )
        check_files(directory, self.manifest)
        self.vectors: Float32[np.ndarray, "R D"] = map_vectors(
            directory / VECTORS, self.manifest.vector_count, self.manifest.dim
        )
        self.rows: Rows = rows_of(directory, self.manifest)
        self.norm_deviation = max(self.manifest.norm_deviation, norm_deviation(self.vectors))
        self._everything = Candidates(
            rows=np.arange(self.vector_count),
            vectors=self.vectors,
            unseen_score=-np.inf,
            size=self.vector_count,
            norm_deviation=self.norm_deviation,
            items=None if self.most_views == 1 else self.rows.entries,
            item_count=self.size,
        )
        self.items = ItemsReader(directory / ITEMS, directory / THUMBNAILS)
        self._columns: Columns | None = None
        self._columns_lock = threading.Lock()
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.items.close)
            self.items.check(entries=self.manifest.entries, ids=self.manifest.ids)
            if COLUMNS in self.manifest.files:
                self._columns = Columns.open(directory / COLUMNS, **self._counts)
                on_error.callback(self._columns.close)
            self._cpu = CpuFlatSearch(self.vectors)
            self._search: FlatSearch = open_flat_search(self.vectors)
            on_error.pop_all()

    @classmethod
    def open(
        cls,
        data_dir: Path,
        name: str = "default",
        *,
        embedder_fingerprint: str | None = None,
        decode_policy: str | None = None,
        version: str | None = None,
    ) -> "GalleryIndex":
        """Open the served version of an index, or a given one.

        Fingerprint and decode policy are of whatever will embed queries; None if nothing will.

        Raises:
            IndexNotFoundError: no such index or version.
            IndexFormatError: a file is missing, surplus, damaged or of an unknown schema.
            IndexModelMismatchError: it was made by another model or decode policy.
            DependencyError: FAISS is missing, or installed twice.
        """
        paths = layout.index_paths(data_dir, name)
        for _ in range(_OPEN_TRIES):
            current = layout.read_current(paths) if version is None else None
            chosen = current.version if current is not None else str(version)
            try:
                index = cls._open_version(paths, name, chosen)
            except (IndexFormatError, IndexNotFoundError):
                # A version may be pruned between reading CURRENT and opening it: look again.
                if current is None or layout.read_current(paths) == current:
                    raise
                continue
            with contextlib.ExitStack() as on_error:
                on_error.callback(index.close)
                index._check_seal(current)
                index._check_model(embedder_fingerprint, decode_policy)
                on_error.pop_all()
            return index
        raise IndexNotFoundError(f"index {name!r} changed {_OPEN_TRIES} times while it was opened")

    @classmethod
    def _open_version(cls, paths: layout.IndexPaths, name: str, version: str) -> "GalleryIndex":
        directory = layout.existing_version(paths, version)
        manifest_file = hold_version(directory)
        try:
            index = cls(directory, name, manifest_file)
        except BaseException:
            os.close(manifest_file)
            raise
        return index

    @property
    def size(self) -> int:
        """N, the number of entries after collapsing ids of equal vectors."""
        return self.manifest.entries

    @property
    def vector_count(self) -> int:
        """R, the number of rows: each entry has one or more."""
        return self.manifest.vector_count

    @property
    def most_views(self) -> int:
        """The most rows that one entry has."""
        return self.rows.most_views

    @property
    def dim(self) -> int:
        """d, the length of a vector."""
        return self.manifest.dim

    @property
    def columns(self) -> Columns:
        """The metadata as columns; of a version without, made of all its items when first asked."""
        with self._columns_lock:
            if self._columns is None:
                self._columns = Columns.of_items(self.items, **self._counts)
            return self._columns

    @property
    def _counts(self) -> dict[str, int]:
        return {"ids": self.manifest.ids, "entries": self.manifest.entries}

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """The m rows of largest float32 score for each query, and a bound on all others.

        Exact flat search: the bound is proved, whatever order FAISS sums in. With m >= R all
        rows come back and nothing is unseen. A zero query gets the first m rows; queries are
        raw embeddings of any length. Candidates come best first by the float32 score.

        Raises:
            EmbeddingError: another dimension, NaN or infinity.
            ValueError: m is below 1.
        """
        if m < 1:
            raise ValueError(f"wanted at least 1 candidate, got m = {m}")
        self._check_queries(queries)
        if m >= self.vector_count or len(queries) == 0:
            return [self.everything() for _ in queries]
        return [
            self.everything() if found is None else self._candidates(*found)
            for found in self.best_rows(queries, m)
        ]

    def best_rows(
        self, queries: Float64[np.ndarray, "B D"], m: int
    ) -> list[tuple[np.ndarray, float] | None]:
        """As `search` with m < R: the numbers of the rows, and the bound on all others.

        None where the search failed, and everything is to be looked at.
        """
        scaled = [float32_query(query) for query in queries]
        backend = self._search if m <= self._search.max_depth else self._cpu
        scores, rows = backend.search(np.stack([q.vector for q in scaled]), m)
        return [
            None
            if found.min() < 0  # FAISS's mark for "no more": not expected below R, never trusted
            else (
                np.arange(m) if query.is_zero else found,
                unseen_bound(query, float(score.min()), self.norm_deviation),
            )
            for query, score, found in zip(scaled, scores, rows, strict=True)
        ]

    def everything(self) -> Candidates:
        """All rows: a full scan, with nothing unseen."""
        return self._everything

    def of_items(self, items: Int[np.ndarray, " I"]) -> Candidates:
        """Every row of these entries."""
        return self._candidates(self.rows.of_entries(items), -np.inf)

    def entries(self, numbers: Sequence[int] | Int[np.ndarray, " E"]) -> list[Entry]:
        """The entries of these numbers, a list or an array, in the order asked."""
        return self.items.entries([int(number) for number in numbers])

    def views(self, rows: Int[np.ndarray, " A"]) -> list[str]:
        """The name of the view that each of these rows is of."""
        names = self.manifest.view_names
        return [names[view] for view in self.rows.views[rows]]

    def entry_by_id(self, item_id: str) -> Entry:
        """The item of that id and the other ids with an equal vector."""
        return self.items.entry_by_id(item_id)

    def close(self) -> None:
        """Give back files, threads and device memory; a second call does nothing."""
        if self._manifest_file >= 0:
            self._search.close()
            self.items.close()
            if self._columns is not None:
                self._columns.close()
            os.close(self._manifest_file)
            self._manifest_file = -1

    def __enter__(self) -> "GalleryIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _candidates(self, rows: np.ndarray, unseen_score: float) -> Candidates:
        rows = rows.astype(np.int64)
        return replace(
            self._everything,
            rows=rows,
            vectors=np.asarray(self.vectors[rows]),
            items=None if self.most_views == 1 else self.rows.entries[rows],
            unseen_score=unseen_score,
        )

    def _check_queries(self, queries: np.ndarray) -> None:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise EmbeddingError(
                f"wanted queries of shape (B, {self.dim}) for index {self.name!r}, "
                f"got {queries.shape}"
            )
        if not np.isfinite(queries).all():
            raise EmbeddingError("a query embedding must be finite")

    def _check_seal(self, current: layout.Current | None) -> None:
        if current is not None and current.seal != self.manifest.seal:
            raise IndexFormatError(
                f"CURRENT of index {self.name!r} names {self.version} with another seal: one of "
                "the two is damaged; choose a version with `rollback --to VERSION`"
            )

    def _check_model(self, fingerprint: str | None, decode_policy: str | None) -> None:
        manifest = self.manifest
        other_model = "or say `--checkpoint FILE` with the model it was made by"
        other_policy = "or use the release it was made by"
        for what, wanted, got, way_out in (
            ("model", fingerprint, manifest.model_fingerprint, other_model),
            ("decode policy", decode_policy, manifest.decode_policy, other_policy),
        ):
            if wanted is not None and wanted != got:
                raise IndexModelMismatchError(
                    f"index {self.name!r} {self.version} was made by {what} {got[:16]}, the "
                    f"queries come from {wanted[:16]}: rebuild it with `python -m index_builder "
                    f"build SOURCE --index {self.name}`, {way_out}"
                )


def hold_version(directory: Path) -> int:
    """Open a version's manifest and mark it as being read; gives the file descriptor."""
    with layout.reading(directory / MANIFEST) as file:
        descriptor = os.dup(file.fileno())
    # `prune` holds the file alone for a moment only. Who holds it longer is a stranger: waiting
    # for one would stall the service, and going on without the lock leaves only `prune` the poorer,
    # as where the file system knows no locks: open files stay.
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        except OSError:
            break
        else:
            break
    return descriptor
