"""What was found, for people and for machines: tables, sentences, JSON lines, CSV."""

import csv
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context
from os import PathLike, fspath
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from model.cli.console import counted, visible
from service.schemas.common import Radius
from service.schemas.embed import EmbedAnswer
from service.schemas.search import SearchResult
from service.schemas.similarity import SimilarityAnswer
from service.schemas.tolerance import NOISE, StatementInfo, ToleranceAnswer

if TYPE_CHECKING:  # It takes httpx, which an installation may lack.
    from service.client import Searched

_DOWN = Context(prec=4, rounding=ROUND_DOWN)

Sink = Callable[["Searched"], None]

_COLUMNS = (
    *("query", "status", "rank", "id", "view", "distance", "certified_radius"),
    *("certified_rms_8bit", "margin", "certified", "match", "match_radius", "error", "trimmed"),
)


@dataclass
class Counts:
    """How many pictures have an answer, how many have none, and how many files are no pictures."""

    answered: int = 0
    failed: int = 0
    skipped: int = 0


@contextmanager
def open_sink(out: Path | None, *, as_json: bool, counts: Counts) -> Generator[Sink]:
    """Takes what was found, one by one; what was taken stays, should the next not come.

    Raises:
        BadParameter: the file's name says neither JSON Lines nor CSV.
        OSError: the file cannot be written.
    """
    if out is None:
        yield _counting(_print_line if as_json else _print_table, counts)
    else:
        kind = _FILES.get(out.suffix.lower())
        if kind is None:
            raise typer.BadParameter(f"--out ends in {' or '.join(_FILES)}, got {out.name!r}")
        with out.open("w", encoding="utf-8", newline="") as file:
            yield _counting(kind(file), counts)
    told = {"pictures": counts.answered + counts.failed, **vars(counts)}
    if as_json:
        typer.echo(json.dumps({"summary": told}))
    elif told["pictures"] != 1 or counts.skipped or out is not None:
        line = f"{counted(told['pictures'], 'picture')}: {counts.answered} answered"
        line += f", {counts.failed} not" + ("" if out is None else f", in {out}")
        if counts.skipped:
            line += f"; skipped {counted(counts.skipped, 'file')} beside them"
        typer.echo(line, err=True)


def _counting(sink: Sink, counts: Counts) -> Sink:
    def take(one: "Searched") -> None:
        if one.answer is None:
            counts.failed += 1
            typer.echo(f"error: {visible(_name(one))}: {one.error}", err=True)
        else:
            counts.answered += 1
        sink(one)

    return take


def _line(one: "Searched") -> dict[str, Any]:
    """As the items of an answer to many are on the wire."""
    if one.answer is not None:
        answer = one.answer.model_dump(mode="json", exclude_unset=True)
        return {"id": _name(one), "status": 200, "answer": answer}
    problem = getattr(one.error, "problem", None)
    if problem is not None:
        said = problem.model_dump(mode="json", exclude_unset=True)
        return {"id": _name(one), "status": problem.status, "problem": said}
    said = {"code": "unreadable_file", "title": "The file cannot be read", "detail": str(one.error)}
    return {"id": _name(one), "status": 0, "problem": said}


def _name(one: "Searched") -> str:
    # A name that is no UTF-8 is text here all the same.
    name = fspath(one.image) if isinstance(one.image, str | PathLike) else ""
    return name.encode(errors="backslashreplace").decode()


def _print_line(one: "Searched") -> None:
    typer.echo(json.dumps(_line(one)))


def _json_lines(file: IO[str]) -> Sink:
    return lambda one: print(json.dumps(_line(one)), file=file)


def _csv(file: IO[str]) -> Sink:
    writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
    writer.writeheader()

    def take(one: "Searched") -> None:
        line = _line(one)
        about = {"query": line["id"], "status": line["status"]}
        if one.answer is None:
            writer.writerow({**about, "error": line["problem"]["code"]})
            return
        for result in line["answer"]["results"]:
            writer.writerow({**about, **result})
        trimmed: dict[str, Any] = line["answer"].get("trimmed") or {}
        for result in trimmed.get("results") or ():
            writer.writerow({**about, **result, "trimmed": True})

    return take


_FILES: dict[str, Callable[[IO[str]], Sink]] = {".jsonl": _json_lines, ".csv": _csv}


def _print_table(one: "Searched") -> None:
    if one.answer is None:
        return
    typer.echo(visible(_name(one)))
    has_verdict = one.answer.operating_point is not None
    _print(_table(one.answer.results, has_verdict=has_verdict))
    if one.answer.trimmed is not None and one.answer.trimmed.results is not None:
        typer.echo("without its borders:")
        _print(_table(one.answer.trimmed.results, has_verdict=has_verdict))


def _print(table: Table) -> None:
    console = Console(highlight=False)
    console.width = max(100, console.width)
    console.print(table)


def _table(results: Sequence[SearchResult], *, has_verdict: bool) -> Table:
    columns = ["rank", "id", "distance", "stays in the answer under any noise below"]
    table = Table(*columns, *(["match"] if has_verdict else []), box=None, pad_edge=False)
    for one in results:
        row = [str(one.rank), visible(one.id), f"{one.distance:.4f}"]
        row.append(radius_in_words(one.certified_radius, one.certified_rms_8bit))
        table.add_row(*row, *(["yes" if one.match else "no"] if has_verdict else []))
    return table


def radius_in_words(radius: Radius, levels: Radius) -> str:
    """A radius as a person grasps it."""
    if radius is None or levels is None:
        return "all there is: nothing can displace it"
    if radius == 0.0:
        return "nothing is proved"
    return f"{proved(levels)} of 255 levels rms (l2 {proved(radius)})"


def proved(bound: float) -> str:
    """Four digits of what is claimed below it: never more than the bound itself."""
    return f"{float(_DOWN.create_decimal(bound)):g}"


def comparison_in_words(answer: SimilarityAnswer, epsilon: float | None) -> str:
    """Distance, its bounds, the verdict; a line each."""
    lines = [f"distance {answer.distance:.6f} (0: the same direction, 2: the opposite one)"]
    if answer.interval is not None:
        (low, high), (least, most) = answer.interval.a, answer.interval.both
        lines.append(
            f"under changes of l2 {epsilon:g}: {low:.6f} to {high:.6f} of the first alone, "
            f"{least:.6f} to {most:.6f} of each"
        )
    if answer.certified_radius is not None:
        each = ("the first alone", "the second alone", "each")
        radii = (answer.certified_radius.a, answer.certified_radius.b, answer.certified_radius.both)
        below = (
            f"{of} {'by any' if radius is None else f'below l2 {proved(radius)}'}"
            for of, radius in zip(each, radii, strict=True)
        )
        said = "match" if answer.match else "no match"
        lines.append(f"{said}; it stays so under changes of {', '.join(below)}")
    return "\n".join(lines)


def embedding_in_words(path: Path, answer: EmbedAnswer) -> str:
    return (
        f"{visible(str(path))}: {counted(len(answer.vector), 'number')}, norm {answer.norm:.6g}, "
        f"model {answer.model.name} {answer.fingerprint[:16]}"
    )


def print_tolerance(answer: ToleranceAnswer) -> None:
    """The statement and how far it holds, then a family a line."""
    radius = answer.statement.radius
    holds = "stays so under any change" if radius is None else "nothing is proved"
    if radius:
        holds = f"stays so under changes below l2 {proved(radius)}"
    typer.echo(f"{_statement_in_words(answer.statement)}: {holds}")
    table = Table("edit", "from", "to", "", "found by", box=None, pad_edge=False)
    for name, one in answer.families.items():
        how = one.how if one.complete else f"{one.how}; {one.reason or 'out of time'}"
        high = f"below {proved(one.high)}" if name == NOISE and one.high else _end(one.high)
        table.add_row(name, _end(one.low), high, one.unit, how)
    _print(table)


def _statement_in_words(about: StatementInfo) -> str:
    entry = visible(about.id or "")
    return {
        "result": f"{entry} is in the answer",
        "top1": f"{entry} is the first result",
        "set": "the answer has these entries",
        "verdict": f"{entry} is {'a match' if about.match else 'no match'}",
    }[about.kind]


def _end(value: float | None) -> str:
    return "-" if value is None else str(value)
