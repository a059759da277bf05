"""`python -m index_builder`: build and look after indexes.

Exit codes: 0 done; 1 nothing was changed, the reason is printed; 2 the command line is wrong;
3 done, but some files were quarantined; 130 interrupted, and the same command resumes.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from index_builder.build.build import build_index, remove_items
from index_builder.build.maintenance import export_vectors, item_ids, prune, roll_back, verify_index
from index_builder.calibration.measure import calibrate_index
from index_builder.calibration.queries import LabelledPairs, SyntheticPairs
from index_builder.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_FORMATS,
    DEFAULT_LIMITS,
    EXIT_QUARANTINED,
    AllowEmptyOption,
    AllowFormatOption,
    CheckpointOption,
    DataDirOption,
    FormatsOption,
    IndexOption,
    JsonOption,
    MaxErrorsOption,
    MaxPixelsOption,
    SourceArgument,
    TruncatedOption,
    as_lines,
    limits_from,
    load_embedder,
)
from index_builder.cli.reports import (
    counts_of,
    describe_index,
    described,
    show_calibration,
    show_report,
    summary,
)
from index_builder.sources.base import open_source
from index_builder.store import layout
from index_builder.store.manifest import QUARANTINE, read_manifest, read_quarantine
from index_builder.store.operating_points import (
    LARGEST_K,
    MOST_QUERIES,
    MOST_SEED,
    describe,
)
from model.cli.console import Output
from model.cli.progress import Progress
from model.pixels.decode import DecodeLimits

# Of as many pictures, each half has the 2995 negatives that a claim of 0.1 % takes.
_DEFAULT_QUERIES = 6400

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.command()
def build(  # noqa: PLR0917 (typer makes options of them)
    source: SourceArgument,
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    checkpoint: CheckpointOption = None,
    max_errors: MaxErrorsOption = None,
    allowed_formats: FormatsOption = DEFAULT_FORMATS,
    allow_format: AllowFormatOption = None,
    max_image_pixels: MaxPixelsOption = DEFAULT_LIMITS.max_pixels,
    truncated: TruncatedOption = "refuse",
    allow_empty: AllowEmptyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the index hold exactly SOURCE; unchanged images are not embedded again."""
    _build(
        source, index, data_dir, checkpoint, max_errors, as_json=as_json,
        limits=limits_from(allowed_formats, allow_format, max_image_pixels, truncated),
        union=False, allow_empty=allow_empty,
    )  # fmt: skip


@app.command()
def add(  # noqa: PLR0917 (likewise)
    source: SourceArgument,
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    checkpoint: CheckpointOption = None,
    max_errors: MaxErrorsOption = None,
    allowed_formats: FormatsOption = DEFAULT_FORMATS,
    allow_format: AllowFormatOption = None,
    max_image_pixels: MaxPixelsOption = DEFAULT_LIMITS.max_pixels,
    truncated: TruncatedOption = "refuse",
    as_json: JsonOption = False,
) -> None:
    """Make the index hold SOURCE too; an id that is there takes SOURCE's content."""
    _build(
        source, index, data_dir, checkpoint, max_errors, as_json=as_json,
        limits=limits_from(allowed_formats, allow_format, max_image_pixels, truncated),
        union=True, allow_empty=False,
    )  # fmt: skip


@app.command()
def remove(
    ids: Annotated[list[str], typer.Argument(help="Ids to take out.")],
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Make a version without these ids; if one is unknown, nothing is removed."""
    output = Output(as_json)
    with output.errors():
        show_report(output, index, remove_items(data_dir, index, ids))


@app.command(name="list")
def list_command(
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    index: Annotated[str | None, typer.Option("--index", help="Only this index.")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="List the ids served instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the indexes and their versions, the served one marked; or the ids of one index."""
    output = Output(as_json)
    with output.errors():
        if ids:
            served = item_ids(data_dir, index or "default")
            output.show({"index": index or "default", "ids": served}, as_lines(served))
            return
        names = layout.list_indexes(data_dir) if index is None else [index]
        found = [describe_index(data_dir, name) for name in names]
        lines = [
            f"{one['index']}: "
            + ", ".join(f"{v}{' (served)' if v == one['served'] else ''}" for v in one["versions"])
            for one in found
        ]
        output.show({"indexes": found}, as_lines(lines) or f"no indexes in {data_dir}")


@app.command()
def info(
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    version: Annotated[str | None, typer.Option("--version", help="Not the served one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the manifest and the quarantine list of the served version."""
    output = Output(as_json)
    with output.errors():
        paths = layout.index_paths(data_dir, index)
        chosen = version or layout.read_current(paths).version
        directory = layout.existing_version(paths, chosen)
        manifest = read_manifest(directory)
        quarantined = read_quarantine(directory / QUARANTINE)
        fields = {
            "index": index,
            "path": str(directory),
            "versions": layout.list_versions(paths),
            "manifest": described(manifest),
            "quarantined": [asdict(entry) for entry in quarantined],
        }
        lines = [f"{index} {summary(manifest)}"]
        shown = {name: value for name, value in asdict(manifest).items() if name != "calibration"}
        lines += [f"  {name}: {value}" for name, value in shown.items()]
        if manifest.calibration is not None:
            lines += [f"  {line}" for line in describe(manifest.calibration)]
        lines += [f"  quarantined {q.path}: {q.code}: {q.reason}" for q in quarantined]
        output.show(fields, as_lines(lines))


@app.command()
def verify(
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    version: Annotated[str | None, typer.Option("--version", help="Not the served one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of the served version, and that its tables fit together."""
    output = Output(as_json)
    with output.errors():
        manifest = verify_index(data_dir, index, version)
        output.show(
            {"index": index, "ok": True, **counts_of(manifest)},
            f"{index} {summary(manifest)}: every file is whole",
        )


@app.command()
def rollback(
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    to: Annotated[str | None, typer.Option("--to", help="Version to serve.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the version before the served one, or a given one, after checking it."""
    output = Output(as_json)
    with output.errors():
        manifest = roll_back(data_dir, index, to)
        output.show(
            {"index": index, **counts_of(manifest)}, f"{index} now serves {summary(manifest)}"
        )


@app.command(name="prune")
def prune_command(
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest stay.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Delete old versions, but never the served one or one that is being read."""
    output = Output(as_json)
    with output.errors():
        deleted, spared = prune(data_dir, index, keep)
        text = f"{index}: deleted {', '.join(deleted) or 'nothing'}"
        if spared:
            text += f"; still being read: {', '.join(spared)}"
        output.show({"index": index, "deleted": deleted, "in_use": spared}, text)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Write ids and vectors to a .npz file, one row an entry, loadable without pickle."""
    output = Output(as_json)
    with output.errors():
        entries = export_vectors(data_dir, index, out)
        output.show(
            {"index": index, "out": str(out), "entries": entries}, f"{entries} entries in {out}"
        )


@app.command()
def calibrate(  # noqa: PLR0917 (likewise)
    source: Annotated[
        Path | None,
        typer.Argument(help="The collection the index was built from; edited copies are made."),
    ] = None,
    index: IndexOption = "default",
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            help="Instead of SOURCE: a CSV list with columns path (of a query, relative to the "
            "list), id (of its original, or empty) and, if wanted, kind.",
        ),
    ] = None,
    queries: Annotated[
        int,
        typer.Option("--queries", min=1, max=MOST_QUERIES, help="How many copies to make."),
    ] = _DEFAULT_QUERIES,
    k: Annotated[
        int,
        typer.Option(
            "--k",
            min=1,
            max=LARGEST_K,
            help="Threshold the margin of a search with this k: one more than the near-duplicates "
            "that a picture has in the gallery.",
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MOST_SEED, help="Of edits and halves.")
    ] = 0,
    checkpoint: CheckpointOption = None,
    allowed_formats: FormatsOption = DEFAULT_FORMATS,
    allow_format: AllowFormatOption = None,
    max_image_pixels: MaxPixelsOption = DEFAULT_LIMITS.max_pixels,
    truncated: TruncatedOption = "refuse",
    as_json: JsonOption = False,
) -> None:
    """Measure which margin means "copy" here; write a version with named operating points."""
    if (source is None) == (pairs is None):
        raise typer.BadParameter("give either SOURCE or --pairs", param_hint="SOURCE")
    output = Output(as_json)
    limits = limits_from(allowed_formats, allow_format, max_image_pixels, truncated)
    with output.errors():
        chosen = LabelledPairs(pairs) if pairs is not None else _copies_of(source, queries, limits)
        report = calibrate_index(
            data_dir,
            index,
            chosen,
            load_embedder(checkpoint),
            k=k,
            seed=seed,
            limits=limits,
            progress=Progress(sys.stderr),
        )
        show_calibration(output, index, report)


def _copies_of(source: Path | None, queries: int, limits: DecodeLimits) -> SyntheticPairs:
    assert source is not None  # noqa: S101 (the command line has one of the two)
    return SyntheticPairs(
        lambda: open_source(source, max_bytes=limits.max_image_bytes),
        source=str(source),
        queries=queries,
    )


def _build(
    source: Path,
    index: str,
    data_dir: Path,
    checkpoint: Path | None,
    max_errors: int | None,
    *,
    limits: DecodeLimits,
    as_json: bool,
    union: bool,
    allow_empty: bool,
) -> None:
    output = Output(as_json)
    with output.errors():
        report = build_index(
            data_dir,
            index,
            open_source(source, max_bytes=limits.max_image_bytes),
            load_embedder(checkpoint),
            source_name=str(source),
            union=union,
            limits=limits,
            max_errors=max_errors,
            allow_empty=allow_empty,
            progress=Progress(sys.stderr),
        )
        show_report(output, index, report)
        if report.quarantined:
            raise typer.Exit(EXIT_QUARANTINED)


if __name__ == "__main__":
    app(prog_name="python -m index_builder")
