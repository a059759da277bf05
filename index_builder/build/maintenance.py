"""What is done to versions that exist: verify, roll back, prune, export."""

import contextlib
import fcntl
import os
from pathlib import Path

import numpy as np

from index_builder.build.writer import check_version, point_current, writing
from index_builder.errors import GalleryIndexError, IndexFormatError, IndexNotFoundError
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.manifest import MANIFEST, Manifest, read_manifest
from model.cli.files import write_aside


def verify_index(data_dir: Path, name: str, version: str | None = None) -> Manifest:
    """Check every byte of a version, what SQLite can check, and that its tables fit together.

    Args:
        data_dir: the directory that holds `indexes/`.
        name: of the index.
        version: which; None means the served one, and then CURRENT is checked too.

    Raises:
        IndexNotFoundError: no such index or version.
        IndexFormatError: anything is wrong; the message names it.
    """
    paths = layout.index_paths(data_dir, name)
    current = layout.read_current(paths) if version is None else None
    chosen = str(version) if current is None else current.version
    manifest = check_version(layout.existing_version(paths, chosen), deep=True)
    if manifest.version != chosen or (current is not None and current.seal != manifest.seal()):
        raise IndexFormatError(f"{chosen}/{MANIFEST} is not the one that CURRENT or its name means")
    return manifest


def operating_points_served(data_dir: Path, name: str) -> list[str]:
    """Names of the operating points of the served version; none where it cannot be read."""
    paths = layout.index_paths(data_dir, name)
    with contextlib.suppress(GalleryIndexError):
        return read_manifest(paths.version(layout.read_current(paths).version)).operating_points
    return []


def roll_back(data_dir: Path, name: str, to: str | None = None) -> Manifest:
    """Serve an older version again, or any given one, after checking it whole.

    Args:
        data_dir: the directory that holds `indexes/`.
        name: of the index.
        to: which version; None means the newest below the served one.

    Raises:
        IndexNotFoundError: no such index or version, or none older.
        IndexFormatError: that version is damaged, or CURRENT is and `to` is not given.
        IndexLockedError: another writer is at work.
    """
    paths = layout.index_paths(data_dir, name)
    versions = layout.list_versions(paths)
    if not versions:
        layout.read_current(paths)  # says that there is no such index
    with writing(paths):
        if to is None:
            served = layout.version_number(layout.read_current(paths).version)
            older = [v for v in versions if layout.version_number(v) < served]
            if not older:
                raise IndexNotFoundError(f"index {name!r} has no version older than v{served:06d}")
            to = older[-1]
        return point_current(paths, to)


def prune(data_dir: Path, name: str, keep: int) -> tuple[list[str], list[str]]:
    """Delete old versions, but never the served one, the newest, or one that is being read.

    Args:
        data_dir: the directory that holds `indexes/`.
        name: of the index.
        keep: how many of the newest stay, at least 1.

    Returns:
        The versions deleted, and those spared only because a reader holds them.

    Raises:
        IndexNotFoundError: no such index.
        IndexFormatError: CURRENT is damaged, so that nothing can be spared safely.
        IndexLockedError: another writer is at work.
    """
    paths = layout.index_paths(data_dir, name)
    layout.read_current(paths)
    deleted: list[str] = []
    spared: list[str] = []
    with writing(paths):
        served = layout.read_current(paths).version
        for version in layout.list_versions(paths)[: -max(1, keep)]:
            if version == served:
                continue
            if _is_read(paths.version(version)):
                spared.append(version)
            else:
                layout.delete_version(paths, version)
                deleted.append(version)
    return deleted, spared


def _is_read(directory: Path) -> bool:
    """Whether a reader holds the version: it locks the manifest for as long as it is open."""
    try:
        descriptor = os.open(directory / MANIFEST, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False  # damaged: nobody can have opened it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def item_ids(data_dir: Path, name: str) -> list[str]:
    """Every id of the served version, those of equal vectors too, by code point.

    Raises:
        IndexNotFoundError: no such index.
        IndexFormatError: it is damaged.
    """
    with GalleryIndex.open(data_dir, name) as index:
        return [item.id for item in index.items.items()]


def export_vectors(data_dir: Path, name: str, out: Path) -> int:
    """Write the served version's ids and vectors to a .npz file that loads without pickle.

    Arrays: `ids`, fixed-width unicode (N,), the first id of each entry; `vectors`, float32 (N, d);
    both in the order of rows, which is the order of ids by code point.

    Returns:
        N.

    Raises:
        IndexNotFoundError: no such index.
        IndexFormatError: it is damaged.
    """
    with GalleryIndex.open(data_dir, name) as index:
        ids = np.array(index.items.first_ids(), dtype=np.str_).reshape(index.size)
        with write_aside(out) as aside, aside.open("wb") as file:
            np.savez(file, ids=ids, vectors=np.asarray(index.vectors))
        return index.size
