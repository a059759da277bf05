"""Tables of measurements in Markdown: a row for each metric, or for each group of cases."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.evaluate.measurement import Book, Measurement
from model.evaluate.radii import OURS

Column = tuple[str, Mapping[str, Any]]
"""A title, and the fields of the measurements that stand below it."""


def budget_columns(book: Book, fields: Mapping[str, Any], unit: str, formula: str) -> list[Column]:
    """A column for each budget."""
    claim = {**fields, "unit": unit, "formula": formula}
    budgets = book.values("epsilon", **claim)
    return [(_budget(epsilon), {**claim, "epsilon": epsilon}) for epsilon in budgets]


def _budget(epsilon: float) -> str:
    levels = epsilon * 255.0
    is_level = math.isclose(levels, round(levels), rel_tol=1e-9) and epsilon < 1.0
    return f"{epsilon:.3f} ({round(levels)}/255)" if is_level else f"{epsilon:g}"


def by_metric(book: Book, names: Sequence[str], columns: Sequence[Column]) -> str:
    """A row for each metric."""
    rows = [
        [name, *(_percent(book.find(**fields, metric=name)) for _, fields in columns)]
        for name in names
    ]
    return table(["metric", *(title for title, _ in columns)], rows)


def cases(
    book: Book, names: Sequence[str], columns: Sequence[Column]
) -> list[tuple[int, list[str]]]:
    """Numbers of cases, each with the titles of the columns whose shares are of so many.

    A column's number is that of the first metric that it was measured of.
    """
    titles: dict[int, list[str]] = {}
    for title, fields in columns:
        found = (book.find(**fields, metric=name) for name in names)
        first = next((one for one in found if one is not None), None)
        if first is not None:
            titles.setdefault(first.count, []).append(title)
    return list(titles.items())


def compared(
    book: Book,
    names: Sequence[str],
    column: Column,
    by: str,
    *,
    titled: bool = True,
) -> list[str]:
    """A row for each group, a column for each metric."""
    title, fields = column
    groups = book.values("group", **fields, by=by)
    if not groups:
        return []
    rows: list[list[str]] = []
    for group in groups:
        found = [book.find(**fields, by=by, group=group, metric=name) for name in names]
        count = next((one.count for one in found if one), 0)
        rows.append([group or "all", str(count), *(_percent(one) for one in found)])
    drawn = table([by, "cases", *names], rows)
    return [f"By {by}, {title}:", drawn] if titled else [drawn]


def divided(
    book: Book,
    names: Sequence[str],
    natural: Column,
    certified: Mapping[str, Any],
    by: str,
) -> list[str]:
    """A row for each group: of the first metric, the natural share and the certified ones."""
    title, fields = natural
    groups = book.values("group", **fields, by=by)
    budgets = budget_columns(book, {**certified, "by": by}, "input", OURS)
    if not groups or not budgets:
        return []
    columns = [natural, *budgets]
    rows: list[list[str]] = []
    for group in groups:
        cells = [book.find(**{**f, "by": by}, group=group, metric=names[0]) for _, f in columns]
        rows.append([group or "all", *(_percent(one) for one in cells)])
    where = "" if by == "all" else f"By {by}, "
    head = [by, *(name for name, _ in columns)]
    return [f"{where}{names[0]}, {title} and certified:", table(head, rows)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in cells] for cells in lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in escaped)


def _percent(found: Measurement | None) -> str:
    return "-" if found is None else f"{100.0 * found.value:.1f}"
