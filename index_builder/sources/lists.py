"""Lists: a CSV or JSONL file that names images, may give each its id, and may say more about it.

The whole list is read and checked before anything is built: a missing column, a duplicate id or
a path out of its folder is the list's error, not one file's: a SourceError.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from index_builder.errors import SourceError
from index_builder.sources.base import Problem, SourceItem, id_problem, item_from, read_inside

_JSON_SUFFIXES = {".jsonl", ".ndjson"}
SUFFIXES = {".csv", *_JSON_SUFFIXES}
_MAX_LINE_CHARS = 1 << 20
_WANTED = "wanted a path from the list's folder down, like cats/1.jpg"
_TYPES = {
    "number": (re.compile(r"-?(0|[1-9]\d{0,999})(\.\d+)?(e[+-]?\d+)?", re.ASCII), "a number"),
    "bool": (re.compile("true|false"), "true or false"),
}
# Words that are meant as a type by whoever writes them, and would else become part of a name.
_MISTAKEN_TYPES = frozenset({"int", "integer", "float", "double", "num", "numeric", "boolean"})


@dataclass(frozen=True)
class _Line:
    number: int
    id: str
    path: str
    metadata: dict[str, Any]


class ListSource:
    """The images a list names, in its order; paths are relative to the list's folder."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._name, self._root = path.name, path.resolve().parent
        self._max_bytes = max_bytes
        self._lines = _read_lines(path)

    @property
    def size(self) -> int | None:
        return len(self._lines)

    def items(self) -> Iterator[SourceItem]:
        for line in self._lines:
            content = read_inside(self._root, line.path, self._max_bytes)
            if isinstance(content, Problem):
                content = named_by_list(content, f"{self._name}, line {line.number}")
            yield item_from(line.id, line.path, content, line.metadata)


def _read_lines(path: Path) -> list[_Line]:
    rows = _json_rows(path) if path.suffix.lower() in _JSON_SUFFIXES else _typed_rows(path)
    lines: list[_Line] = []
    first_seen: dict[str, int] = {}
    for number, fields in rows:
        where = f"{path.name}, line {number}"
        line = _line(number, fields, where)
        if line.id in first_seen:
            raise SourceError(
                f"{where}: id {line.id!r} is a duplicate of line {first_seen[line.id]}"
            )
        first_seen[line.id] = number
        lines.append(line)
    return lines


def _line(number: int, fields: dict[str, Any], where: str) -> _Line:
    for wanted in ("id", "path"):
        if fields.get(wanted) in (None, "") and (wanted == "path" or wanted in fields):
            raise SourceError(f"{where}: wanted a value for {wanted!r}, got none")
    path = fields.pop("path")
    item_id = fields.pop("id") if "id" in fields else PurePosixPath(str(path)).as_posix()
    if isinstance(item_id, int) and not isinstance(item_id, bool):
        item_id = str(item_id)  # JSON lists often number their items
    if not isinstance(item_id, str) or not isinstance(path, str):
        raise SourceError(f"{where}: id and path must be text")
    problem = path_problem(path) or id_problem(item_id)
    if problem is not None:
        raise SourceError(f"{where}: {problem.reason}")
    nested = fields.pop("metadata", {})
    if isinstance(nested, dict):
        return _Line(number, item_id, path, {**fields, **nested})
    return _Line(number, item_id, path, {**fields, "metadata": nested})


def path_problem(path: str) -> Problem | None:
    """Why a path cannot be one below the list's folder, read as text alone."""
    parts = PurePosixPath(path)
    if parts.is_absolute():
        return Problem("unsafe_name", f"path {path!r} is absolute: {_WANTED}")
    if ".." in parts.parts or "\0" in path:
        return Problem("unsafe_name", f"path {path!r} leaves the list's folder: {_WANTED}")
    return None


def named_by_list(problem: Problem, where: str) -> Problem:
    """What is wrong with a file that a list names, and which line names it."""
    wanted = f": {_WANTED}" if problem.code == "missing" else ""
    return Problem(problem.code, f"{where}: {problem.reason}{wanted}")


def csv_rows(path: Path, wanted: Sequence[str] = ("path",)) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV file with these columns at least, each with the number of its last line."""
    try:
        # utf-8-sig: spreadsheets write a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            if not set(wanted) <= set(columns) or len(set(columns)) != len(columns):
                raise SourceError(
                    f"{path.name}: wanted a header line with {' and '.join(wanted)}, each name "
                    f"once; got {columns[:20]}"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise SourceError(
                        f"{path.name}, line {reader.line_num}: wanted {len(columns)} values"
                    )
                yield reader.line_num, dict(row)
    except OSError as exc:
        raise SourceError(f"{path} cannot be read: {exc.strerror}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise SourceError(f"{path.name} cannot be read as CSV in UTF-8: {exc}") from exc


def _typed_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV file, `name:number` and `name:bool` of its header as what they say.

    All else is text; an empty number or boolean is null.
    """
    for number, fields in csv_rows(path):
        typed: dict[str, Any] = {}
        for header, text in fields.items():
            name, _, kind = header.rpartition(":")
            if name and kind.lower() in _MISTAKEN_TYPES:
                raise SourceError(
                    f"{path.name}: a column's type is :number or :bool, got {header!r} (all else "
                    "is text, and needs none)"
                )
            if not name or kind not in ("number", "bool"):
                name, value = header, text
            else:
                value = _typed(text, kind, f"{path.name}, line {number}: {header!r}")
            if name in typed:
                raise SourceError(f"{path.name}: wanted each name once in the header, got {name!r}")
            typed[name] = value
        yield number, typed


def _typed(text: str, kind: str, where: str) -> object:
    text = text.strip()
    if not text:
        return None
    pattern, wanted = _TYPES[kind]
    written = text.lower()
    # As JSON writes it, so that the same list as JSON Lines says the same.
    value = json.loads(written) if pattern.fullmatch(written) else None
    if value is None or value in (math.inf, -math.inf):
        raise SourceError(f"{where}: wanted {wanted}, got {text[:80]!r}")
    return value


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            while text := file.readline(_MAX_LINE_CHARS + 1):
                number += 1
                if len(text) > _MAX_LINE_CHARS:
                    raise SourceError(f"{path.name}, line {number}: more than {_MAX_LINE_CHARS}")
                if not text.strip():
                    continue
                fields = json.loads(text, object_pairs_hook=_object)
                if not isinstance(fields, dict):
                    raise SourceError(f"{path.name}, line {number}: wanted a JSON object")
                # What cannot be written again could not be sealed or answered: NaN, a number that
                # overflows, half a surrogate pair, or nesting that only the reader bears.
                json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
                yield number, fields
    except (OSError, ValueError, RecursionError) as exc:
        raise SourceError(
            f"{path.name}, line {number}: cannot be read as a JSON object a line in UTF-8: {exc}"
        ) from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys come once each; Python would keep the last and say nothing."""
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"key {key[:200]!r} comes twice")
        fields[key] = value
    return fields
