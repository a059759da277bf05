"""Rows of measured numbers, as plain dicts: one number each, and the fields that say what it is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

Row = dict[str, Any]
"""`docs/evaluation.md` lists the fields. One that says nothing is not there, but for `by`."""

Claim = tuple[Row, Float64[np.ndarray, " N"]]
"""Radii as somebody states them: the fields `unit` and `formula`, and one radius a case."""


_SAMPLES = 200


class Group(NamedTuple):
    """Some of the cases of a task.

    Attributes:
        fields: what names them.
        mask: which they are, (N,).
        weights: how often each is in each of the bootstrap samples, (S, N).
    """

    fields: Row
    mask: Bool[np.ndarray, " N"]
    weights: Float64[np.ndarray, "S N"]


def groups_of(
    divisions: Mapping[str, Sequence[str]], pictures: Int64[np.ndarray, " N"]
) -> list[Group]:
    """All cases, then each group of each division, sorted by name; "" is no group.

    `pictures` has the number of each case's picture: cases of one picture are drawn together.
    """
    count = int(pictures.max(initial=0)) + 1
    samples = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _SAMPLES)
    weights = samples[:, pictures].astype(np.float64)
    groups = [Group({"by": "all"}, np.ones(pictures.size, dtype=np.bool_), weights)]
    for by, names in divisions.items():
        column = np.array(names, dtype=object)
        groups += [
            Group({"by": by, "group": name}, np.asarray(column == name, dtype=np.bool_), weights)
            for name in sorted(set(names) - {""})
        ]
    return groups


def mean_rows(
    fields: Row,
    values: Float64[np.ndarray, " N"] | Bool[np.ndarray, " N"],
    groups: Sequence[Group],
    sampled: Float64[np.ndarray, "S N"] | None = None,
) -> list[Row]:
    """For each group that has cases, the mean of a number over them, and its standard error.

    The error is the spread of the means of bootstrap samples. Where the number itself depends on
    who else is in the sample, `sampled` has it for each.
    """
    rows: list[Row] = []
    for group, mask, weights in groups:
        if mask.any():
            weighted = weights[:, mask]
            totals = (
                weighted @ values[mask]
                if sampled is None
                else (weighted * sampled[:, mask]).sum(axis=1)
            )
            counts = weighted.sum(axis=1)
            means = totals[counts > 0.0] / counts[counts > 0.0]
            numbers = {"value": float(values[mask].mean()), "error": float(means.std())}
            rows.append({**fields, **group, **numbers, "count": int(mask.sum())})
    return rows


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
