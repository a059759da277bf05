"""What is done to versions that exist: verify, roll back, prune, export."""

import contextlib
import csv
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from index_builder.build.embedding import EmbedderLike
from index_builder.build.writer import check_version, writing
from index_builder.errors import GalleryIndexError, IndexFormatError, IndexNotFoundError
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.manifest import MANIFEST, Manifest, read_manifest
from model.cli.files import write_aside


def verify_index(data_dir: Path, name: str, version: str | None = None) -> Manifest:
    """Check every byte of a version, what SQLite can check, and that its tables fit together.

    Without a version it is the served one, and then CURRENT is checked too. The first thing found
    wrong is an IndexFormatError that names it.
    """
    paths = layout.index_paths(data_dir, name)
    current = layout.read_current(paths) if version is None else None
    chosen = str(version) if current is None else current.version
    manifest = check_version(layout.existing_version(paths, chosen), deep=True)
    if manifest.version != chosen or (current is not None and current.seal != manifest.seal):
        raise IndexFormatError(f"{chosen}/{MANIFEST} is not the one that CURRENT or its name means")
    return manifest


def operating_points_served(data_dir: Path, name: str) -> list[str]:
    """Names of the operating points of the served version; none where it cannot be read."""
    paths = layout.index_paths(data_dir, name)
    with contextlib.suppress(GalleryIndexError):
        return read_manifest(paths.version(layout.read_current(paths).version)).operating_points
    return []


def roll_back(data_dir: Path, name: str, to: str | None = None) -> Manifest:
    """Serve the newest version below the served one, or a given one, after checking it whole.

    Raises:
        IndexNotFoundError: no such index or version, or none older.
        IndexFormatError: that version is damaged, or CURRENT is and `to` is not given.
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
        manifest = check_version(layout.existing_version(paths, to))
        if manifest.version != to:
            raise IndexFormatError(f"{to}/{MANIFEST} describes {manifest.version}: it was moved")
        layout.write_current(paths, layout.Current(to, manifest.seal))
        return manifest


def prune(data_dir: Path, name: str, keep: int) -> tuple[list[str], list[str]]:
    """Delete versions before the newest `keep`, but never the served one or one that is read.

    Returns:
        The versions deleted, and those spared only because a reader holds them.

    Raises:
        IndexFormatError: CURRENT is damaged, so that nothing can be spared safely.
    """
    paths = layout.index_paths(data_dir, name)
    layout.read_current(paths)
    deleted: list[str] = []
    spared: list[str] = []
    with writing(paths):
        served = layout.read_current(paths).version
        for version in layout.list_versions(paths)[: -max(1, keep)]:
            if version != served and _is_read(paths.version(version)):
                spared.append(version)
            elif version != served:
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
    """Every id of the served version, those of equal vectors too, by code point."""
    with GalleryIndex.open(data_dir, name) as index:
        return [item.id for item in index.items.items()]


def export_vectors(
    data_dir: Path, name: str, out: Path, embedder: EmbedderLike
) -> dict[str, object]:
    """Write what radii are computed from to a .npz file that loads without pickle.

    Arrays: `ids`, fixed-width unicode (N,), the first id of each entry, in the order of ids by code
    point; `vectors`, float32 (R, d), those of one entry together; `items`, int64 (R,), the place in
    `ids` of each; `views`, fixed-width unicode (R,), the view that each is of; `embedding_norms`,
    float64 (R,), NaN where not known; `output_scales`, float64 (d,), where the embedder is of the
    model that made the index.

    Returns:
        The numbers of entries and vectors, and whether `output_scales` are there.
    """
    with GalleryIndex.open(data_dir, name) as index:
        has_scales = embedder.fingerprint == index.manifest.model_fingerprint
        rows = index.rows
        arrays = {
            "ids": np.array(index.items.first_ids(), dtype=np.str_).reshape(index.size),
            "vectors": np.asarray(index.vectors),
            "items": rows.entries,
            "views": np.array(index.manifest.view_names)[rows.views],
            "embedding_norms": rows.embedding_norms,
        }
        if has_scales:
            arrays["output_scales"] = embedder.output_scales
        with write_aside(out) as aside, aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        return {
            "entries": index.size,
            "vectors": index.vector_count,
            "output_scales": has_scales,
        }


def export_items(data_dir: Path, name: str, out: Path) -> dict[str, object]:
    """Write what is known of each id to a .csv or .jsonl file, in the order of ids by code point.

    Lines of JSON hold the vectors too, by view; CSV has the metadata as JSON, in one column.

    Returns:
        The numbers of entries and ids.
    """
    is_csv = out.suffix.lower() == ".csv"
    with GalleryIndex.open(data_dir, name) as index, write_aside(out) as aside:
        with aside.open("w", encoding="utf-8", newline="") as file:
            if is_csv:
                writer = csv.DictWriter(file, _ITEM_COLUMNS)
                writer.writeheader()
                for fields in _item_fields(index):
                    writer.writerow({**fields, "metadata": json.dumps(fields["metadata"])})
            else:
                for fields in _item_fields(index):
                    rows = index.rows.of_entries(np.array([fields["entry"]]))
                    vectors = index.vectors[rows].tolist()
                    by_view = dict(zip(index.views(rows), vectors, strict=True))
                    file.write(json.dumps({**fields, "vectors": by_view}) + "\n")
        return {"entries": index.size, "ids": index.manifest.ids}


_ITEM_COLUMNS: tuple[str, ...] = (
    "id",
    "entry",
    "sha256",
    "bytes",
    "width",
    "height",
    "format",
    "metadata",
)


def _item_fields(index: GalleryIndex) -> Iterator[dict[str, Any]]:
    for item in index.items.items():
        values = (item.id, item.number, item.content_sha256, item.bytes, item.width, item.height)
        yield dict(zip(_ITEM_COLUMNS, (*values, item.format, item.metadata), strict=True))
