"""Records as a file holds them: one JSON answer, or JSON Lines of many."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from service.errors import ReplayError


class Line(NamedTuple):
    """A record, and where it stands; `problem` says why there is none.

    Attributes:
        number: of the line, from 1.
        record: what JSON gave.
        problem: None if it could be read.
    """

    number: int
    record: object
    problem: str | None


def read_records(path: Path) -> Sequence[Line]:
    """Every record of a file; a damaged line is given as such, and the others still count.

    Raises:
        ReplayError: the file holds no line of JSON.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    whole = _read(1, content)
    lines = [whole] if whole.problem is None else list(_lines(content))
    if not lines:
        raise ReplayError(f"{path} holds no record")
    if all(line.problem is not None for line in lines):
        raise ReplayError(
            f"{path} is neither JSON nor JSON Lines: line {lines[0].number}: {lines[0].problem}"
        )
    return lines


def _lines(content: bytes) -> Iterator[Line]:
    # Only line feeds part records: other line ends may stand inside a JSON text.
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield _read(number, line)


def _read(number: int, content: bytes) -> Line:
    try:
        record: object = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return Line(number, None, f"no JSON: {error}")
    return Line(number, record, None)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
