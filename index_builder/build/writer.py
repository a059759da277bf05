"""The one writer of an index: takes the lock, writes a version aside, verifies it, seals it."""

import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float

from index_builder.build.journal import EmbeddedImage
from index_builder.errors import DiskFullError, IndexFormatError, IndexLockedError
from index_builder.store import layout
from index_builder.store.columns import COLUMNS, Columns, ColumnsWriter
from index_builder.store.items import Item, ItemsReader, ItemsWriter
from index_builder.store.manifest import (
    DATA_FILES,
    ITEMS,
    MANIFEST,
    METRIC,
    QUARANTINE,
    SCHEMA,
    THUMBNAILS,
    Manifest,
    Quarantined,
    check_files,
    file_record,
    read_manifest,
    rows_of,
    write_quarantine,
)
from index_builder.store.operating_points import Calibration
from index_builder.store.vectors import (
    ROWS,
    VECTORS,
    Rows,
    VectorsWriter,
    map_vectors,
    norm_deviation,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Planned:
    """An item that the new version shall hold, by the content it was made from."""

    id: str
    path: str
    content_sha256: str
    bytes: int
    metadata: dict[str, object]


@dataclass(frozen=True)
class ModelIdentity:
    """Which model and which decode policy a version's vectors come from."""

    name: str
    fingerprint: str
    decode_policy: str
    dim: int

    @property
    def key(self) -> str:
        """One string for both, under which embeddings may be used again."""
        return f"{self.fingerprint} {self.decode_policy}"

    @classmethod
    def of(cls, manifest: Manifest) -> "ModelIdentity":
        """The model that a version was made by."""
        return cls(
            manifest.model_name, manifest.model_fingerprint, manifest.decode_policy, manifest.dim
        )


@contextlib.contextmanager
def writing(paths: layout.IndexPaths) -> Generator[None]:
    """Be the index's one writer, and clean up after one that was killed.

    Raises:
        IndexLockedError: another writer is at work.
        IndexFormatError: a link stands where the index has a folder or a file of its own.
        DiskFullError: there is no space left to write, now or before the work is done.
    """
    try:
        layout.refuse_links(paths.versions, paths.lock, paths.journal)
        paths.versions.mkdir(parents=True, exist_ok=True)
        with _lock(paths):
            layout.clean_garbage(paths)
            yield
    except OSError as exc:
        if exc.errno not in _FULL:
            raise
        what = exc.filename or f"index {paths.root.name!r}"
        raise DiskFullError.at(str(what), exc.strerror or str(exc)) from exc


def _lock(paths: layout.IndexPaths) -> contextlib.AbstractContextManager[object]:
    try:
        return FileLock(paths.lock, timeout=0).acquire()
    except Timeout as exc:
        raise IndexLockedError(
            f"index {paths.root.name!r} is being written by another process, which holds "
            f"{paths.lock}; wait for it to end (a killed writer's lock is free at once)"
        ) from exc


def seal_version(
    paths: layout.IndexPaths,
    *,
    model: ModelIdentity,
    views: tuple[str, ...],
    planned: Iterable[Planned],
    embedded: Callable[[str], EmbeddedImage],
    quarantined: Iterable[Quarantined],
    source: str,
    counts: dict[str, int],
    served: Manifest | None,
) -> Manifest:
    """Write a new version, verify it as a reader would, and make it the served one.

    Until the last rename nothing of it is visible; after it, all of it is on the disk. The caller
    holds the lock; items come sorted by id, and `embedded` gives what is kept of a content hash.
    The operating points of the version served go on.
    """
    with _version_aside(paths) as (version, aside):
        ids, entries, vectors = _write_items(aside, model.dim, planned, embedded)
        write_quarantine(aside / QUARANTINE, quarantined)
        for name in DATA_FILES:
            layout.fsync(aside / name)
        files = {name: file_record(aside / name) for name in DATA_FILES}
        calibration = None
        if served is not None and ModelIdentity.of(served).key == model.key:
            calibration = _carried(served, entries, files[VECTORS] == served.files[VECTORS])
        manifest = Manifest(
            schema=SCHEMA,
            version=version,
            model_name=model.name,
            model_fingerprint=model.fingerprint,
            decode_policy=model.decode_policy,
            metric=METRIC,
            entries=entries,
            ids=ids,
            dim=model.dim,
            norm_deviation=norm_deviation(map_vectors(aside / VECTORS, vectors, model.dim)),
            source=source,
            counts={**counts, "duplicates": ids - entries},
            **_writer(),
            files=files,
            calibration=calibration,
            vectors=vectors,
            views=views,
        )
        _publish(paths, aside, manifest)
    return manifest


def _carried(served: Manifest, entries: int, is_same_gallery: bool) -> Calibration | None:
    """The operating points of a version for the next one by the same model.

    Their rates are those of the gallery they were measured on, so in any other they are stale.
    """
    old = served.calibration
    if old is None or entries <= old.k:  # without a k-th competitor everything would match
        return None
    return replace(old, stale=old.stale or not is_same_gallery)


def seal_calibration(
    paths: layout.IndexPaths, served: Manifest, calibration: Calibration
) -> Manifest:
    """Make a version of the same gallery that also has these operating points, and serve it.

    Its data files are those of the served version: links where the file system has them, else
    copies. Both are read back whole before anything is visible. The caller holds the lock.
    """
    source = paths.version(served.version)
    with _version_aside(paths) as (version, aside):
        for name in served.files:
            _link_or_copy(source / name, aside / name)
        manifest = replace(served.calibrated(calibration), version=version, **_writer())
        _publish(paths, aside, manifest)
    return manifest


@contextlib.contextmanager
def _version_aside(paths: layout.IndexPaths) -> Generator[tuple[str, Path]]:
    """The next version's name and a directory to write it in, gone again after an error."""
    version = layout.next_version(paths)
    # The suffix tells apart the leftovers of several killed writers.
    aside = paths.versions / f".tmp-{version}-{os.getpid()}-{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        yield version, aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _publish(paths: layout.IndexPaths, aside: Path, manifest: Manifest) -> None:
    """Give a directory its manifest, read it as a reader would, show it, and serve it."""
    layout.replace_durably(aside / MANIFEST, manifest.to_bytes())
    check_version(aside)
    aside.rename(paths.version(manifest.version))
    layout.fsync(paths.versions)
    layout.write_current(paths, layout.Current(manifest.version, manifest.seal))


def _link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under another name; sealed files never change, so two versions may share."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links, or one that forbids them
        shutil.copyfile(source, target)
        layout.fsync(target)


def _writer() -> dict[str, str]:
    """When a version is written, and by what."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"created": now, "tool_version": metadata.version("lipsim-retrieval")}


def check_version(directory: Path, *, deep: bool = False) -> Manifest:
    """Read a version from the disk as a reader does, without searching it.

    A deep check also lets SQLite check its files, and looks at every item and vector.
    """
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    vectors = map_vectors(directory / VECTORS, manifest.vector_count, manifest.dim)
    norm_deviation(vectors)
    rows = rows_of(directory, manifest)
    with contextlib.closing(ItemsReader(directory / ITEMS, directory / THUMBNAILS)) as reader:
        reader.check(entries=manifest.entries, ids=manifest.ids)
        if deep:
            reader.check_deeply()
            _check_distinct(vectors, rows)
        if COLUMNS in manifest.files:
            _check_columns(directory, manifest, reader if deep else None)
    return manifest


def _check_columns(directory: Path, manifest: Manifest, items: ItemsReader | None) -> None:
    """Open the columns as a reader would; with the items, also compare what they say."""
    counts = {"ids": manifest.ids, "entries": manifest.entries}
    with contextlib.closing(Columns.open(directory / COLUMNS, **counts)) as columns:
        if items is None:
            return
        with contextlib.closing(Columns.of_items(items, **counts)) as wanted:
            if not columns.same_as(wanted):
                raise IndexFormatError(f"{COLUMNS} says something else than {ITEMS}")


def _check_distinct(vectors: Float[np.ndarray, "R D"], rows: Rows) -> None:
    seen: set[bytes] = set()
    for entry, (first, end) in enumerate(itertools.pairwise(rows.starts.tolist())):
        own = np.asarray(vectors[first:end])
        if len({vector.tobytes() for vector in own}) < len(own):
            raise IndexFormatError(f"{VECTORS}: entry {entry} has a vector twice")
        digest = hashlib.sha256(rows.views[first:end].tobytes() + own.tobytes()).digest()
        if digest in seen:
            raise IndexFormatError(f"{VECTORS}: entry {entry} equals an earlier one")
        seen.add(digest)


def _write_items(
    directory: Path,
    dim: int,
    planned: Iterable[Planned],
    embedded: Callable[[str], EmbeddedImage],
) -> tuple[int, int, int]:
    """Write vectors, items, thumbnails and columns; gives the numbers of ids, entries and vectors.

    Items come sorted by id, so each entry is numbered by its first id.
    """
    number_of: dict[bytes, int] = {}
    ids = 0
    columns = ColumnsWriter()
    items = ItemsWriter(directory / ITEMS, directory / THUMBNAILS)
    with (
        contextlib.closing(items),
        (directory / VECTORS).open("wb") as file,
        (directory / ROWS).open("wb") as rows,
    ):
        vectors = VectorsWriter(file, rows, dim)
        for plan in planned:
            image = embedded(plan.content_sha256)
            # sha256 stands for the vectors: no two different ones with equal digests are known.
            digest = hashlib.sha256(image.views + image.vectors).digest()
            if digest not in number_of:
                number_of[digest] = vectors.append(image.rows())
            size = (plan.bytes, image.width, image.height)
            number, content = number_of[digest], plan.content_sha256
            items.add(Item(plan.id, number, content, *size, image.format, plan.metadata))
            items.add_thumbnail(image.content_sha256, image.thumbnail)
            columns.add(number, plan.metadata)
            ids += 1
        vectors.finish()
        items.finish()
    columns.write(directory / COLUMNS).close()
    return ids, vectors.entries, vectors.count
