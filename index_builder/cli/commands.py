"""Build and look after indexes.

Variables that the service reads too (LIPSIM_DATA_DIR, LIPSIM_CHECKPOINT, ...) are the defaults.

Exit codes: 0 done; 1 nothing was changed, the reason is printed; 2 the command line is wrong;
3 done, but some files were quarantined; 130 interrupted, and the same command resumes.
"""

import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from index_builder.build.build import build_index, remove_items
from index_builder.build.maintenance import (
    export_items,
    export_vectors,
    item_ids,
    operating_points_served,
    prune,
    roll_back,
    verify_index,
)
from index_builder.calibration.measure import calibrate_index
from index_builder.calibration.queries import LabelledPairs, SyntheticPairs
from index_builder.cli import options as taken
from index_builder.cli import reports
from index_builder.cli.options import IndexOptions, SourceArgument, VersionOption
from index_builder.filters.language import Filter
from index_builder.sources.base import PrefixedSource
from index_builder.sources.open_source import is_picture, name_of, open_sources
from index_builder.store import layout
from index_builder.store.operating_points import LARGEST_K, MOST_QUERIES, MOST_SEED
from model.certificate.statistic import COSINE_WEIGHTS, LARGEST_COSINE_WEIGHT
from model.cli.console import counted
from model.cli.progress import Progress
from model.pixels.views import VIEW_SETS

# Of as many pictures, each half has the 2995 negatives that a claim of 0.1 % takes.
_DEFAULT_QUERIES = 6400

# Plain help: panels leave a third of the line to the words.
app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
command = functools.partial(taken.command, app)


@command()
def build(
    source: SourceArgument,
    *,
    options: taken.BuildOptions,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Let the index become empty.")
    ] = False,
) -> None:
    """Make the index hold exactly SOURCE; unchanged images are not embedded again."""
    _build(source, options, allow_empty=allow_empty)


@command()
def add(source: SourceArgument, *, options: taken.BuildOptions) -> None:
    """Make the index hold SOURCE too; an id that is there takes SOURCE's content."""
    _build(source, options, union=True)


def _build(
    source: list[Path],
    options: taken.BuildOptions,
    *,
    union: bool = False,
    allow_empty: bool = False,
) -> None:
    limits = options.limits
    collection = open_sources(source, max_bytes=limits.max_image_bytes)
    report = build_index(
        options.data_dir,
        options.index,
        PrefixedSource(collection, options.prefix) if options.prefix else collection,
        options.embedder(),
        source_name=name_of(source),
        union=union,
        views=None if options.views is None else VIEW_SETS[options.views],
        limits=limits,
        max_errors=options.max_errors,
        allow_empty=allow_empty,
        progress=Progress(sys.stderr),
    )
    reports.show_report(options.output, options.index, report)
    if report.quarantined:
        raise typer.Exit(taken.EXIT_QUARANTINED)


@command()
def remove(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids to take out.")] = None,
    *,
    options: IndexOptions,
    ids_from: Annotated[
        Path | None,
        typer.Option(
            "--ids-from",
            help="Those in a file, one a line, as `list --ids` prints them; - is standard input.",
            metavar="FILE",
            parser=taken.path_given,
        ),
    ] = None,
    matching: Annotated[
        Filter | None,
        typer.Option(
            "--filter",
            parser=taken.filter_given,
            help="Those of items that match: JSON (docs/filters.md), or @FILE of it.",
            metavar="JSON",
        ),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Let a filter take every item.")
    ] = False,
) -> None:
    """Make a version without these ids; if one is unknown, nothing is removed."""
    if not ids and ids_from is None and matching is None:
        raise typer.BadParameter("give ids, --ids-from or --filter", param_hint="IDS")
    report = remove_items(
        options.data_dir,
        options.index,
        [*(ids or []), *(taken.ids_in(ids_from) if ids_from is not None else [])],
        matching=matching,
        allow_empty=allow_empty,
    )
    reports.show_report(options.output, options.index, report)


@command("list")
def list_command(
    *,
    options: taken.DataOptions,
    index: Annotated[str | None, typer.Option("--index", help="Only this index.")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="List the ids served instead.")] = False,
) -> None:
    """List the indexes and their versions, the served one marked; or the ids of one index."""
    if ids:
        served = item_ids(options.data_dir, index or "default")
        fields = {"index": index or "default", "ids": served}
        options.output.show(fields, reports.as_lines(served))
    else:
        reports.show_indexes(options.output, options.data_dir, index)


@command()
def info(*, options: IndexOptions, version: VersionOption = None) -> None:
    """Show the manifest and the quarantine list of the served version."""
    paths = layout.index_paths(options.data_dir, options.index)
    reports.show_version(options.output, paths, version or layout.read_current(paths).version)


@command()
def verify(*, options: IndexOptions, version: VersionOption = None) -> None:
    """Check every byte of the served version, and that its tables fit together."""
    manifest = verify_index(options.data_dir, options.index, version)
    options.output.show(
        {"index": options.index, "ok": True, **reports.counts_of(manifest)},
        f"{options.index} {reports.summary(manifest)}: every file is whole",
    )


@command()
def rollback(
    *,
    options: IndexOptions,
    to: Annotated[str | None, typer.Option("--to", help="Version to serve.")] = None,
    misplaced: Annotated[str | None, typer.Argument(hidden=True)] = None,
    misnamed: Annotated[str | None, typer.Option("--version", hidden=True)] = None,
) -> None:
    """Serve the version numbered before the served one, or a given one, after checking it.

    By number alone: after another rollback it may be the one that was left then. `list` shows them.
    """
    if meant := misplaced or misnamed:
        raise typer.BadParameter(f"the version is given as --to {meant} (`list` shows them)")
    before = operating_points_served(options.data_dir, options.index)
    manifest = roll_back(options.data_dir, options.index, to)
    gone = [name for name in before if name not in manifest.operating_points]
    text = f"{options.index} now serves {reports.summary(manifest)}"
    if gone:
        text += f"; it has no operating points {', '.join(gone)}"
    fields = {"index": options.index, **reports.counts_of(manifest)}
    options.output.show({**fields, "operating_points_dropped": gone}, text)


@command("prune")
def prune_command(
    *,
    options: IndexOptions,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest stay.")] = 3,
) -> None:
    """Delete old versions, but never the served one or one that is being read.

    Answers of a deleted version cannot be replayed any more.
    """
    deleted, spared = prune(options.data_dir, options.index, keep)
    text = f"{options.index}: deleted {', '.join(deleted) or 'nothing'}"
    if spared:
        text += f"; still being read: {', '.join(spared)}"
    options.output.show({"index": options.index, "deleted": deleted, "in_use": spared}, text)


@command()
def export(
    out: Annotated[
        Path,
        typer.Argument(
            help="The .npz, .jsonl or .csv file to write.", metavar="OUT", parser=taken.path_given
        ),
    ],
    *,
    options: taken.ModelOptions,
) -> None:
    """Write ids and vectors to a file; the end of its name says which.

    .npz: vectors and what radii are made of, loadable without pickle; an entry has one id there,
    as files that are equal bit for bit are one entry. .jsonl: every id, its metadata, its vectors,
    a line each. .csv: every id and its metadata.
    """
    suffix = out.suffix.lower()
    if suffix in {".csv", ".jsonl"}:
        written = export_items(options.data_dir, options.index, out)
        text = f"{counted(int(str(written['ids'])), 'id')} in {out}"
    elif suffix == ".npz":
        written = export_vectors(options.data_dir, options.index, out, options.embedder())
        text = f"{written['entries']} entries, {written['vectors']} vectors in {out}"
        if not written["output_scales"]:
            text += "; no output_scales: another model made the index, name its --checkpoint"
    else:
        raise typer.BadParameter(f"OUT ends in .npz, .jsonl or .csv, got {out.name!r}")
    options.output.show({"index": options.index, "out": str(out), **written}, text)


@command()
def calibrate(
    source: Annotated[
        list[Path] | None,
        typer.Argument(
            help="What the index was built from, as for `build`, each that was added too; edited "
            "copies are made.",
            metavar="SOURCE",
            parser=taken.path_given,
        ),
    ] = None,
    *,
    options: taken.PictureOptions,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            help="Instead of SOURCE: a CSV list with columns path (of a query), id (of its "
            "original, or empty) and, if wanted, kind.",
            metavar="FILE",
            parser=taken.path_given,
        ),
    ] = None,
    queries: Annotated[
        int,
        typer.Option(
            "--queries", min=1, max=MOST_QUERIES, help="How many copies to make.", metavar="N"
        ),
    ] = _DEFAULT_QUERIES,
    k: Annotated[
        int,
        typer.Option(
            "--k",
            min=1,
            max=LARGEST_K,
            help="Of the search whose margin is meant: one more than the near-duplicates that a "
            "picture has.",
            metavar="K",
        ),
    ] = 1,
    cosine_weight: Annotated[
        float | None,
        typer.Option(
            "--cosine-weight",
            min=0.0,
            max=LARGEST_COSINE_WEIGHT,
            help="Of the cosine beside the margin; without it, the best of"
            f" {', '.join(f'{weight:g}' for weight in COSINE_WEIGHTS)}.",
            metavar="W",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, max=MOST_SEED, help="Of edits and halves.", metavar="N"),
    ] = 0,
) -> None:
    """Measure which margin means "copy" here; write a version with named operating points."""
    limits = options.limits
    if source and pairs is None:
        # As `build` took them: pictures are one collection, and some may have been quarantined.
        pictures = [one for one in source if one.is_file() and is_picture(one)]
        collections = [[one] for one in source if one not in pictures] + [pictures] * bool(pictures)
        openers = {
            name_of(paths): functools.partial(open_sources, paths, max_bytes=limits.max_image_bytes)
            for paths in collections
        }
        chosen = SyntheticPairs(openers, source=name_of(source), queries=queries)
    elif pairs is not None and not source:
        chosen = LabelledPairs(pairs)
    else:
        raise typer.BadParameter("give either SOURCE or --pairs", param_hint="SOURCE")
    report = calibrate_index(
        options.data_dir,
        options.index,
        chosen,
        options.embedder(),
        k=k,
        cosine_weight=cosine_weight,
        seed=seed,
        limits=limits,
        progress=Progress(sys.stderr),
    )
    reports.show_calibration(options.output, options.index, report)
