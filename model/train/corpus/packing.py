"""A corpus on disk: shards, licences and corpus.json, written aside and renamed when whole."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import features

from model.data.shards import ShardWriter
from model.errors import CorpusError
from model.pixels.decode import DECODE_POLICY_VERSION
from model.train.corpus.packages import Unpacked
from model.train.corpus.pictures import Prepared, Refused
from model.train.corpus.recipe import SPLITS, Recipe

MANIFEST = "corpus.json"
LICENCES = "licences"
FORMAT = "lipsim-corpus-1"
_MOST_LISTED = 500


@contextlib.contextmanager
def written_aside(out: Path) -> Generator[Path]:
    """A folder to write into, which becomes `out` when all went well and vanishes when not.

    Raises:
        CorpusError: there is something at `out` already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CorpusError(f"{out} is there already; name another place or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.building-"))
    try:
        yield aside
        aside.chmod(0o755)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def pack(
    directory: Path,
    recipe: Recipe,
    pictures: Sequence[Prepared],
    refused: Sequence[Refused],
    *,
    packages: Sequence[Unpacked],
    licences: Mapping[str, str],
) -> dict[str, Any]:
    """Write everything into a folder.

    Args:
        directory: an empty one.
        recipe: what was asked for.
        pictures: what there is.
        refused: what there is not, and why.
        packages: where it was taken from.
        licences: text by source.

    Returns:
        What corpus.json says.
    """
    shards = [path for split in SPLITS for path in _write_split(directory, split, pictures)]
    (directory / LICENCES).mkdir()
    for source, text in licences.items():
        (directory / LICENCES / f"{source}.txt").write_text(text, encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "versions": _versions(),
        "packages": [
            {
                "name": one.name,
                "version": one.version,
                "sha256": one.sha256,
                "size_bytes": one.size_bytes,
                "is_recorded": one.is_recorded,
            }
            for one in packages
        ],
        "counts": _counts(pictures),
        "labels": _label_counts(pictures),
        "refused": _refusals(refused),
        "shards": {path.name: _sha256(path) for path in shards},
        "test_files": held_out_files(pictures),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def held_out_files(pictures: Iterable[Prepared]) -> list[dict[str, str]]:
    """The files that pictures of the test split come from, ascending by sha256."""
    found = {(one.sha256, one.source, one.path) for one in pictures if one.split == "test"}
    return [{"sha256": s, "source": source, "path": path} for s, source, path in sorted(found)]


def write_hashes(manifest: Mapping[str, Any], path: Path) -> None:
    """Lines `sha256  source  path` of the test split's files, to be committed before training."""
    lines = [f"{one['sha256']}  {one['source']}  {one['path']}" for one in manifest["test_files"]]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_split(directory: Path, split: str, pictures: Sequence[Prepared]) -> list[Path]:
    """The shards of one split, its pictures ascending by key."""
    with ShardWriter(directory, split) as writer:
        for one in sorted((p for p in pictures if p.split == split), key=lambda p: p.key):
            writer.add(one.key, one.image, "webp", one.fields)
    return writer.paths


def _counts(pictures: Sequence[Prepared]) -> dict[str, Any]:
    """Pictures by split: in all, by source and by kind."""
    return {
        split: {
            "all": sum(one.split == split for one in pictures),
            "by_source": _tally(one.source for one in pictures if one.split == split),
            "by_kind": _tally(one.kind for one in pictures if one.split == split),
        }
        for split in SPLITS
    }


def _label_counts(pictures: Sequence[Prepared]) -> dict[str, int]:
    """How many labels each split has."""
    return {
        split: len({one.label for one in pictures if one.split == split} - {None})
        for split in SPLITS
    }


def _refusals(refused: Sequence[Refused]) -> dict[str, Any]:
    """Counts by source and reason, and the first of the list."""
    by_source = {
        source: _tally(one.reason for one in refused if one.source == source)
        for source in sorted({one.source for one in refused})
    }
    return {
        "all": len(refused),
        "by_reason": _tally(one.reason for one in refused),
        "by_source": by_source,
        "first": [asdict(one) for one in refused[:_MOST_LISTED]],
    }


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _versions() -> dict[str, str | None]:
    """What the bytes of the shards depend on beside the recipe."""
    return {
        "decode_policy": DECODE_POLICY_VERSION,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "libwebp": features.version("webp"),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
