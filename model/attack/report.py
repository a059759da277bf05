"""What a run says: JSON for machines, Markdown for people, and files of what should not exist."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from model.attack.plan import Plan
from model.attack.run import Refusal, Result, Share

JSON_NAME = "attack.json"
MARKDOWN_NAME = "attack.md"


def as_json(
    results: Sequence[Result], setting: dict[str, Any], refusals: Sequence[Refusal] = ()
) -> dict[str, Any]:
    """Everything that is known, in plain types; an infinite radius is null.

    Args:
        results: one a plan and metric.
        setting: what the command was asked, by name.
        refusals: metrics that could not be attacked, or not to the end.
    """
    return {
        "setting": setting,
        "counter_examples": sum(len(one.counter_examples) for one in results),
        "runs": [_run_fields(one) for one in results],
        "not_attacked": [asdict(one) for one in refusals],
    }


def as_markdown(
    results: Sequence[Result], setting: dict[str, Any], refusals: Sequence[Refusal] = ()
) -> str:
    """One table of shares, one of radii, and what they mean."""
    lines = ["# Attacks", ""]
    lines += [f"- {name}: {value}" for name, value in setting.items() if value is not None]
    lines += ["", *_share_table(results), "", *_radius_table(results), ""]
    lines += [_verdict(results), ""]
    for one in refusals:
        lines += [f"**{one.metric} was not attacked:** {one.reason}", ""]
    return "\n".join(lines)


def write_report(
    out: Path,
    results: Sequence[Result],
    setting: dict[str, Any],
    refusals: Sequence[Refusal] = (),
) -> None:
    """Write the JSON, the Markdown, and each counter-example, each aside and then renamed.

    A counter-example is an .npz of `picture` and `delta`, (3, H, W) float64, with
    `certified_radius` and `length`.
    """
    out.mkdir(parents=True, exist_ok=True)
    fields = as_json(results, setting, refusals)
    _write_text(out / JSON_NAME, json.dumps(fields, indent=1, allow_nan=False) + "\n")
    _write_text(out / MARKDOWN_NAME, as_markdown(results, setting, refusals))
    for result in results:
        for number, found in enumerate(result.counter_examples):
            name = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{result.metric}-{found.id}")[:100]
            part = out / f"counter-example-{number}-{name}.part.npz"
            np.savez(
                part,
                picture=found.picture,
                delta=found.delta,
                certified_radius=found.certified_radius,
                length=found.length,
            )
            part.replace(out / part.name.replace(".part.npz", ".npz"))


def _run_fields(result: Result) -> dict[str, Any]:
    ratios = result.ratios
    return {
        "metric": result.metric,
        "lipschitz_bound": result.lipschitz_bound,
        "plan": asdict(result.plan),
        "questions": len(result.answers),
        "natural": result.natural,
        "median_certified_radius": _finite(result.median_certified_radius),
        "shares": [asdict(one) for one in result.shares],
        "ratio_median": _finite(float(np.median(ratios))) if ratios.size else None,
        "ratio_smallest": _finite(float(ratios.min())) if ratios.size else None,
        "ratio_questions": int(ratios.size),
        "seconds": result.seconds,
        "hard_seconds": result.hard_seconds,
        "counter_examples": [
            {
                "id": one.id,
                "found_by": one.found_by,
                "certified_radius": one.certified_radius,
                "length": one.length,
            }
            for one in result.counter_examples
        ],
        "answers": [
            {**asdict(one), "certified_radius": _finite(one.certified_radius)}
            for one in result.answers
        ],
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _share_table(results: Sequence[Result]) -> list[str]:
    rows = [
        "Shares of all questions, in percent: answered rightly; rightly and turned by no attack;",
        "rightly and proved to stay so.",
        "",
        "| metric | norm | epsilon | natural | attacked | certified | questions | attacked at this"
        " epsilon | attacks: steps x restarts | hardest again | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        rows += [_share_row(result, share) for share in result.shares]
    return rows


def _share_row(result: Result, share: Share) -> str:
    plan = result.plan
    epsilon = f"{share.epsilon:.4g}" + (" (median radius)" if share.is_median else "")
    cells = (
        result.metric,
        plan.norm,
        epsilon,
        _percent(result.natural),
        _percent(share.attacked),
        _percent(share.certified),
        str(len(result.answers)),
        str(share.attacked_questions),
        _attacks(plan),
        _hardest(plan),
        f"{share.seconds:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _radius_table(results: Sequence[Result]) -> list[str]:
    rows = [
        "Radii, l2: what is proved and the smallest that an attack has found, of questions answered"
        " rightly.",
        "",
        "| metric | median certified | median attack | attack / certified: median | smallest | of"
        " questions | counter-examples | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        ratios = result.ratios
        found = [one.attack_radius for one in result.answers if one.attack_radius is not None]
        cells = (
            f"{result.metric} ({result.plan.norm})",
            _number(result.median_certified_radius),
            _number(float(np.median(found)) if found else None),
            _number(float(np.median(ratios)) if ratios.size else None),
            _number(float(ratios.min()) if ratios.size else None),
            str(ratios.size),
            str(len(result.counter_examples)) if result.lipschitz_bound is not None else "-",
            f"{result.seconds:.0f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    reached = [(result, share) for result in results for share in result.shares if share.reached]
    if reached:
        rows += ["", "Distances, mean over the questions:", ""]
        rows += ["| metric | norm | epsilon | reached | proved possible |"]
        rows += ["| --- | --- | --- | --- | --- |"]
    for result, share in reached:
        rows.append(
            f"| {result.metric} | {result.plan.norm} | {share.epsilon:.4g} |"
            f" {_number(share.reached)} | {_number(share.reach_bound)} |"
        )
    return rows


def _verdict(results: Sequence[Result]) -> str:
    certified = [one for one in results if one.lipschitz_bound is not None]
    found = [one for result in certified for one in result.counter_examples]
    if found:
        worst = min(one.length / one.certified_radius for one in found)
        return (
            f"**{len(found)} counter-examples: a certificate is wrong.** The worst turns its"
            f" decision at {worst:.4g} of the certified radius. The perturbations are saved."
        )
    if not certified:
        return "No metric here claims a certificate."
    return "No counter-example: no decision was turned within its certified radius."


def _attacks(plan: Plan) -> str:
    shortest = [f"shortest: {plan.shortest_steps} x 1"] if plan.shortest_steps else []
    library = [f"{attack}: {plan.steps} x {plan.restarts}" for attack in plan.attacks]
    return "; ".join(shortest + library)


def _hardest(plan: Plan) -> str:
    if not plan.hard_queries:
        return "-"
    return f"{plan.hard_queries}: {plan.hard_steps} x {plan.hard_restarts}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100.0 * share:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
