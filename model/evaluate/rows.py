"""Rows of measured numbers, as plain dicts: one number each, and the fields that say what it is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

Row = dict[str, Any]
"""`docs/evaluation.md` lists the fields. One that says nothing is not there, but for `by`."""

Group = tuple[Row, Bool[np.ndarray, " N"]]
"""Some of the cases of a task: the fields that name them, and which they are."""

Claim = tuple[Row, Float64[np.ndarray, " N"]]
"""Radii as somebody states them: the fields `unit` and `formula`, and one radius a case."""


def groups_of(divisions: Mapping[str, Sequence[str]], count: int) -> list[Group]:
    """All cases, then each group of each division, sorted by name; "" is no group."""
    groups: list[Group] = [({"by": "all"}, np.ones(count, dtype=np.bool_))]
    for by, names in divisions.items():
        column = np.array(names, dtype=object)
        groups += [
            ({"by": by, "group": name}, np.asarray(column == name, dtype=np.bool_))
            for name in sorted(set(names) - {""})
        ]
    return groups


def mean_rows(
    fields: Row,
    values: Float64[np.ndarray, " N"] | Bool[np.ndarray, " N"],
    groups: Sequence[Group],
) -> list[Row]:
    """For each group that has cases, the mean of a number over them."""
    return [
        {**fields, **group, "value": float(values[mask].mean()), "count": int(mask.sum())}
        for group, mask in groups
        if mask.any()
    ]


def certified_rows(
    fields: Row,
    weights: Float64[np.ndarray, " N"] | Bool[np.ndarray, " N"],
    claims: Sequence[Claim],
    epsilons: Sequence[float],
    groups: Sequence[Group],
) -> list[Row]:
    """For each claim, budget and group, the mean of `weights` over cases with a larger radius.

    Cases whose radius is no larger than the budget count 0.
    """
    return [
        row
        for claim, radii in claims
        for epsilon in epsilons
        for row in mean_rows(
            {**fields, **claim, "epsilon": epsilon},
            np.where(radii > epsilon, weights, 0.0),
            groups,
        )
    ]


def chosen(rows: Iterable[Row], **fields: Any) -> list[Row]:
    """The rows with these very values; None stands for a field that is not there."""
    return [row for row in rows if all(row.get(name) == value for name, value in fields.items())]


def values(rows: Iterable[Row], field: str) -> list[Any]:
    """The different values of a field, as they come."""
    return list(dict.fromkeys(row.get(field) for row in rows))
