"""How hard a run attacks: the numbers that stand beside every share it reports."""

from dataclasses import dataclass, replace

MEDIAN = "median"
"""Stands for the median certified radius of the questions answered right."""


@dataclass(frozen=True)
class Plan:
    """What is asked, and what each question is attacked with.

    Attributes:
        queries: how many questions; 0 takes all there are.
        norm: what a budget counts: "l2" or "linf".
        epsilons: budgets in [0, 1] units; MEDIAN stands for a number known later.
        attacks: of the library, by name, in the order they run.
        steps: gradient steps of each attack.
        restarts: of each attack, each from another place.
        shortest_steps: steps of the search for the shortest perturbation; 0 leaves it out.
        hard_queries: the questions with the smallest attack / certified ratio, which are attacked
            again; 0 leaves that out.
        hard_steps: steps of each attack on these.
        hard_restarts: restarts of each attack on these.
    """

    queries: int = 200
    norm: str = "l2"
    epsilons: tuple[float | str, ...] = (0.25, 0.5, 1.0)
    attacks: tuple[str, ...] = ("pgd",)
    steps: int = 50
    restarts: int = 2
    shortest_steps: int = 40
    hard_queries: int = 0
    hard_steps: int = 200
    hard_restarts: int = 10


_DEFAULT_CERTIFIED = Plan(epsilons=(0.25, 0.5, 1.0, MEDIAN), hard_queries=20)
_DEFAULT_UNCERTIFIED = Plan(queries=60, restarts=1, shortest_steps=0)
_DEFAULT_BLACK_BOX = Plan(queries=60, attacks=("square",), steps=300, restarts=1, shortest_steps=0)

_FULL = Plan(
    queries=0,
    epsilons=(0.25, 0.5, 1.0, 2.0, 3.0, MEDIAN),
    attacks=("apgd-ce", "apgd-targeted", "pgd", "momentum", "square"),
    steps=100,
    restarts=3,
    hard_queries=100,
)
_FULL_LINF = replace(
    _FULL,
    norm="linf",
    epsilons=(1 / 255, 2 / 255, 4 / 255, 8 / 255),
    shortest_steps=0,
    hard_queries=0,
)

GRIDS = ("default", "full")


def grid(name: str, *, is_certified: bool, is_black_box: bool) -> tuple[Plan, ...]:
    """The plans of a preset for one metric.

    `default` is made for one processor core and 20 minutes. A metric that falls to one restart
    gains nothing from ten, so metrics without a certificate get the shorter plan. `full` is made
    for an accelerator.

    Args:
        name: one of GRIDS.
        is_certified: whether the metric proves radii.
        is_black_box: whether it has no gradients.
    """
    if name == "default":
        if is_black_box:
            return (_DEFAULT_BLACK_BOX,)
        return (_DEFAULT_CERTIFIED if is_certified else _DEFAULT_UNCERTIFIED,)
    plans = (_FULL, _FULL_LINF)
    if is_black_box:
        plans = tuple(replace(plan, attacks=("square",), steps=2000) for plan in plans)
    return tuple(fitting(one, is_certified, is_black_box) for one in plans)


def fitting(plan: Plan, is_certified: bool, is_black_box: bool) -> Plan:
    """The part of a plan that makes sense for a metric.

    Without a certificate nothing is hardest; without gradients nothing leads to the shortest.
    """
    return replace(
        plan,
        hard_queries=plan.hard_queries if is_certified else 0,
        shortest_steps=0 if is_black_box else plan.shortest_steps,
    )
