"""Thresholds that measured rows must meet, from a TOML file: what a checkpoint is held to."""

import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from model.errors import EvaluationError
from model.evaluate.rows import Row


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


def _budget(value: Any) -> Any:
    return parse_epsilon(value) if isinstance(value, str) else value


class Expectation(BaseModel):
    """One line of the file: which row it is about, and what that row's value must be.

    `above` names a metric whose value of the same row must be exceeded, by at least `gain`; without
    a gain any positive difference will do.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None
    above: str | None = None
    gain: FiniteFloat | None = None

    # The row's fields: one that is not given must not be in the row.
    task: str
    figure: str
    metric: str | None = None
    by: str = "all"
    group: str | None = None
    k: int | None = None
    epsilon: Annotated[FiniteFloat, BeforeValidator(_budget)] | None = None
    unit: str | None = None
    formula: str | None = None
    statistic: str | None = None
    rate: FiniteFloat | None = None

    @model_validator(mode="after")
    def _means_something(self) -> "Expectation":
        if self.at_least is None and self.at_most is None and self.above is None:
            raise ValueError("one of at_least, at_most, above was wanted")
        if self.gain is not None and self.above is None:
            raise ValueError("gain says by how much above another, and above is missing")
        return self


_LIMITS = {"name", "at_least", "at_most", "above", "gain"}


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
    out: list[Expectation] = []
    for number, table in enumerate(cast("list[Any]", tables), 1):
        try:
            out.append(Expectation.model_validate(table))
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"][:1])
            where = f"{path}, [[expect]] number {number}"
            what = first["msg"].removeprefix("Value error, ")
            raise EvaluationError(f"{where}: {key + ': ' if key else ''}{what}") from exc
    return out


def check_expectations(
    expectations: Iterable[Expectation], rows: Sequence[Row], first_metric: str
) -> list[Row]:
    """Hold each expectation against what was measured.

    Args:
        expectations: the lines.
        rows: of all tasks and metrics.
        first_metric: the one meant where a line names none.

    Returns:
        For each line its `name`, what was `wanted`, what was `measured` (None where there is no
        such number) and whether it `is_met`.
    """
    return [_check(one, rows, one.metric or first_metric) for one in expectations]


def as_line(checked: Row) -> str:
    """What came of a line, for people."""
    value = checked["measured"]
    measured = "not measured" if value is None else f"measured {value:.4f}"
    met = "met " if checked["is_met"] else "FAIL"
    return f"{met} {checked['name']}: wanted {checked['wanted']}, {measured}"


def _check(line: Expectation, rows: Sequence[Row], metric: str) -> Row:
    found = _value(line, rows, metric)
    value = math.nan if found is None else found  # no comparison with it holds
    wanted: list[str] = []
    checks: list[bool] = []
    if line.at_least is not None:
        wanted.append(f"at least {line.at_least}")
        checks.append(value >= line.at_least)
    if line.at_most is not None:
        wanted.append(f"at most {line.at_most}")
        checks.append(value <= line.at_most)
    if line.above is not None:
        other = _value(line, rows, line.above)
        reached = "not measured" if other is None else f"{other:.4f}"
        by = "" if line.gain is None else f" by {line.gain}"
        wanted.append(f"above {line.above} ({reached}){by}")
        least = math.nan if other is None else other
        # Shares of thousands of cases: a difference that rounding made is none.
        is_above = value > least if line.gain is None else value >= least + line.gain - 1e-12
        checks.append(is_above)
    outcome = {"measured": found, "is_met": all(checks)}
    return {"name": line.name, "wanted": " and ".join(wanted), **outcome}


def _value(line: Expectation, rows: Sequence[Row], metric: str) -> float | None:
    """The value of the row that has these very fields; numbers are compared exactly."""
    wanted = {**line.model_dump(exclude=_LIMITS), "metric": metric}
    for row in rows:
        if all(row.get(name) == value for name, value in wanted.items()):
            return row["value"]
    return None
