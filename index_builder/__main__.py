"""`python -m index_builder`: build and look after indexes.

Exit codes: 0 done; 1 nothing was changed, the reason is printed; 2 the command line is wrong;
3 done, but some files were quarantined; 130 interrupted, and the same command resumes.
"""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from index_builder import layout
from index_builder.build import BuildReport, build_index, remove_items
from index_builder.embedding import EmbedderLike
from index_builder.format import QUARANTINE, Manifest, read_manifest, read_quarantine
from index_builder.maintenance import export_vectors, item_ids, prune, roll_back, verify_index
from index_builder.progress import progress_for
from index_builder.sources import open_source
from model.errors import RetrievalError
from model.image import MOST_PIXELS, DecodeLimits, format_names

EXIT_ERROR = 1
EXIT_QUARANTINED = 3
EXIT_INTERRUPTED = 130
_SHOWN_QUARANTINED = 20

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

IndexOption = Annotated[str, typer.Option("--index", help="Name of the index.")]
DataDirOption = Annotated[
    Path,
    typer.Option("--data-dir", envvar="LIPSIM_DATA_DIR", help="Directory that holds the indexes."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
SourceArgument = Annotated[
    Path, typer.Argument(help="A folder, a tar or zip archive, or a .csv or .jsonl manifest.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="Weights of another model than the default.")
]
MaxErrorsOption = Annotated[
    int | None, typer.Option("--max-errors", min=0, help="Stop at more bad files than this.")
]
AllowFormatOption = Annotated[
    list[str] | None,
    typer.Option("--allow-format", help="Accept this format too, like BMP or TIFF; repeatable."),
]
AllowEmptyOption = Annotated[
    bool, typer.Option("--allow-empty", help="Let the index become empty.")
]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        "--max-image-pixels",
        envvar="LIPSIM_MAX_IMAGE_PIXELS",
        min=1,
        max=MOST_PIXELS,
        help="Quarantine pictures with more pixels; the service reads the same variable.",
    ),
]
_DEFAULT_DATA_DIR = Path("data")
_DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True)
class _Output:
    """Prints a command's outcome: text for people, or one JSON object for machines."""

    as_json: bool

    def show(self, fields: dict[str, Any], text: str) -> None:
        typer.echo(json.dumps(fields, indent=1) if self.as_json else text)

    @contextmanager
    def errors(self) -> Generator[None]:
        """The one place where errors become messages and exit codes."""
        try:
            yield
        except KeyboardInterrupt as exc:
            self._fail("Interrupted", "interrupted; run the same command to go on", exc)
        except RetrievalError as exc:
            self._fail(type(exc).__name__, str(exc), exc)
        except OSError as exc:
            where = f"{exc.filename}: " if exc.filename else ""
            self._fail(type(exc).__name__, f"{where}{exc.strerror or exc}", exc)

    def _fail(self, kind: str, message: str, cause: BaseException) -> None:
        if self.as_json:
            typer.echo(json.dumps({"error": {"type": kind, "message": message}}, indent=1))
        typer.echo(f"error: {message}", err=True)
        is_interrupt = isinstance(cause, KeyboardInterrupt)
        raise typer.Exit(EXIT_INTERRUPTED if is_interrupt else EXIT_ERROR) from cause


@app.command()
def build(  # noqa: PLR0917 (typer makes options of them)
    source: SourceArgument,
    index: IndexOption = "default",
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    checkpoint: CheckpointOption = None,
    max_errors: MaxErrorsOption = None,
    allow_format: AllowFormatOption = None,
    max_image_pixels: MaxPixelsOption = _DEFAULT_LIMITS.max_pixels,
    allow_empty: AllowEmptyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the index hold exactly SOURCE; unchanged images are not embedded again."""
    _build(
        source, index, data_dir, checkpoint, max_errors,
        limits=_limits(allow_format, max_image_pixels), as_json=as_json, union=False,
        allow_empty=allow_empty,
    )  # fmt: skip


@app.command()
def add(  # noqa: PLR0917 (likewise)
    source: SourceArgument,
    index: IndexOption = "default",
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    checkpoint: CheckpointOption = None,
    max_errors: MaxErrorsOption = None,
    allow_format: AllowFormatOption = None,
    max_image_pixels: MaxPixelsOption = _DEFAULT_LIMITS.max_pixels,
    as_json: JsonOption = False,
) -> None:
    """Make the index hold SOURCE too; an id that is there takes SOURCE's content."""
    _build(
        source, index, data_dir, checkpoint, max_errors,
        limits=_limits(allow_format, max_image_pixels), as_json=as_json, union=True,
        allow_empty=False,
    )  # fmt: skip


@app.command()
def remove(
    ids: Annotated[list[str], typer.Argument(help="Ids to take out.")],
    index: IndexOption = "default",
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Make a version without these ids; if one is unknown, nothing is removed."""
    output = _Output(as_json)
    with output.errors():
        _show_report(output, index, remove_items(data_dir, index, ids))


@app.command(name="list")
def list_command(
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    index: Annotated[str | None, typer.Option("--index", help="Only this index.")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="List the ids served instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the indexes and their versions, the served one marked; or the ids of one index."""
    output = _Output(as_json)
    with output.errors():
        if ids:
            served = item_ids(data_dir, index or "default")
            output.show({"index": index or "default", "ids": served}, "\n".join(served))
            return
        names = layout.list_indexes(data_dir) if index is None else [index]
        found = [_describe(data_dir, name) for name in names]
        lines = [
            f"{one['index']}: "
            + ", ".join(f"{v}{' (served)' if v == one['served'] else ''}" for v in one["versions"])
            for one in found
        ]
        output.show({"indexes": found}, "\n".join(lines) or f"no indexes in {data_dir}")


@app.command()
def info(
    index: IndexOption = "default",
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    version: Annotated[str | None, typer.Option("--version", help="Not the served one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the manifest and the quarantine list of the served version."""
    output = _Output(as_json)
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
            "manifest": asdict(manifest),
            "quarantined": [asdict(entry) for entry in quarantined],
        }
        lines = [f"{index} {_summary(manifest)}"]
        lines += [f"  {name}: {value}" for name, value in asdict(manifest).items()]
        lines += [f"  quarantined {q.path}: {q.code}: {q.reason}" for q in quarantined]
        output.show(fields, "\n".join(lines))


@app.command()
def verify(
    index: IndexOption = "default",
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    version: Annotated[str | None, typer.Option("--version", help="Not the served one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of the served version, and that its tables fit together."""
    output = _Output(as_json)
    with output.errors():
        manifest = verify_index(data_dir, index, version)
        output.show(
            {"index": index, "ok": True, **_counts(manifest)},
            f"{index} {_summary(manifest)}: every file is whole",
        )


@app.command()
def rollback(
    index: IndexOption = "default",
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    to: Annotated[str | None, typer.Option("--to", help="Version to serve.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the version before the served one, or a given one, after checking it."""
    output = _Output(as_json)
    with output.errors():
        manifest = roll_back(data_dir, index, to)
        output.show(
            {"index": index, **_counts(manifest)}, f"{index} now serves {_summary(manifest)}"
        )


@app.command(name="prune")
def prune_command(
    index: IndexOption = "default",
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest stay.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Delete old versions, but never the served one or one that is being read."""
    output = _Output(as_json)
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
    data_dir: DataDirOption = _DEFAULT_DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Write ids and vectors to a .npz file, one row an entry, loadable without pickle."""
    output = _Output(as_json)
    with output.errors():
        entries = export_vectors(data_dir, index, out)
        output.show(
            {"index": index, "out": str(out), "entries": entries}, f"{entries} entries in {out}"
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
    output = _Output(as_json)
    with output.errors():
        report = build_index(
            data_dir,
            index,
            open_source(source, max_bytes=limits.max_image_bytes),
            _load_embedder(checkpoint),
            source_name=str(source),
            union=union,
            limits=limits,
            max_errors=max_errors,
            allow_empty=allow_empty,
            progress=progress_for(sys.stderr),
        )
        _show_report(output, index, report)
        if report.quarantined:
            raise typer.Exit(EXIT_QUARANTINED)


def _limits(allow_format: list[str] | None, max_pixels: int) -> DecodeLimits:
    try:
        formats = format_names([*_DEFAULT_LIMITS.formats, *(allow_format or [])])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--allow-format") from error
    return DecodeLimits(max_pixels=max_pixels, formats=formats)


def _load_embedder(checkpoint: Path | None) -> EmbedderLike:
    # torch takes seconds to import, and most commands do without it.
    from model.embedder import Embedder  # noqa: PLC0415
    from model.threads import limit_threads  # noqa: PLC0415

    # The pipeline runs passes side by side.
    limit_threads(1)
    return Embedder.load(checkpoint)


def _show_report(output: _Output, index: str, report: BuildReport) -> None:
    manifest = report.manifest
    done = ", ".join(f"{count} {what}" for what, count in report.counts.items() if count)
    kept = "" if report.changed else " unchanged"
    lines = [f"{index} {_summary(manifest)}{kept} in {report.seconds:.1f} s: {done or 'no files'}"]
    shown = report.quarantined[:_SHOWN_QUARANTINED]
    lines += [f"  quarantined {q.path}: {q.code}: {q.reason}" for q in shown]
    if len(report.quarantined) > len(shown):
        lines.append(f"  and {len(report.quarantined) - len(shown)} more: see `info`")
    fields = {
        "index": index,
        **_counts(manifest),
        "counts": report.counts,
        "changed": report.changed,
        "seconds": report.seconds,
        "quarantined": [asdict(entry) for entry in report.quarantined],
    }
    output.show(fields, "\n".join(lines))


def _describe(data_dir: Path, name: str) -> dict[str, Any]:
    paths = layout.index_paths(data_dir, name)
    served = layout.read_current(paths).version
    return {"index": name, "served": served, "versions": layout.list_versions(paths)}


def _summary(manifest: Manifest) -> str:
    return f"{manifest.version} ({manifest.entries} entries, {manifest.ids} ids)"


def _counts(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "entries": manifest.entries,
        "ids": manifest.ids,
        "counts": manifest.counts,
    }


if __name__ == "__main__":
    app(prog_name="python -m index_builder")
