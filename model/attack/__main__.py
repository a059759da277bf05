"""`python -m model.attack`: attack metrics, and hold what is found against what is proved.

Exit codes: 0 done; 1 a certificate was broken, or a metric was not attacked and the reason is
printed; 2 the command line is wrong; 130 interrupted.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from model.attack.plan import GRIDS, MEDIAN, Plan, fitting, grid
from model.cli.console import EXIT_ERROR, Output
from model.cli.progress import Progress
from model.errors import AttackError

_DEFAULT = Plan()
_GRID_METRICS = ("wave-64", "teacher:efficientnet-lite0@64")

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)

DataArgument = Annotated[
    Path, typer.Argument(help="Pictures (a folder or shards); for 2afc, triplets.")
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="Metric to attack, or NAME=METRIC: wave-64, a checkpoint file, raw, blockmean16, "
        "phash, pdq, teacher:NAME[@SIDE], lpips:TRUNK[@SIDE]; repeatable.",
    ),
]
ObjectiveOption = Annotated[
    str,
    typer.Option(
        help="eviction (the true entry leaves rank 1), 2afc (the other picture becomes the nearer "
        "one) or distance (a picture no longer matches itself)."
    ),
]
AttackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        help="apgd-ce, apgd-dlr, apgd-margin, apgd-targeted, pgd, momentum or square; repeatable.",
    ),
]
EpsilonOption = Annotated[
    list[str] | None,
    typer.Option(
        "--epsilon",
        help=f"A budget in [0, 1] units, like 0.5 or 8/255, or {MEDIAN}, the median certified "
        "radius; repeatable.",
    ),
]


@app.command()
def attack(  # noqa: PLR0917 (typer makes options of them)
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")],
    metric: MetricOption = None,
    objective: ObjectiveOption = "eviction",
    space: Annotated[
        str, typer.Option(help="input (the metric's square) or upload (pixels before the resize).")
    ] = "input",
    split: Annotated[str | None, typer.Option(help="Part of the data; the test part.")] = None,
    threshold: Annotated[
        float, typer.Option(help="Match distance, for distance; in (0, 2).")
    ] = 0.1,
    grid_name: Annotated[
        str | None,
        typer.Option("--grid", help=f"A preset instead of the options below: {', '.join(GRIDS)}."),
    ] = None,
    attacks: AttackOption = None,
    norm: Annotated[str, typer.Option(help="l2 or linf.")] = _DEFAULT.norm,
    epsilon: EpsilonOption = None,
    steps: Annotated[int, typer.Option(min=1, help="Of each attack.")] = _DEFAULT.steps,
    restarts: Annotated[int, typer.Option(min=1, help="Of each attack.")] = _DEFAULT.restarts,
    queries: Annotated[
        int | None,
        typer.Option(min=0, help="Questions; 0 for all. With --grid, in place of the preset's."),
    ] = None,
    shortest_steps: Annotated[
        int, typer.Option(min=0, help="Of the search for the shortest; 0 leaves it out.")
    ] = _DEFAULT.shortest_steps,
    hard_queries: Annotated[
        int, typer.Option(min=0, help="Questions with the smallest ratios to attack again.")
    ] = _DEFAULT.hard_queries,
    hard_steps: Annotated[int, typer.Option(min=1)] = _DEFAULT.hard_steps,
    hard_restarts: Annotated[int, typer.Option(min=1)] = _DEFAULT.hard_restarts,
    seed: Annotated[int, typer.Option(min=0, help="Of queries and attacks.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    weights: Annotated[
        Path | None, typer.Option(help="Weights of a teacher, or of LPIPS's trunk.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Attack metrics; fails if one decision is turned within its certified radius."""
    output = Output(as_json, "what is reported so far is in the folder")
    with output.errors():
        custom = None
        if grid_name is None:
            custom = Plan(
                queries=_DEFAULT.queries if queries is None else queries,
                norm=norm,
                epsilons=tuple(_epsilon(one) for one in epsilon or ["0.25", "0.5", "1.0"]),
                attacks=tuple(attacks or ()),
                steps=steps,
                restarts=restarts,
                shortest_steps=shortest_steps,
                hard_queries=hard_queries,
                hard_steps=hard_steps,
                hard_restarts=hard_restarts,
            )
        elif grid_name not in GRIDS:
            raise AttackError(f"a grid must be one of {', '.join(GRIDS)}, got {grid_name!r}")
        setting = {
            "data": str(data), "objective": objective, "space": space, "split": split,
            "threshold": threshold if objective == "distance" else None, "grid": grid_name,
            "seed": seed, "device": device,
        }  # fmt: skip
        specs = metric or list(_GRID_METRICS if grid_name else _GRID_METRICS[:1])
        _attack_all(
            specs,
            custom,
            setting,
            queries,
            threshold=threshold,
            data=data,
            weights=weights,
            out=out,
            output=output,
        )


def _attack_all(
    specs: list[str],
    custom: Plan | None,
    setting: dict[str, Any],
    queries: int | None,
    *,
    threshold: float,
    data: Path,
    weights: Path | None,
    out: Path,
    output: Output,
) -> None:
    # torch takes seconds to import, and --help does without it.
    from model.attack import report  # noqa: PLC0415
    from model.attack.questions import Questions, open_questions  # noqa: PLC0415
    from model.attack.series import Findings, attack_each, candidate  # noqa: PLC0415
    from model.cli.devices import check_device  # noqa: PLC0415
    from model.metrics.metric import Metric  # noqa: PLC0415

    device, space = setting["device"], setting["space"]
    check_device(device, AttackError)
    progress = Progress(sys.stderr)

    def plans(metric: Metric) -> tuple[Plan, ...]:
        is_certified, is_black_box = metric.lipschitz_bound is not None, metric.input_size is None
        chosen = _plans(custom, setting["grid"], is_certified, is_black_box)
        return tuple(one if queries is None else replace(one, queries=queries) for one in chosen)

    def ask(metric: Metric) -> Questions:
        return open_questions(
            data,
            metric,
            objective=setting["objective"],
            split=setting["split"],
            space=space,
            threshold=threshold,
            device=device,
            progress=progress,
        )

    def keep(found: Findings) -> None:
        report.write_report(out, found.results, setting, found.refusals)

    candidates = [
        candidate(spec, plans, weights=weights, space=space, device=device) for spec in specs
    ]
    found = attack_each(candidates, ask, seed=setting["seed"], say=progress.step, keep=keep)
    fields = report.as_json(found.results, setting, found.refusals)
    output.show(fields, report.as_markdown(found.results, setting, found.refusals))
    _conclude(fields, out)


def _conclude(fields: dict[str, Any], out: Path) -> None:
    """Fails where a certificate was broken, or a metric was left out; says which."""
    for one in fields["not_attacked"]:
        typer.echo(f"error: {one['metric']} was not attacked: {one['reason']}", err=True)
    if fields["counter_examples"]:
        typer.echo(
            f"error: {fields['counter_examples']} counter-examples: a certificate is wrong; the "
            f"perturbations are in {out}",
            err=True,
        )
    if fields["counter_examples"] or fields["not_attacked"]:
        raise typer.Exit(EXIT_ERROR)


def _plans(
    custom: Plan | None, grid_name: str | None, is_certified: bool, is_black_box: bool
) -> tuple[Plan, ...]:
    if custom is None:
        return grid(grid_name or GRIDS[0], is_certified=is_certified, is_black_box=is_black_box)
    attacks = custom.attacks or (("square",) if is_black_box else _DEFAULT.attacks)
    return (fitting(replace(custom, attacks=attacks), is_certified, is_black_box),)


def _epsilon(text: str) -> float | str:
    """A number, or a fraction like 8/255."""
    if text == MEDIAN:
        return MEDIAN
    above, slash, below = text.partition("/")
    try:
        value = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0.0 < value < float("inf"):
        raise typer.BadParameter(
            f"a positive number, a fraction or {MEDIAN} was wanted, got {text!r}",
            param_hint="--epsilon",
        )
    return value


if __name__ == "__main__":
    app(prog_name="python -m model.attack")
