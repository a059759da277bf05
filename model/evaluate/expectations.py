"""Thresholds that measured rows must meet, from a TOML file: what a checkpoint is held to."""

import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from model.cli.budgets import parse_budget
from model.errors import EvaluationError
from model.evaluate.rows import Row, chosen


def _budget(value: Any) -> Any:
    return parse_budget(value) if isinstance(value, str) else value


def _formula(value: Any) -> Any:
    # Its name until 2026-11: files that say it go on.
    return "normalised" if value == "published" else value


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
    formula: Annotated[str | None, BeforeValidator(_formula)] = None
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


class _File(BaseModel):
    expect: list[Expectation] = Field(min_length=1)


def read_expectations(path: Path) -> list[Expectation]:
    """Read a file of [[expect]] tables.

    Raises:
        EvaluationError: it cannot be read, or a table has a key or value that means nothing.
    """
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).expect
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise EvaluationError(f"{path}: {where}: {what}") from exc
    except (OSError, ValueError) as exc:
        raise EvaluationError(f"{path}: no file of expectations: {exc}") from exc


def check_expectations(
    expectations: Iterable[Expectation], rows: Sequence[Row], first_metric: str
) -> list[Row]:
    """Hold each expectation against what was measured.

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
    value = _value(line, rows, metric)
    checks: dict[str, bool] = {}
    if line.at_least is not None:
        checks[f"at least {line.at_least}"] = value >= line.at_least
    if line.at_most is not None:
        checks[f"at most {line.at_most}"] = value <= line.at_most
    if line.above is not None:
        other = _value(line, rows, line.above)
        wanted = f"above {line.above} ({'not measured' if math.isnan(other) else f'{other:.4f}'})"
        if line.gain is None:
            checks[wanted] = value > other
        else:
            # Shares of thousands of cases: a difference that rounding made is none.
            checks[f"{wanted} by {line.gain}"] = value >= other + line.gain - 1e-12
    return {
        "name": line.name,
        "wanted": " and ".join(checks),
        "measured": None if math.isnan(value) else value,
        "is_met": all(checks.values()),
    }


def _value(line: Expectation, rows: Sequence[Row], metric: str) -> float:
    """The value of the row that has these very fields; NaN, which meets nothing, for none."""
    found = chosen(rows, **{**line.model_dump(exclude=_LIMITS), "metric": metric})
    return math.nan if not found or found[0]["value"] is None else found[0]["value"]
