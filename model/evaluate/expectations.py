"""Thresholds that a run must meet, from a TOML file: the acceptance table of a checkpoint."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from model.errors import EvaluationError
from model.evaluate.measurement import FIELDS, Book

_OWN = ("name", "at_least", "at_most", "above", "gain")
_COUNTS = frozenset({"k"})
_NUMBERS = frozenset({"epsilon", "rate"})


@dataclass(frozen=True)
class Expectation:
    """One line of the file.

    Attributes:
        name: what it is called when it fails.
        selector: the measurement it is about: what is not said must be at its default.
        at_least: lower limit of the value; None for none.
        at_most: upper limit; None for none.
        above: a metric whose value of the same measurement must be exceeded; None for none.
        gain: by how much at least, with `above`; without it, any positive difference will do.
    """

    name: str
    selector: Mapping[str, Any]
    at_least: float | None
    at_most: float | None
    above: str | None
    gain: float | None


@dataclass(frozen=True)
class Verdict:
    """What came of one expectation: `measured` is None where the run has no such number."""

    name: str
    wanted: str
    measured: float | None
    is_met: bool

    def line(self) -> str:
        """For people."""
        measured = "not measured" if self.measured is None else f"measured {self.measured:.4f}"
        return f"{'met ' if self.is_met else 'FAIL'} {self.name}: wanted {self.wanted}, {measured}"


def read_expectations(path: Path) -> list[Expectation]:
    """Read a file of [[expect]] tables.

    Raises:
        EvaluationError: it cannot be read, or a table has a key or value that means nothing.
    """
    try:
        tables: Any = tomllib.loads(path.read_text(encoding="utf-8")).get("expect", [])
    # ValueError: bad UTF-8, bad TOML, or a number of thousands of digits.
    except (OSError, ValueError, RecursionError) as exc:
        raise EvaluationError(f"{path}: no file of expectations: {exc}") from exc
    if not isinstance(tables, list) or not tables:
        raise EvaluationError(f"{path}: at least one [[expect]] table was wanted")
    lines = enumerate(cast("list[Any]", tables), 1)
    return [_read_one(table, f"{path}, [[expect]] number {number}") for number, table in lines]


def parse_epsilon(text: str) -> float:
    """A budget as people write it: 0.5, or 36/255.

    Raises:
        ValueError: it is neither, or not positive and finite.
    """
    top, slash, bottom = text.partition("/")
    value = float(top) / float(bottom) if slash and float(bottom) else float(text)
    if not 0.0 < value < math.inf:
        raise ValueError(f"a budget must be positive and finite, got {text}")
    return value


def judge(expectations: Sequence[Expectation], book: Book, headline: str) -> list[Verdict]:
    """Hold each expectation against what was measured.

    Args:
        expectations: the lines.
        book: of the run.
        headline: the metric meant where a line names none.
    """
    return [_judge_one(one, book, headline) for one in expectations]


def _read_one(raw: Any, where: str) -> Expectation:
    table = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    if not isinstance(table.get("name"), str):
        raise EvaluationError(f"{where}: a table with a name was wanted")
    if unknown := sorted(set(table) - {*FIELDS, *_OWN}):
        known = ", ".join((*_OWN, *FIELDS))
        raise EvaluationError(f"{where}: unknown key {unknown[0]!r}; known: {known}")
    if not {"at_least", "at_most", "above"} & set(table):
        raise EvaluationError(f"{where}: one of at_least, at_most, above was wanted")
    limits = {name: _number(table, name, where) for name in ("at_least", "at_most", "gain")}
    if not isinstance(table.get("above", ""), str):
        raise EvaluationError(f"{where}: above must be a metric's name, got {table['above']!r}")
    if "gain" in table and "above" not in table:
        raise EvaluationError(f"{where}: gain says by how much above another, and above is missing")
    selector = {name: _selected(table, name, where) for name in FIELDS if name in table}
    return Expectation(table["name"], selector, above=table.get("above"), **limits)


def _selected(table: Mapping[str, Any], name: str, where: str) -> str | int | float | None:
    """A field's value of the type that measurements have it in: any other would never be found."""
    value = table[name]
    if name == "epsilon" and isinstance(value, str):
        try:
            return parse_epsilon(value)
        except ValueError as exc:
            raise EvaluationError(f"{where}: {exc}") from exc
    if name in _NUMBERS:
        return _number(table, name, where)
    kind, called = (int, "a whole number") if name in _COUNTS else (str, "text")
    # `type`, as true is 1 to Python.
    if type(value) is not kind:
        raise EvaluationError(f"{where}: {name} must be {called}, got {value!r:.60}")
    return value


def _number(table: Mapping[str, Any], name: str, where: str) -> float | None:
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvaluationError(f"{where}: {name} must be a number, got {value!r:.60}")
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise EvaluationError(f"{where}: {name} must be a finite number")
    return number


def _judge_one(wanted: Expectation, book: Book, headline: str) -> Verdict:
    selector = {"metric": headline, **wanted.selector}
    found = _value(book, selector)
    texts: list[str] = []
    checks: list[bool] = []
    if wanted.at_least is not None:
        texts.append(f"at least {wanted.at_least}")
        checks.append(found is not None and found >= wanted.at_least)
    if wanted.at_most is not None:
        texts.append(f"at most {wanted.at_most}")
        checks.append(found is not None and found <= wanted.at_most)
    if wanted.above is not None:
        other = _value(book, {**selector, "metric": wanted.above})
        reached = "not measured" if other is None else f"{other:.4f}"
        by = "" if wanted.gain is None else f" by {wanted.gain}"
        texts.append(f"above {wanted.above} ({reached}){by}")
        checks.append(found is not None and other is not None and _is_above(found, other, wanted))
    return Verdict(wanted.name, " and ".join(texts), found, all(checks))


def _is_above(found: float, other: float, wanted: Expectation) -> bool:
    # Shares of thousands of cases: a difference that rounding made is none.
    return found > other if wanted.gain is None else found >= other + wanted.gain - 1e-12


def _value(book: Book, selector: Mapping[str, Any]) -> float | None:
    found = book.find(**selector)
    return None if found is None else found.value
