"""A run's report: JSON for machines, Markdown for people, and files of what must not exist."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.attack.ledger import CounterExample
from model.cli.files import write_aside
from model.cli.tables import markdown_table

_SHARES = """\
Shares of all questions, in percent: answered rightly; rightly and flipped by no attack;
rightly and proved to stay so.
"""
_RADII = """\
Radii, l2: what is proved and the smallest that an attack has found, of questions answered rightly.
"""


def write_report(
    out: Path,
    report: dict[str, Any],
    metric: str = "",
    counter_examples: Sequence[CounterExample] = (),
) -> None:
    """Write attack.json, attack.md, and each new counter-example, whole or not at all.

    A counter-example is an .npz of `picture` and `delta`, (3, H, W) float64, with
    `certified_radius` and `length`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with write_aside(out / "attack.json") as path:
        path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with write_aside(out / "attack.md") as path:
        path.write_text(as_markdown(report), encoding="utf-8")
    for number, found in enumerate(counter_examples):
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{metric}-{found.fields['id']}")[:100]
        numbers = {key: found.fields[key] for key in ("certified_radius", "length")}
        with write_aside(out / f"counter-example-{number}-{name}.npz") as path:
            np.savez(path, picture=found.picture, delta=found.delta, **numbers)


def as_markdown(report: dict[str, Any]) -> str:
    """One table of shares, one of radii, and what they mean."""
    runs = report["runs"]
    lines = ["# Attacks", ""]
    lines += [f"- {name}: {one}" for name, one in report["setting"].items() if one is not None]
    shares = [(one, share) for one in runs for share in one["shares"]]
    lines += ["", _SHARES, _table(_share_row(*both) for both in shares)]
    lines += ["", _RADII, _table(map(_radius_row, runs))]
    reached = [
        {
            "metric": one["metric"],
            "norm": one["plan"]["norm"],
            "epsilon": _number(share["epsilon"]),
            "reached": _number(share["reached"]),
            "proved possible": _number(share["reach_bound"]),
        }
        for one, share in shares
        if share["reached"]
    ]
    if reached:
        lines += ["", "Distances, mean over the questions:", "", _table(reached)]
    lines += ["", _verdict(runs), ""]
    for one in report["not_attacked"]:
        lines += [f"**{one['metric']} was not attacked:** {one['reason']}", ""]
    return "\n".join(lines)


def _table(rows: Iterable[dict[str, Any]]) -> str:
    lines = list(rows)
    return markdown_table(list(lines[0]), [list(line.values()) for line in lines]) if lines else ""


def _share_row(run: dict[str, Any], share: dict[str, Any]) -> dict[str, Any]:
    plan = run["plan"]
    attacks = [f"{attack}: {plan['steps']} x {plan['restarts']}" for attack in plan["attacks"]]
    if plan["shortest_steps"]:
        attacks.insert(0, f"shortest: {plan['shortest_steps']} x 1")
    again = f"{plan['hard_queries']}: {plan['hard_steps']} x {plan['hard_restarts']}"
    return {
        "metric": run["metric"],
        "norm": plan["norm"],
        "epsilon": _number(share["epsilon"]) + (" (median radius)" if share["is_median"] else ""),
        "natural": _percent(run["natural"]),
        "attacked": _percent(share["attacked"]),
        "certified": _percent(share["certified"]),
        "questions": run["questions"],
        "attacked at this epsilon": share["attacked_questions"],
        "attacks: steps x restarts": "; ".join(attacks),
        "hardest again": again if plan["hard_queries"] else "-",
        "s": f"{share['seconds']:.0f}",
    }


def _radius_row(run: dict[str, Any]) -> dict[str, Any]:
    found = [one["attack_radius"] for one in run["answers"] if one["attack_radius"] is not None]
    return {
        "metric": f"{run['metric']} ({run['plan']['norm']})",
        "median certified": _number(run["median_certified_radius"]),
        "median attack": _number(float(np.median(found)) if found else None),
        "attack / certified: median": _number(run["ratio_median"]),
        "smallest": _number(run["ratio_smallest"]),
        "of questions": run["ratio_questions"],
        "counter-examples": "-" if run["lipschitz_bound"] is None else len(run["counter_examples"]),
        "s": f"{run['seconds']:.0f}",
    }


def _verdict(runs: Sequence[dict[str, Any]]) -> str:
    if found := [one for run in runs for one in run["counter_examples"]]:
        worst = min(one["length"] / one["certified_radius"] for one in found)
        return (
            f"**{len(found)} counter-examples: a certificate is wrong.** The worst flips its"
            f" decision at {worst:.4g} of the certified radius. The perturbations are saved."
        )
    if all(run["lipschitz_bound"] is None for run in runs):
        return "No metric here claims a certificate."
    return "No counter-example: no decision was flipped within its certified radius."


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100.0 * share:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
