"""`python -m model.attack`: attack metrics, and hold what is found against what is proved.

Exit codes: 0 done; 1 a certificate was broken, or a metric was not attacked and the reason is
printed; 2 the command line is wrong; 130 interrupted.
"""

import sys
from functools import wraps
from typing import Any

import typer

from model.attack.plan import Plan
from model.cli.console import EXIT_ERROR, Output
from model.cli.progress import Progress

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


@app.command()
@wraps(Plan, assigned=("__annotations__",), updated=())
def attack(**options: Any) -> None:
    """Attack metrics; fails if one decision is flipped within its certified radius."""
    plan = Plan(**options)
    output = Output(plan.as_json, "what is reported so far is in the folder")
    with output.errors():
        # torch takes seconds to import, and --help does without it.
        from model.attack.run import run  # noqa: PLC0415
        from model.attack.summary import as_markdown  # noqa: PLC0415

        report = run(plan, Progress(sys.stderr))
        output.show(report, as_markdown(report))
    for one in report["not_attacked"]:
        typer.echo(f"error: {one['metric']} was not attacked: {one['reason']}", err=True)
    if report["counter_examples"]:
        typer.echo(
            f"error: {report['counter_examples']} counter-examples: a certificate is wrong; the "
            f"perturbations are in {plan.out}",
            err=True,
        )
    if report["counter_examples"] or report["not_attacked"]:
        raise typer.Exit(EXIT_ERROR)


if __name__ == "__main__":
    app(prog_name="python -m model.attack")
