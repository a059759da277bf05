"""The metrics of a plan attacked one after another, and what came of each in plain types."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from model.attack.attacks import attack_within, hunt, search_shortest
from model.attack.ledger import CounterExample, Ledger, Rows
from model.attack.pixel_metric import PixelMetric, metric_of_input, metric_of_upload
from model.attack.plan import MEDIAN, Plan, for_metric
from model.attack.questions import Block, ask
from model.attack.summary import write_report
from model.cli.devices import check_device
from model.cli.progress import Progress
from model.errors import AttackError, RetrievalError
from model.metrics.load import DEFAULT, load_named
from model.pixels.resize import resize_operator

_GRID_METRICS = [DEFAULT, "teacher:efficientnet-lite0@96"]
# From another start it ends within a hundredth of where it ended before.
_SHORTEST_RESTARTS = 2


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Attack every metric of a plan; one that cannot be attacked does not end the others.

    Whatever can be found out about a metric without reading a picture is, before the first is
    attacked. The report is written after each metric: it is to be safe before the next hours begin.

    Returns:
        What attack.json holds, see docs/attacks.md.

    Raises:
        AttackError: two metrics have one name, or the device cannot be used.
        RetrievalError: no metric could be attacked; the reason.
    """
    check_device(plan.device, AttackError)
    report: dict[str, Any] = {
        "setting": plan.setting(), "counter_examples": 0, "runs": [], "not_attacked": [],
    }  # fmt: skip
    errors: dict[str, RetrievalError] = {}

    def leave_out(name: str, exc: RetrievalError) -> None:
        errors.setdefault(str(exc), exc)
        report["not_attacked"].append({"metric": name, "reason": str(exc)})
        if len(specs) > 1:
            progress.step(f"{name} is left out: {exc}")

    specs = plan.metrics or (_GRID_METRICS if plan.grid else [DEFAULT])
    candidates: list[tuple[PixelMetric, list[Plan]]] = []
    for spec in specs:
        try:
            candidates.append(_candidate(spec, plan))
        except RetrievalError as exc:
            leave_out(spec, exc)
    names = [metric.name for metric, _ in candidates]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AttackError(f"two metrics are called {twice!r}; write OTHER=SPEC to rename one")
    for metric, plans in candidates:
        try:
            blocks = ask(plans[0], metric, progress)
            for one in plans:
                fields, found = attack_metric(blocks, one, progress.step)
                report["runs"].append(fields)
                report["counter_examples"] += len(found)
                write_report(plan.out, report, metric.name, found)
        except RetrievalError as exc:
            leave_out(metric.name, exc)
    if not report["runs"]:
        raise next(iter(errors.values())) if len(errors) == 1 else AttackError("; ".join(errors))
    write_report(plan.out, report)
    return report


def _candidate(spec: str, plan: Plan) -> tuple[PixelMetric, list[Plan]]:
    """A metric, and the plans that were found to go with it."""
    name, metric = load_named(spec, weights=plan.weights, device=plan.device)
    seen = of_input = metric_of_input(metric, name=name, device=plan.device)
    if plan.space == "upload":  # of any size: a metric without gradients is refused for all
        seen = metric_of_upload(seen, resize_operator(seen.height, seen.height, seen.height))
    plans = for_metric(plan, is_certified=seen.is_certified, is_black_box=seen.network is None)
    for one in plans:
        check_plan(one, seen)
    return of_input, plans


def check_plan(plan: Plan, metric: PixelMetric) -> None:
    """Refuse a plan that cannot be carried out on a metric, before anything is.

    Raises:
        AttackError: an attack, the norm or a search does not go with the metric.
    """
    for attack in plan.attacks or ():
        if metric.network is None and attack != "square":
            raise AttackError(
                f"{metric.name} has no gradients, so {attack} cannot attack it; square can"
            )
        if attack == "square" and metric.height != metric.width:
            raise AttackError(f"square wants square pictures, got {metric.height}x{metric.width}")
    if MEDIAN in (plan.epsilons or ()) and plan.norm != "l2":
        raise AttackError("the median certified radius is a budget in l2 only")
    if plan.shortest_steps and metric.network is None:
        raise AttackError(f"{metric.name} has no gradients to search the shortest along")
    if plan.hard_queries and not metric.is_certified:
        raise AttackError(f"{metric.name} certifies nothing to find the hardest questions by")


def attack_metric(
    blocks: Sequence[Block], plan: Plan, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[CounterExample]]:
    """Attack one metric's questions, and hold what was found against what was proved.

    Returns:
        One of the report's "runs", and the perturbations of its counter-examples.

    Raises:
        AttackError: the plan cannot be carried out on this metric, or no answer can be flipped.
    """
    if not blocks or not any(block.ids for block in blocks):
        raise AttackError("there is no question to attack")
    for block in blocks:
        check_plan(plan, block.metric)
    ledgers, metric, start = [Ledger(block) for block in blocks], blocks[0].metric, time.monotonic()
    _check_something_to_attack(ledgers)
    is_right, median = _all(ledgers, "is_right"), _median(ledgers)
    say(f"{metric.name}: {is_right.sum()} of {is_right.size} questions answered rightly")
    if plan.shortest_steps:
        say(f"  the shortest perturbation, {plan.shortest_steps} steps")
        for ledger in ledgers:
            search_shortest(ledger, steps=plan.shortest_steps, restarts=1, seed=plan.seed)
    epsilons = plan.budgets(median)
    spent = [_attack_at(ledgers, plan, epsilon, say) for epsilon in epsilons]
    hard_start = time.monotonic()
    if plan.hard_queries:
        _attack_hardest(ledgers, plan, epsilons, say)
    end = time.monotonic()
    found = [one for ledger in ledgers for one in ledger.counter_examples]
    return {
        "metric": metric.name,
        "lipschitz_bound": metric.lipschitz_bound,
        "plan": plan.effort(),
        "questions": is_right.size,
        "natural": float(is_right.mean()),
        "median_certified_radius": median,
        "shares": [
            {
                **_share(ledgers, plan.norm, epsilon),
                "is_median": epsilon == median and MEDIAN in (plan.epsilons or ()),
                **effort,
            }
            for epsilon, effort in zip(epsilons, spent, strict=True)
        ],
        **_ratios(ledgers),
        "seconds": end - start,
        "hard_seconds": end - hard_start,
        "counter_examples": [one.fields for one in found],
        "answers": [answer for ledger in ledgers for answer in ledger.answers()],
    }, found


def _check_something_to_attack(ledgers: Sequence[Ledger]) -> None:
    """Refuse to report that attacks found nothing where there was nothing to find."""
    metric = ledgers[0].block.metric
    can_flip, wanted = _all(ledgers, "is_right"), "one question answered rightly"
    came = f"{can_flip.sum()} of {can_flip.size} were answered rightly"
    if metric.is_certified:
        came += ", none with such a radius" if can_flip.any() else ""
        wanted += ", with a positive and finite certified radius"
        radii = _all(ledgers, "certified_radii")
        can_flip = can_flip & (radii > 0.0) & (radii < np.inf)
    if not can_flip.any():
        raise AttackError(f"nothing was attacked: {metric.name} needs at least {wanted}; {came}")


def _attack_at(
    ledgers: Sequence[Ledger], plan: Plan, epsilon: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Attack everything that stands at a budget; how many questions, and seconds."""
    start, most = time.monotonic(), 0
    for attack in plan.attacks or ():
        attacked = sum(attack_within(ledger, attack, epsilon, plan) for ledger in ledgers)
        most = max(most, attacked)
        standing = sum(int(one.standing(epsilon, plan.norm).sum()) for one in ledgers)
        say(
            f"  {attack} {plan.norm} {epsilon:.4g}: {attacked} attacked, {standing} stand, "
            f"{time.monotonic() - start:.0f} s"
        )
    return {"attacked_questions": most, "seconds": time.monotonic() - start}


def _attack_hardest(
    ledgers: Sequence[Ledger], plan: Plan, epsilons: list[float], say: Callable[[str], None]
) -> None:
    """Attack the questions with the smallest ratios again, with more steps and restarts.

    A budget that is certified lies inside the ball that the hunt looks through, so the plan's
    budgets are tried again on the others only.
    """
    steps, restarts = plan.hard_steps, plan.hard_restarts
    harder = replace(plan, steps=steps, restarts=restarts, seed=plan.seed + 3)
    for ledger, rows in zip(ledgers, _hardest(ledgers, plan.hard_queries), strict=True):
        if not rows.size:
            continue
        say(f"  the hardest {rows.size} again, {steps} steps, {restarts} restarts")
        few = min(restarts, _SHORTEST_RESTARTS)
        search_shortest(ledger, steps=steps, restarts=few, seed=plan.seed + 1, only=rows)
        say("    inside each certified radius")
        hunt(ledger, rows, steps=steps, restarts=restarts, seed=plan.seed + 2)
        for epsilon in epsilons:
            beyond = rows[~_certified_within(ledger, epsilon, plan.norm)[rows]]
            say(f"    {plan.norm} {epsilon:.4g}: {beyond.size} certified for less")
            for attack in plan.attacks or ():
                attack_within(ledger, attack, epsilon, harder, beyond)


def _hardest(ledgers: Sequence[Ledger], count: int) -> list[Rows]:
    """Rows of each ledger with the smallest ratios; those never flipped come last."""
    ratios = np.concatenate([np.nan_to_num(one.ratios(), nan=np.inf) for one in ledgers])
    ratios[~(_all(ledgers, "is_right") & (_all(ledgers, "certified_radii") > 0.0))] = np.nan
    order = np.argsort(ratios, kind="stable")[:count]
    chosen = np.zeros(len(ratios), dtype=np.bool_)
    chosen[order[~np.isnan(ratios[order])]] = True
    ends = np.cumsum([len(one.block.ids) for one in ledgers])
    return [np.flatnonzero(part) for part in np.split(chosen, ends[:-1])]


def _share(ledgers: Sequence[Ledger], norm: str, epsilon: float) -> dict[str, Any]:
    """What is left at one budget, as shares of all questions; None where nothing is known."""
    bounds = [one.reach_bounds(epsilon) if norm == "l2" else None for one in ledgers]
    is_certified = ledgers[0].block.metric.is_certified
    certified = [_certified_within(one, epsilon, norm) if is_certified else None for one in ledgers]
    return {
        "epsilon": epsilon,
        "attacked": _mean([one.standing(epsilon, norm) for one in ledgers]),
        "certified": _mean(certified),
        "reached": _mean([one.reached.get(epsilon) for one in ledgers]),
        "reach_bound": _mean(bounds),
    }


def _certified_within(ledger: Ledger, epsilon: float, norm: str) -> Bool[np.ndarray, " Q"]:
    """Which decisions are proved within a budget; a linf ball lies in an l2 ball sqrt(n) larger."""
    metric = ledger.block.metric
    widening = 1.0 if norm == "l2" else np.sqrt(3.0 * metric.height * metric.width)
    return ledger.is_right & (ledger.certified_radii > epsilon * widening)


def _ratios(ledgers: Sequence[Ledger]) -> dict[str, Any]:
    """Attack radius over certified radius, where both are known and positive."""
    ratios = np.concatenate([ledger.ratios() for ledger in ledgers])
    ratios = ratios[np.isfinite(ratios)]
    return {
        "ratio_median": float(np.median(ratios)) if ratios.size else None,
        "ratio_smallest": float(ratios.min()) if ratios.size else None,
        "ratio_questions": int(ratios.size),
    }


def _median(ledgers: Sequence[Ledger]) -> float | None:
    """Median certified radius of the questions answered rightly; None if not positive or finite."""
    is_right = _all(ledgers, "is_right")
    if not ledgers[0].block.metric.is_certified or not is_right.any():
        return None
    median = float(np.median(_all(ledgers, "certified_radii")[is_right]))
    return median if 0.0 < median < np.inf else None


def _all(ledgers: Sequence[Ledger], name: str) -> np.ndarray:
    """One attribute of every ledger, end to end."""
    return np.concatenate([getattr(ledger, name) for ledger in ledgers])


def _mean(parts: Sequence[np.ndarray | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return float(np.concatenate(known).mean()) if len(known) == len(parts) else None
