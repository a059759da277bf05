"""What a run is asked: each field is an option of `python -m model.attack`, said here once."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from model.cli.budgets import parse_budget
from model.pixels.views import VIEW_SETS, view_set

MEDIAN = "median"
"""Stands for the median certified radius of the questions answered right."""

ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-margin", "apgd-targeted", "pgd", "momentum", "square")


def _budget(text: str) -> float | str:
    return text if text == MEDIAN else parse_budget(text)


def _attack(text: str) -> str:
    if text not in ATTACKS:
        raise ValueError(f"one of {', '.join(ATTACKS)} was wanted, got {text!r}")
    return text


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is attacked, and from `queries` on how hard; None is settled metric by metric."""

    data: Annotated[Path, typer.Argument(help="A folder of pictures; for 2afc, of triplets.")]
    out: Annotated[Path, typer.Option(help="Folder for the report.")]
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="Metric to attack, or NAME=METRIC: wave-96, a checkpoint file, raw, blockmean16, "
            "phash, pdq, teacher:NAME or teacher:NAME@SIDE; repeatable.",
        ),
    ] = None
    objective: Annotated[
        Literal["eviction", "2afc", "distance"],
        typer.Option(
            help="eviction (the true entry leaves rank 1), 2afc (the other picture becomes the "
            "nearer one) or distance (a picture no longer matches itself)."
        ),
    ] = "eviction"
    space: Annotated[
        Literal["input", "upload"],
        typer.Option(help="input (the metric's square) or upload (pixels before the resize)."),
    ] = "input"
    views: Annotated[
        str,
        typer.Option(
            parser=view_set,
            metavar="|".join(VIEW_SETS),
            help="Views of each picture in the gallery, for eviction.",
        ),
    ] = "none"
    split: Annotated[str | None, typer.Option(help="Part of the data; test, else val.")] = None
    threshold: Annotated[float, typer.Option(help="Match distance, for distance; in (0, 2).")] = 0.1
    seed: Annotated[int, typer.Option(min=0, help="Of queries and attacks.")] = 0
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu"
    weights: Annotated[Path | None, typer.Option(help="Weights of a teacher.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False
    grid: Annotated[
        Literal["default", "full"] | None,
        typer.Option(help="A preset in place of the options below."),
    ] = None
    queries: Annotated[
        int | None,
        typer.Option(min=0, help="Questions; 0 for all. With --grid, in place of the preset's."),
    ] = None
    norm: Annotated[Literal["l2", "linf"], typer.Option(help="What a budget counts.")] = "l2"
    epsilons: Annotated[
        list[Any] | None,  # of numbers, and MEDIAN
        typer.Option(
            "--epsilon",
            parser=_budget,
            metavar="BUDGET",
            help=f"A budget in [0, 1] units, like 0.5 or 8/255, or {MEDIAN}, the median certified "
            "radius; repeatable.",
        ),
    ] = None
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--attack", parser=_attack, metavar="ATTACK", help=f"{', '.join(ATTACKS)}; repeatable."
        ),
    ] = None
    steps: Annotated[int, typer.Option(min=1, help="Of each attack.")] = 50
    restarts: Annotated[int, typer.Option(min=1, help="Of each attack.")] = 2
    shortest_steps: Annotated[
        int, typer.Option(min=0, help="Of the search for the shortest; 0 leaves it out.")
    ] = 40
    hard_queries: Annotated[
        int, typer.Option(min=0, help="Questions with the smallest ratios to attack again.")
    ] = 0
    hard_steps: Annotated[int, typer.Option(min=1, help="Of each attack on these.")] = 200
    hard_restarts: Annotated[int, typer.Option(min=1, help="Of each attack on these.")] = 10

    def setting(self) -> dict[str, Any]:
        """What is the same for all metrics, by name, in plain types."""
        names = ("objective", "space", "views", "split", "threshold", "grid", "seed", "device")
        chosen = {name: getattr(self, name) for name in names}
        if self.objective != "distance":
            chosen["threshold"] = None
        return {"data": str(self.data), **chosen}

    def effort(self) -> dict[str, Any]:
        """How hard one metric is attacked, by name, in plain types."""
        names = [one.name for one in fields(self)]
        return {name: getattr(self, name) for name in names[names.index("queries") :]}

    def budgets(self, median: float | None) -> list[float]:
        """The budgets in numbers, ascending; the median is left out where there is none."""
        numbers = {median if one == MEDIAN else one for one in self.epsilons or ()}
        return sorted(one for one in numbers if one is not None)


_EPSILONS = [0.25, 0.5, 1.0]
_CERTIFIED: dict[str, Any] = {
    "queries": 200,
    "norm": "l2",
    "epsilons": [*_EPSILONS, MEDIAN],
    "attacks": ["pgd"],
    "steps": 50,
    "restarts": 2,
    "shortest_steps": 40,
    "hard_queries": 20,
    "hard_steps": 200,
    "hard_restarts": 10,
}
_UNCERTIFIED = _CERTIFIED | {
    "queries": 60,
    "epsilons": _EPSILONS,
    "restarts": 1,
    "shortest_steps": 0,
}
_BLACK_BOX = _UNCERTIFIED | {"attacks": ["square"], "steps": 300}
_FULL = _CERTIFIED | {
    "queries": 0,
    "epsilons": [*_EPSILONS, 2.0, 3.0, MEDIAN],
    "attacks": ["apgd-ce", "apgd-targeted", "pgd", "momentum", "square"],
    "steps": 100,
    "restarts": 3,
    "hard_queries": 100,
}
_FULL_LINF = _FULL | {
    "norm": "linf",
    "epsilons": [levels / 255 for levels in (1, 2, 4, 8)],
    "shortest_steps": 0,
    "hard_queries": 0,
}
_FULL_BLACK_BOX: dict[str, Any] = {"attacks": ["square"], "steps": 2000}


def for_metric(plan: Plan, *, is_certified: bool, is_black_box: bool) -> list[Plan]:
    """The plans that a metric is attacked by: the options as they stand, or those of a grid.

    `default` is made for one processor core and 20 minutes. A metric that falls to one restart
    gains nothing from ten, so metrics without a certificate get the shorter plan. `full` is made
    for an accelerator. What makes no sense for a metric is left out: without a certificate nothing
    is hardest; without gradients nothing leads to the shortest.
    """
    efforts: list[dict[str, Any]]
    if plan.grid == "default":
        gradient = _CERTIFIED if is_certified else _UNCERTIFIED
        efforts = [_BLACK_BOX if is_black_box else gradient]
    elif plan.grid == "full":
        changes = _FULL_BLACK_BOX if is_black_box else {}
        efforts = [_FULL | changes, _FULL_LINF | changes]
    else:
        attacks = plan.attacks or ["square" if is_black_box else "pgd"]
        efforts = [{"queries": 200, "epsilons": plan.epsilons or _EPSILONS, "attacks": attacks}]
    chosen = [replace(plan, **one) for one in efforts]
    return [
        replace(
            one,
            queries=one.queries if plan.queries is None else plan.queries,
            hard_queries=one.hard_queries if is_certified else 0,
            shortest_steps=0 if is_black_box else one.shortest_steps,
        )
        for one in chosen
    ]
