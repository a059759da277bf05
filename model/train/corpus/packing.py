"""A corpus on disk: a folder of pictures a split, licences and corpus.json."""

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import features

from model.cli.files import sha256_of, write_aside
from model.data.pictures import LIST
from model.errors import CorpusError
from model.pixels.decode import DECODE_POLICY_VERSION
from model.train.corpus.packages import Unpacked
from model.train.corpus.pictures import Prepared, Refused
from model.train.corpus.recipe import SPLITS, Recipe, Source

MANIFEST = "corpus.json"
LICENCES = "licences"
FORMAT = "lipsim-corpus-2"
_MOST_LISTED = 500


@contextlib.contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """A folder to write into, which becomes `out` when all went well and vanishes when not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CorpusError(f"{out} is there already; name another place or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(out) as aside:
        aside.mkdir()
        yield aside


def pack(
    directory: Path,
    recipe: Recipe,
    pictures: Sequence[Prepared],
    refused: Sequence[Refused],
    *,
    packages: Sequence[Unpacked],
    licences: Mapping[str, str],
) -> dict[str, Any]:
    """Write everything into an empty folder, with licences' texts by source.

    Returns:
        What corpus.json says.
    """
    lists = [path for split in SPLITS for path in _write_split(directory, split, pictures)]
    (directory / LICENCES).mkdir()
    for source, text in licences.items():
        (directory / LICENCES / f"{source}.txt").write_text(text, encoding="utf-8")
    test_files = {(one.sha256, one.source, one.path) for one in pictures if one.split == "test"}
    manifest = {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        # What the bytes of the pictures depend on beside the recipe.
        "versions": {
            "decode_policy": DECODE_POLICY_VERSION,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "libwebp": features.version("webp"),
        },
        "packages": [
            {name: value for name, value in one._asdict().items() if name != "directory"}
            for one in packages
        ],
        "counts": {split: _counts(pictures, split) for split in SPLITS},
        "refused": _refusals(refused),
        "lists": {path.relative_to(directory).as_posix(): sha256_of(path) for path in lists},
        "test_files": [
            {"sha256": sha256, "source": source, "path": path}
            for sha256, source, path in sorted(test_files)
        ],
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def write_hashes(manifest: Mapping[str, Any], path: Path) -> None:
    """Lines `sha256  source  path` of the test split's files, to be committed before training."""
    lines = [f"{one['sha256']}  {one['source']}  {one['path']}" for one in manifest["test_files"]]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def licence_text(source: Source, base: Path) -> str:
    """What stands in licences/SOURCE.txt: the name, the role, and the text where there is one.

    The recipe's `licence_file` is relative to `base`, the package's or folder's top.
    """
    head = f"source: {source.name}\nlicence: {source.licence}\nrole: {source.role}\n"
    if source.role == "evaluate-only":
        head += "Made to be measured with on this machine; not to be handed on.\n"
    if not source.licence_file:
        return head
    path = base / source.licence_file
    if not path.is_file():
        raise CorpusError(f"source {source.name}: its licence file {path} is not there")
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    return f"{head}\n{data.decode('utf-8', errors='replace')}"


def _write_split(directory: Path, split: str, pictures: Sequence[Prepared]) -> list[Path]:
    """The pictures of one split beside their list, by key; nothing where there are none."""
    own = sorted((one for one in pictures if one.split == split), key=lambda one: one.key)
    if not own:
        return []
    folder = directory / split
    folder.mkdir()
    lines: list[str] = []
    for one in own:
        file = f"{one.key}.webp"
        (folder / file).write_bytes(one.image)
        entry = {"id": one.key, "path": file, **one.fields}
        lines.append(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
    (folder / LIST).write_text("".join(lines), encoding="utf-8")
    return [folder / LIST]


def _counts(pictures: Sequence[Prepared], split: str) -> dict[str, Any]:
    """Pictures of a split: in all, by source and by kind; and how many labels it has."""
    own = [one for one in pictures if one.split == split]
    return {
        "all": len(own),
        "by_source": _tally(one.source for one in own),
        "by_kind": _tally(one.kind for one in own),
        "labels": len({one.label for one in own} - {None}),
    }


def _refusals(refused: Sequence[Refused]) -> dict[str, Any]:
    """Counts by source and reason, and the first of the list."""
    sources = sorted({one.source for one in refused})
    return {
        "all": len(refused),
        "by_reason": _tally(one.reason for one in refused),
        "by_source": {
            source: _tally(one.reason for one in refused if one.source == source)
            for source in sources
        },
        "first": [one._asdict() for one in refused[:_MOST_LISTED]],
    }


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
