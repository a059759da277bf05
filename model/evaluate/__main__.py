"""`python -m model.evaluate`: how good a metric is, and how much of that is proved.

Exit codes: 0 done; 1 nothing was measured, the reason is printed; 2 the command line is wrong;
3 measured and written, but an expectation was not met; 130 interrupted.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from model.cli.budgets import parse_budget
from model.cli.console import Output
from model.cli.progress import Progress
from model.data.edits import EDIT_KINDS
from model.errors import EvaluationError
from model.evaluate.curves import draw_plots, figure_class
from model.evaluate.expectations import as_line, check_expectations, read_expectations
from model.evaluate.record import write_folder
from model.evaluate.report import markdown, summary
from model.pixels.views import VIEW_SETS, view_set

EXIT_UNMET = 3

_EPSILONS = (36 / 255, 72 / 255, 108 / 255, 0.5, 1.0, 2.0, 3.0, 4.0)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(no_args_is_help=True, help=__doc__)
def evaluate(  # noqa: PLR0917 (typer makes options of them)
    task: Annotated[
        Literal["2afc", "retrieval", "copies", "knn", "all"],
        typer.Argument(
            help="2afc: agreement with judged triplets. retrieval: recall of originals by edited"
            " copies. copies: copy detection where some originals are absent. knn: label accuracy"
            " of nearest neighbours. all: retrieval, copies and knn in one pass."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(help="A folder of pictures; of 2afc, a folder in NIGHTS' or BAPPS' layout."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for numbers, report and plots.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric to measure, or NAME=METRIC; repeatable. wave-96 (the default), a"
            " checkpoint file, raw, blockmean16, blockmean8, phash, pdq, teacher:NAME, or"
            " teacher:NAME@96, which sees a 96 x 96 picture.",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add every baseline that is installed.")
    ] = False,
    triplets: Annotated[Path | None, typer.Option(help="Measure 2afc too, on this folder.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of the data; test, else val, if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the edits' strengths.")] = 0,
    copies: Annotated[
        int, typer.Option(min=1, max=len(EDIT_KINDS), help="Edited copies of each picture.")
    ] = 2,
    views: Annotated[
        str,
        typer.Option(
            parser=view_set,
            metavar="|".join(VIEW_SETS),
            help="Views of each picture in the gallery, for every metric; of retrieval and copies.",
        ),
    ] = "none",
    side: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="State radii as over an input of this side: they grow with it. Compares networks"
            " of several sides; each has its own, if not given.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many, evenly spread.")] = None,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(
            parser=parse_budget,
            metavar="BUDGET",
            help="One more budget, 0.25 or 18/255; repeatable.",
        ),
    ] = None,
    expect: Annotated[
        Path | None, typer.Option(help="TOML file of thresholds; exit code 3 if one fails.")
    ] = None,
    hashes: Annotated[
        Path | None,
        typer.Option(help="Refuse pictures that are not those of this list of sha256."),
    ] = None,
    plots: Annotated[bool, typer.Option(help="Draw plots (matplotlib).")] = True,
    device: Annotated[str, typer.Option(help="A torch device, for networks.")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all numbers as JSON, for machines.")
    ] = False,
) -> None:
    if task == "2afc" and (triplets or hashes):
        raise typer.BadParameter("2afc has neither --triplets nor --hashes: its DATA is triplets")
    output = Output(as_json, "nothing was written")
    with output.errors():
        expectations = [] if expect is None else read_expectations(expect)
        if plots:
            figure_class()
        # torch takes seconds to import, and a wrong command line should not wait for it.
        from model.cli.devices import check_device  # noqa: PLC0415
        from model.evaluate.baselines import load_metrics  # noqa: PLC0415
        from model.evaluate.evaluation import PICTURE_TASKS, Evaluation  # noqa: PLC0415

        check_device(device, EvaluationError)
        evaluation = Evaluation(
            metrics=load_metrics(metric or [], with_baselines=baselines, device=device),
            epsilons=sorted({*_EPSILONS, *(epsilon or ())}),
            seed=seed,
            split=split,
            limit=limit,
            hashes=hashes,
            copies=copies,
            views=views,
            side=side,
            counting=Progress(sys.stderr).counter,
        )
        if task == "2afc":
            triplets = data
        else:
            tasks = PICTURE_TASKS if task == "all" else frozenset({task})
            evaluation.measure_pictures(data, tasks)
        if triplets is not None:
            evaluation.measure_triplets(triplets)
        rows = evaluation.rows
        words = ["python", "-m", "model.evaluate", *sys.argv[1:]]
        record = evaluation.record(shlex.join(words))
        if expectations:
            first = next(iter(evaluation.metrics))
            record["expectations"] = check_expectations(expectations, rows, first)
        files = draw_plots(evaluation.curves, rows, side) if plots else {}
        files["report.md"] = markdown(record, rows, list(files)).encode()
        files |= {f"{what}.sha256.txt": one.text() for what, one in evaluation.files.items()}
        write_folder(out, record, rows, files)
    checked = record.get("expectations", [])
    lines = [summary(record, rows), *map(as_line, checked), f"report: {out / 'report.md'}"]
    output.show({**record, "measurements": rows}, "\n".join(lines))
    if unmet := [line for line in checked if not line["is_met"]]:
        typer.echo(f"error: {len(unmet)} of {len(checked)} expectations were not met", err=True)
        raise typer.Exit(EXIT_UNMET)


if __name__ == "__main__":
    app(prog_name="python -m model.evaluate")
