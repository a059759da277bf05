"""Questions from a terminal, to a server or an index here: `lipsim search`, `compare` and so on."""

# Typer makes options of the parameters; what a question needs is imported when it is asked.
# ruff: noqa: PLC0415, PLR0917

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from model.cli.console import Output, visible
from model.cli.libraries import import_foreign
from model.cli.progress import Progress
from service.command.show import (
    Counts,
    comparison_in_words,
    embedding_in_words,
    open_sink,
    print_tolerance,
)
from service.errors import ServiceError

if TYPE_CHECKING:  # It takes httpx, which an installation may lack.
    from service.client import AsyncClient

_AT_ONCE = 32
_HEAD_BYTES = 1024
_EXIT_USAGE = 2
_EXIT_SOME = 3

_Pictures = Annotated[
    list[Path], Argument(help="Pictures, or folders of them.", show_default=False)
]
_Url = Annotated[str | None, Option(help="Ask this server; else an index here is opened.")]
_Key = Annotated[str | None, Option(envvar="LIPSIM_KEY", help="An API key of the server.")]
_DataDir = Annotated[
    Path | None, Option(help="Where the indexes are; default: LIPSIM_DATA_DIR, or data.")
]
_Checkpoint = Annotated[
    Path | None, Option(help="Weight file; default: LIPSIM_CHECKPOINT, or ours.")
]
_Index = Annotated[str, Option(help="Name of the index.")]
_K = Annotated[int | None, Option("-k", "--k", min=1, help="Results at most.")]
_MaxDistance = Annotated[
    float | None, Option(min=0, help="Leave out what is farther (1 - cosine).")
]
_Epsilon = Annotated[float | None, Option(min=0, help="l2 budget in the picture's pixels.")]
_Filter = Annotated[
    str | None,
    Option(
        "--filter",
        metavar="JSON|@FILE",
        help="Only items whose metadata pass this filter (docs/filters.md).",
    ),
]
_Json = Annotated[bool, Option("--json", help="JSON, one object a line.")]
_Out = Annotated[Path | None, Option(help="Write to this .jsonl or .csv file instead.")]


@dataclass(frozen=True)
class Where:
    """Whom to ask: a server, or the indexes of a folder."""

    url: str | None = None
    key: str | None = None
    data_dir: Path | None = None
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if self.url is not None and (self.data_dir or self.checkpoint):
            raise typer.BadParameter(
                "ask a server (--url), or an index here (--data-dir), not both"
            )

    @asynccontextmanager
    async def open(self, index: str | None = None) -> AsyncGenerator["AsyncClient"]:
        """A client of it, of which that index is to be asked, if any."""
        if self.url is not None:
            from service.client import AsyncClient

            async with AsyncClient(self.url, self.key) as client:
                yield client
        else:
            from service.command.local import local_client

            async with local_client(self.data_dir, self.checkpoint, index) as client:
                yield client


def search(
    pictures: _Pictures,
    url: _Url = None,
    key: _Key = None,
    data_dir: _DataDir = None,
    checkpoint: _Checkpoint = None,
    index: _Index = "default",
    k: _K = None,
    max_distance: _MaxDistance = None,
    only: _Filter = None,
    epsilon: _Epsilon = None,
    operating_point: Annotated[
        str | None, Option(help="Say of each result whether it is a match; like balanced.")
    ] = None,
    require_exact: Annotated[
        bool, Option("--require-exact", help="The largest radii that can be proved.")
    ] = False,
    trim: Annotated[bool, Option("--trim", help="Search without plain borders too.")] = False,
    include_audit: Annotated[
        bool, Option("--include-audit", help="What `replay` needs, in JSON.")
    ] = False,
    as_json: _Json = False,
    out: _Out = None,
) -> None:
    """Find the nearest entries of an index for each picture, with their certified radii.

    Exit codes: 0 done; 1 nothing was found out; 2 the command line is wrong; 3 some pictures have
    no answer, and it is said why.
    """
    where = Where(url, key, data_dir, checkpoint)
    given = {"k": k, "max_distance": max_distance, "epsilon": epsilon}
    given |= {"operating_point": operating_point, "include_audit": include_audit}
    given |= {"require_exact": require_exact, "trim": trim, "index": index}
    given["filter"] = None if only is None else _filter_text(only)
    options = _options(given)
    counts = Counts()

    async def work() -> None:
        files = list(_files(pictures, counts))
        progress = Progress(sys.stderr if len(files) > 1 else None)
        async with where.open(index) as client:
            with open_sink(out, as_json=as_json, counts=counts) as sink:
                found = client.search_many(files, concurrency=_AT_ONCE, **options)
                with progress.counter("searching", len(files), "pictures") as advance:
                    async for one in found:
                        sink(one)
                        advance()

    _run(work, as_json=as_json)
    if counts.failed:
        raise typer.Exit(_EXIT_SOME if counts.answered else 1)


def compare(
    a: Annotated[Path, Argument(help="A picture.")],
    b: Annotated[Path, Argument(help="Another.")],
    url: _Url = None,
    key: _Key = None,
    checkpoint: _Checkpoint = None,
    epsilon: _Epsilon = None,
    threshold: Annotated[float | None, Option(min=0, help="A match is at most so far.")] = None,
    as_json: _Json = False,
) -> None:
    """Say how far two pictures are apart, within which bounds, and whether they match."""
    where = Where(url, key, checkpoint=checkpoint)

    async def work() -> None:
        async with where.open() as client:
            answer = await client.compare(a, b, epsilon=epsilon, threshold=threshold)
        typer.echo(answer.model_dump_json() if as_json else comparison_in_words(answer, epsilon))

    _run(work, as_json=as_json)


def embed(
    pictures: Annotated[list[Path], Argument(help="Pictures.")],
    url: _Url = None,
    key: _Key = None,
    checkpoint: _Checkpoint = None,
    as_json: _Json = False,
) -> None:
    """Embed pictures; the numbers themselves are printed with --json, an object a line."""
    where = Where(url, key, checkpoint=checkpoint)

    async def work() -> None:
        async with where.open() as client:
            for path in pictures:
                answer = await client.embed(path)
                if as_json:
                    line = {"id": str(path), **answer.model_dump(mode="json", exclude_unset=True)}
                    typer.echo(json.dumps(line))
                else:
                    typer.echo(embedding_in_words(path, answer))

    _run(work, as_json=as_json)


def tolerance(
    picture: Annotated[Path, Argument(help="A picture.")],
    url: _Url = None,
    key: _Key = None,
    data_dir: _DataDir = None,
    checkpoint: _Checkpoint = None,
    index: _Index = "default",
    k: _K = None,
    max_distance: _MaxDistance = None,
    operating_point: Annotated[
        str | None, Option(help="Of a verdict: whose; like balanced.")
    ] = None,
    statement: Annotated[
        str, Option(help="What is to stay true: result, top1, set or verdict.")
    ] = "result",
    entry: Annotated[
        str | None, Option("--id", help="Of a result or verdict: whose; else the first result's.")
    ] = None,
    chain: Annotated[
        int | None, Option(min=0, help="Passes of the network that carry the ranges further.")
    ] = None,
    families: Annotated[
        str | None, Option(help="Which edits, between commas: brightness,jpeg; else all.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Say which edits of a picture provably leave a statement about its answer alone."""
    where = Where(url, key, data_dir, checkpoint)
    given = {"k": k, "max_distance": max_distance, "operating_point": operating_point}
    given |= {"id": entry, "chain": chain, "families": families}
    given |= {"index": index, "statement": statement}

    async def work() -> None:
        async with where.open(index) as client:
            answer = await client.tolerance(picture, **_options(given))
        if as_json:
            typer.echo(answer.model_dump_json(by_alias=True, exclude_unset=True))
        else:
            print_tolerance(answer)

    _run(work, as_json=as_json)


def _files(pictures: list[Path], counts: Counts) -> Iterator[Path]:
    """The files that were named, and of folders all but those that a build skips there, too."""
    from model.pixels.containers.sniff import content_format
    from model.pixels.decode import ALL_FORMATS
    from model.pixels.sidecars import is_sidecar
    from service.client.queries import files_of

    def is_skipped(path: Path) -> bool:
        with suppress(OSError), path.open("rb") as file:  # Whoever reads it whole says it.
            return content_format(file.read(_HEAD_BYTES)) not in ALL_FORMATS
        return False

    for picture in pictures:
        if not picture.is_dir():
            yield picture
            continue
        for path in files_of(picture):
            if is_sidecar(path.name) and is_skipped(path):
                counts.skipped += 1
            else:
                yield path


def _options(given: dict[str, Any]) -> Any:
    """Those that were given: of the rest the service has a default."""
    return {name: value for name, value in given.items() if value is not None}


def _filter_text(given: str) -> str:
    """A filter that was given as JSON, or as @ and a file of it; checked before anything is asked.

    Raises:
        Exit: it is none; a line says which clause.
    """
    from index_builder.errors import FilterError
    from index_builder.filters.language import read_filter

    try:
        return read_filter(given).text
    except FilterError as error:
        typer.echo(f"error: --filter: {visible(str(error))}", err=True)
    raise typer.Exit(_EXIT_USAGE)


def _run(work: Callable[[], Coroutine[Any, Any, None]], *, as_json: bool) -> None:
    """Run to the end; every error becomes a message and an exit code."""
    with Output(as_json, "what was printed or written so far stays").errors():
        import_foreign("httpx", "asking", "httpx", "client")
        from service.client import ProblemError

        try:
            asyncio.run(work())
        except ProblemError as error:
            raise ServiceError(str(error)) from error
