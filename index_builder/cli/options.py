"""What the commands share: each option written once, and how a command ends."""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from index_builder.build.embedding import EmbedderLike
from index_builder.errors import FilterError
from index_builder.filters.language import Filter, read_filter
from index_builder.sources.base import id_problem
from model.cli.console import Output
from model.pixels.decode import MOST_PIXELS, DecodeLimits, format_names

EXIT_QUARANTINED = 3

_LIMITS = DecodeLimits()
ViewSet = Literal["none", "shift", "crop", "mirror", "wide", "full"]


def path_given(text: str) -> Path:
    """A path; an empty one, of a variable that is not set, would be the folder one is in."""
    if not text:
        raise typer.BadParameter("a path was wanted, got an empty one")
    return Path(text)


def prefix_given(text: str) -> str:
    """What ids may begin with; nothing is nothing."""
    problem = id_problem(text) if text else None
    if problem is not None:
        raise typer.BadParameter(problem.reason)
    return text


def filter_given(text: str) -> Filter:
    """A filter, as JSON or as @ and a file of it."""
    try:
        return read_filter(text)
    except FilterError as error:
        raise typer.BadParameter(str(error)) from error


def ids_in(path: Path) -> list[str]:
    """The ids in a file, one a line; - is standard input."""
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return [one for one in raw.decode("utf-8").replace("\r\n", "\n").split("\n") if one]
    except UnicodeDecodeError as error:
        raise typer.BadParameter("wanted lines of UTF-8", param_hint="--ids-from") from error
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise typer.BadParameter(problem, param_hint="--ids-from") from error


SourceArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Folder, archive, .csv or .jsonl list, or pictures.",
        metavar="SOURCE",
        parser=path_given,
    ),
]
VersionOption = Annotated[str | None, typer.Option("--version", help="Not the served one.")]


@dataclass(frozen=True)
class DataOptions:
    """What every command takes: where the indexes are, and for whom it prints."""

    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", envvar="LIPSIM_DATA_DIR", help="Where the indexes are."),
    ] = Path("data")
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False

    @property
    def output(self) -> Output:
        return Output(self.as_json)


@dataclass(frozen=True)
class IndexOptions(DataOptions):
    """Beside that, one index."""

    index: Annotated[str, typer.Option("--index", help="Name of the index.")] = "default"


@dataclass(frozen=True)
class ModelOptions(IndexOptions):
    """Beside that, the model."""

    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            envvar="LIPSIM_CHECKPOINT",
            help="Weights of another model.",
            metavar="FILE",
        ),
    ] = None

    def embedder(self) -> EmbedderLike:
        """The model of the checkpoint, or the default one."""
        # torch takes seconds to import, and most commands do without it.
        from model.cli.threads import limit_threads  # noqa: PLC0415
        from model.embedder import Embedder  # noqa: PLC0415

        # The pipeline runs passes side by side.
        limit_threads(1)
        return Embedder.load(self.checkpoint)


@dataclass(frozen=True)
class PictureOptions(ModelOptions):
    """Beside that, which pictures are accepted."""

    allowed_formats: Annotated[
        str,
        typer.Option(
            "--allowed-formats",
            envvar="LIPSIM_ALLOWED_FORMATS",
            help="Formats accepted, comma-separated.",
            metavar="NAMES",
        ),
    ] = ",".join(sorted(_LIMITS.formats))
    allow_format: Annotated[
        list[str] | None,
        typer.Option("--allow-format", hidden=True, help="One more; see --allowed-formats."),
    ] = None
    max_image_pixels: Annotated[
        int,
        typer.Option(
            "--max-image-pixels",
            envvar="LIPSIM_MAX_IMAGE_PIXELS",
            min=1,
            max=MOST_PIXELS,
            help="Largest picture accepted.",
            metavar="N",
        ),
    ] = _LIMITS.max_pixels
    truncated: Annotated[
        Literal["refuse", "accept"],
        typer.Option(
            "--truncated",
            envvar="LIPSIM_TRUNCATED",
            help="JPEGs that end early: refuse or accept.",
            metavar="WORD",
        ),
    ] = "refuse"

    @property
    def limits(self) -> DecodeLimits:
        """What an image may be."""
        named = [*self.allowed_formats.split(","), *(self.allow_format or [])]
        try:
            formats = format_names(named)
        except ValueError as error:
            hint = "--allowed-formats (LIPSIM_ALLOWED_FORMATS)"
            raise typer.BadParameter(str(error), param_hint=hint) from error
        return DecodeLimits(
            max_pixels=self.max_image_pixels,
            formats=formats,
            accept_truncated=self.truncated == "accept",
        )


@dataclass(frozen=True)
class BuildOptions(PictureOptions):
    """Beside that, how pictures are seen, and when to give up."""

    views: Annotated[
        ViewSet | None,
        typer.Option(
            "--views",
            help="none, shift, crop, mirror, wide (usual), full.",
            metavar="SET",
        ),
    ] = None

    prefix: Annotated[
        str,
        typer.Option(
            "--prefix",
            callback=prefix_given,
            help="Put before every id, like `shop-1/`.",
            metavar="TEXT",
        ),
    ] = ""
    max_errors: Annotated[
        int | None,
        typer.Option("--max-errors", min=0, help="Stop at more bad files.", metavar="N"),
    ] = None


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], None]:
    """Make a command of a function whose parameter `options` is one of the classes above.

    On the command line each member is an option; errors become messages and exit codes.
    """

    def register(function: Callable[..., None]) -> None:
        own = inspect.signature(function).parameters
        kind = own["options"].annotation
        members = fields(kind)
        options = [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type
            )
            for one in members
        ]
        arguments = [one for one in own.values() if one.name != "options"]

        @functools.wraps(function)
        def run(**values: Any) -> None:
            chosen = kind(**{one.name: values.pop(one.name) for one in members})
            with chosen.output.errors():
                function(**values, options=chosen)

        run.__signature__ = inspect.Signature([*arguments, *options])  # pyright: ignore[reportAttributeAccessIssue]
        app.command(name)(run)

    return register
