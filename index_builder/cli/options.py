"""What the commands share: their options, and what they stand for."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from index_builder.build.embedding import EmbedderLike
from model.pixels.decode import MOST_PIXELS, DecodeLimits, format_names

EXIT_QUARANTINED = 3

Truncated = Literal["refuse", "accept"]

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
    Path | None,
    typer.Option(
        "--checkpoint",
        envvar="LIPSIM_CHECKPOINT",
        help="Weights of another model than the default; the service reads the same variable.",
    ),
]
MaxErrorsOption = Annotated[
    int | None, typer.Option("--max-errors", min=0, help="Stop at more bad files than this.")
]
FormatsOption = Annotated[
    str,
    typer.Option(
        "--allowed-formats",
        envvar="LIPSIM_ALLOWED_FORMATS",
        help="Formats accepted, comma-separated; the service reads the same variable.",
    ),
]
AllowFormatOption = Annotated[
    list[str] | None,
    typer.Option("--allow-format", help="Accept this format too, like BMP or TIFF; repeatable."),
]
TruncatedOption = Annotated[
    Truncated,
    typer.Option(
        "--truncated",
        envvar="LIPSIM_TRUNCATED",
        help="A JPEG that ends early: refuse quarantines it, accept takes what there is of it; the "
        "service reads the same variable.",
    ),
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
DEFAULT_DATA_DIR = Path("data")
DEFAULT_LIMITS = DecodeLimits()
DEFAULT_FORMATS = ",".join(sorted(DEFAULT_LIMITS.formats))


def limits_from(
    allowed: str, further: list[str] | None, max_pixels: int, truncated: Truncated
) -> DecodeLimits:
    """What an image may be, as the command line says it.

    Args:
        allowed: formats, comma-separated.
        further: formats beside those.
        max_pixels: width times height.
        truncated: what becomes of a file that ends early.

    Raises:
        typer.BadParameter: a format that no image may have.
    """
    try:
        formats = format_names([*allowed.split(","), *(further or [])])
    except ValueError as error:
        hint = "--allowed-formats (LIPSIM_ALLOWED_FORMATS), --allow-format"
        raise typer.BadParameter(str(error), param_hint=hint) from error
    return DecodeLimits(
        max_pixels=max_pixels, formats=formats, accept_truncated=truncated == "accept"
    )


def load_embedder(checkpoint: Path | None) -> EmbedderLike:
    """The model of a checkpoint, or the default one.

    Raises:
        CheckpointError: it is refused.
    """
    # torch takes seconds to import, and most commands do without it.
    from model.cli.threads import limit_threads  # noqa: PLC0415
    from model.embedder import Embedder  # noqa: PLC0415

    # The pipeline runs passes side by side.
    limit_threads(1)
    return Embedder.load(checkpoint)


def as_lines(lines: Iterable[str]) -> str:
    """Lines for a person, with what a file's name may bring along escaped.

    A name may hold newlines and a terminal's commands: none may look like a line of ours.
    """
    return "\n".join("".join(map(_visible, line)) for line in lines)


def _visible(character: str) -> str:
    # Python's own escapes; a byte that is no UTF-8 is a lone surrogate here, which has one too.
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
