"""`python -m model.evaluate`: how good a metric is, and how much of that is proved.

Exit codes: 0 done; 1 nothing was measured, the reason is printed; 2 the command line is wrong;
3 measured and written, but an expectation was not met; 130 interrupted.
"""

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from model.cli.console import Output
from model.cli.progress import Progress
from model.errors import EvaluationError
from model.evaluate.expectations import Verdict, judge, parse_epsilon, read_expectations
from model.evaluate.measurement import DEFAULT_EPSILONS, Book
from model.evaluate.plots import require_matplotlib, write_plots
from model.evaluate.report import summary, write_report
from model.evaluate.results import Results, write_aside, write_results

EXIT_UNMET = 3

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

DataArgument = Annotated[
    Path, typer.Argument(help="A folder of pictures or of tar shards, or one tar shard.")
]
TripletsArgument = Annotated[Path, typer.Argument(help="A folder in NIGHTS' or BAPPS' layout.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for results, report and plots.")]
MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="Metric to measure, or NAME=METRIC; repeatable. wave-64 (the default), a checkpoint"
        " file, raw, blockmean16, blockmean8, phash, pdq, teacher:NAME, or teacher:NAME@64, which"
        " sees a 64 x 64 picture.",
    ),
]
BaselinesOption = Annotated[
    bool, typer.Option("--baselines", help="Add every baseline that is installed.")
]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Part of the data; test, else val, if not given.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the edits' strengths.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Take so many, evenly spread.")
]
EpsilonOption = Annotated[
    list[str] | None,
    typer.Option("--epsilon", help="One more budget, 0.25 or 18/255; repeatable."),
]
ExpectOption = Annotated[
    Path | None, typer.Option("--expect", help="TOML file of thresholds; exit code 3 if one fails.")
]
TripletsOption = Annotated[
    Path | None, typer.Option("--triplets", help="Measure 2AFC too, on this folder.")
]
HashesOption = Annotated[
    Path | None,
    typer.Option("--hashes", help="Refuse pictures that are not those of this list of sha256."),
]
PlotsOption = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw plots (matplotlib).")]
DeviceOption = Annotated[str, typer.Option("--device", help="A torch device, for networks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print results.json, for machines.")]


@dataclass(frozen=True)
class _Options:
    """The options that all commands have."""

    out: Path
    metrics: list[str]
    baselines: bool
    split: str | None
    seed: int
    limit: int | None
    epsilons: list[str]
    expect: Path | None
    hashes: Path | None
    plots: bool
    device: str
    as_json: bool


def _run(
    name: str, options: _Options, *, pictures: Path | None = None, triplets: Path | None = None
) -> None:
    """Measure, write, judge."""
    epsilons = _epsilons(options.epsilons)
    output = Output(options.as_json, "nothing was written")
    with output.errors():
        expectations = [] if options.expect is None else read_expectations(options.expect)
        if options.plots:
            require_matplotlib()
        results = _measure(name, options, epsilons, pictures=pictures, triplets=triplets)
        book = Book(results.measurements)
        verdicts = judge(expectations, book, str(results.metrics[0]["name"]))
        record = _write(results, verdicts, options)
    if options.as_json:
        typer.echo(json.dumps(record, indent=1, allow_nan=False))
    else:
        lines = [summary(results), *(verdict.line() for verdict in verdicts)]
        typer.echo("\n".join([*lines, f"report: {options.out / 'report.md'}"]))
    if unmet := [verdict for verdict in verdicts if not verdict.is_met]:
        typer.echo(f"error: {len(unmet)} of {len(verdicts)} expectations were not met", err=True)
        raise typer.Exit(EXIT_UNMET)


def _measure(
    name: str,
    options: _Options,
    epsilons: tuple[float, ...],
    *,
    pictures: Path | None,
    triplets: Path | None,
) -> Results:
    # torch takes seconds to import, and a wrong command line should not wait for it.
    from model.cli.devices import check_device  # noqa: PLC0415
    from model.evaluate import run  # noqa: PLC0415
    from model.evaluate.subjects import describe, load_metrics  # noqa: PLC0415

    check_device(options.device, EvaluationError)
    metrics = load_metrics(options.metrics, with_baselines=options.baselines, device=options.device)
    request = run.Request(
        metrics=metrics,
        epsilons=epsilons,
        seed=options.seed,
        split=options.split,
        limit=options.limit,
        hashes=options.hashes,
        counting=Progress(sys.stderr).counter,
    )
    outcome = run.Outcome()
    if pictures is not None:
        tasks = run.PICTURE_TASKS if name == "all" else frozenset({name})
        outcome.merge(run.evaluate_pictures(pictures, request, tasks))
    if triplets is not None:
        outcome.merge(run.evaluate_triplets(triplets, request))
    return Results(
        command=_command_line(name, options, pictures=pictures, triplets=triplets),
        seed=options.seed,
        limit=options.limit,
        split=options.split,
        data=outcome.data,
        metrics=[describe(name, metric) for name, metric in metrics.items()],
        measurements=outcome.measurements,
        curves=outcome.curves,
    )


def _write(results: Results, verdicts: list[Verdict], options: _Options) -> dict[str, Any]:
    options.out.mkdir(parents=True, exist_ok=True)
    names = write_plots(results.curves, options.out) if options.plots else []
    report = write_report(results, verdicts, names)
    write_aside(options.out / "report.md", report.encode())
    extra = {"expectations": [asdict(verdict) for verdict in verdicts]} if verdicts else {}
    return write_results(results, options.out, extra)


def _epsilons(texts: list[str]) -> tuple[float, ...]:
    try:
        extra = [parse_epsilon(text) for text in texts]
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--epsilon") from exc
    return tuple(sorted({*DEFAULT_EPSILONS, *extra}))


def _command_line(
    name: str, options: _Options, *, pictures: Path | None, triplets: Path | None
) -> str:
    """The command that measures this again."""
    words = ["python", "-m", "model.evaluate", name, str(pictures or triplets)]
    if pictures is not None and triplets is not None:
        words += ["--triplets", str(triplets)]
    for spec in options.metrics:
        words += ["--metric", spec]
    words += ["--baselines"] * options.baselines
    words += ["--out", str(options.out), "--seed", str(options.seed)]
    for option, value in (("--split", options.split), ("--limit", options.limit)):
        words += [] if value is None else [option, str(value)]
    for text in options.epsilons:
        words += ["--epsilon", text]
    for option, path in (("--expect", options.expect), ("--hashes", options.hashes)):
        words += [] if path is None else [option, str(path)]
    return shlex.join(words)


@app.command("2afc", help="Agreement with judged triplets, natural and certified.")
def two_alternatives(  # noqa: PLR0917 (typer makes options of them)
    data: TripletsArgument,
    out: OutOption,
    metric: MetricOption = None,
    baselines: BaselinesOption = False,
    split: SplitOption = None,
    seed: SeedOption = 0,
    limit: LimitOption = None,
    epsilon: EpsilonOption = None,
    expect: ExpectOption = None,
    plots: PlotsOption = True,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Agreement with judged triplets."""
    options = _Options(
        out, metric or [], baselines, split, seed, limit, epsilon or [], expect, None, plots,
        device, as_json,
    )  # fmt: skip
    _run("2afc", options, triplets=data)


def _picture_command(name: str, help_line: str) -> None:
    """Register an evaluation of a set of pictures; they all have the same options."""

    @app.command(name, help=help_line)
    def command(  # noqa: PLR0917  # pyright: ignore[reportUnusedFunction]
        data: DataArgument,
        out: OutOption,
        metric: MetricOption = None,
        baselines: BaselinesOption = False,
        triplets: TripletsOption = None,
        split: SplitOption = None,
        seed: SeedOption = 0,
        limit: LimitOption = None,
        epsilon: EpsilonOption = None,
        expect: ExpectOption = None,
        hashes: HashesOption = None,
        plots: PlotsOption = True,
        device: DeviceOption = "cpu",
        as_json: JsonOption = False,
    ) -> None:
        options = _Options(
            out, metric or [], baselines, split, seed, limit, epsilon or [], expect, hashes,
            plots, device, as_json,
        )  # fmt: skip
        _run(name, options, pictures=data, triplets=triplets)


_picture_command("retrieval", "Recall of originals by edited copies, natural and certified.")
_picture_command("copies", "Copy detection where some originals are absent.")
_picture_command("knn", "Label accuracy of nearest neighbours.")
_picture_command("all", "Retrieval, copies and knn in one pass; 2afc too with --triplets.")


if __name__ == "__main__":
    app(prog_name="python -m model.evaluate")
