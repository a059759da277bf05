"""One measured number and all that is needed to say what it is: the row of every table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from model.evaluate.radii import Claim

DEFAULT_EPSILONS = (36 / 255, 72 / 255, 108 / 255, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Attributes:
        task: 2afc, retrieval, copies or knn.
        metric: the metric's name in this run.
        figure: what is measured, `score` or `recall`, say; docs/evaluation.md lists them.
        value: a share in [0, 1], but for figures that are named as something else.
        count: the number of cases it is taken over.
        by: what the cases were divided by: all (undivided), edit, source, kind, split, group.
        group: which of them.
        k: length of the answer, or number of neighbours.
        epsilon: budget, l2; the radius must be above it.
        unit: what epsilon is counted in: pixels of the network's input, or of the upload.
        formula: the radius is ours, which is proved, or the published one.
        statistic: what a copy is told by: margin or cosine.
        rate: share of false positives that was allowed.
    """

    task: str
    metric: str
    figure: str
    value: float
    count: int
    by: str = "all"
    group: str = ""
    k: int | None = None
    epsilon: float | None = None
    unit: str | None = None
    formula: str | None = None
    statistic: str | None = None
    rate: float | None = None


class Book:
    """Finds measurements by their fields; a field that is not given must be at its default."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._all = tuple(measurements)
        self._by_key = {_key(asdict(one)): one for one in self._all}

    def find(self, **wanted: Any) -> Measurement | None:
        """The one measurement with these fields; None where there is none."""
        return self._by_key.get(_key(_DEFAULTS | wanted))

    def values(self, field: str, **wanted: Any) -> list[Any]:
        """The different values of a field among the measurements with these, as they came."""
        found = (
            getattr(one, field)
            for one in self._all
            if all(getattr(one, name) == value for name, value in wanted.items())
        )
        return list(dict.fromkeys(found))


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the cases of a task: `mask` (N,) says which."""

    by: str
    name: str
    mask: Bool[np.ndarray, " N"]

    def mean(
        self,
        task: str,
        metric: str,
        figure: str,
        values: Float64[np.ndarray, " N"] | Bool[np.ndarray, " N"],
        *,
        k: int | None = None,
    ) -> Measurement:
        """The mean of a number over these cases."""
        chosen = values[self.mask]
        return Measurement(
            task,
            metric,
            figure,
            value=float(chosen.mean()),
            count=chosen.size,
            by=self.by,
            group=self.name,
            k=k,
        )


def by_groups(divisions: Mapping[str, Sequence[str]], count: int) -> list[Group]:
    """All cases, then each group of each division, sorted by name; "" is no group."""
    groups = [Group("all", "", np.ones(count, dtype=np.bool_))] if count else []
    for by, names in divisions.items():
        column = np.array(names, dtype=object)
        groups += [
            Group(by, name, np.asarray(column == name, dtype=np.bool_))
            for name in sorted(set(names) - {""})
        ]
    return groups


def shares_above(
    group: Group,
    claim: Claim,
    epsilons: Sequence[float],
    *,
    task: str,
    metric: str,
    figure: str,
    weights: Float64[np.ndarray, " N"] | Bool[np.ndarray, " N"],
    k: int | None = None,
) -> list[Measurement]:
    """For each epsilon, the mean of `weights` where the radius is above it and 0 elsewhere."""
    chosen, reach = weights[group.mask], claim.radii[group.mask]
    return [
        Measurement(
            task,
            metric,
            figure,
            value=float(np.where(reach > epsilon, chosen, 0.0).mean()),
            count=chosen.size,
            by=group.by,
            group=group.name,
            k=k,
            epsilon=epsilon,
            unit=claim.unit,
            formula=claim.formula,
        )
        for epsilon in epsilons
    ]


_DEFAULTS = asdict(Measurement("", "", "", 0.0, 0))
FIELDS = tuple(name for name in _DEFAULTS if name not in {"value", "count"})
"""The fields that say what was measured."""


def _key(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a measurement is found by; numbers are compared exactly, two budgets may lie close."""
    return tuple(fields[name] for name in FIELDS)
