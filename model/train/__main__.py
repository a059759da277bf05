"""`python -m model.train`: make a checkpoint, from pictures to proof.

Exit codes: 0 done; 1 nothing was made, the reason is printed; 2 the command line is wrong;
130 interrupted, and the same command resumes.
"""

# Each command imports what it needs when it runs: `--help` loads no torch, and a library that one
# command needs is never asked of another.
# ruff: noqa: PLC0415, PLR0917

import contextlib
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from model.cli.console import Output
from model.cli.progress import Progress
from model.train.config import recipe_names

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

PicturesArgument = Annotated[Path, Argument(help="A folder of pictures, or a corpus.")]
SplitOption = Annotated[str | None, Option("--split", help="Only this part of PICTURES.")]
OutOption = Annotated[Path, Option("--out", help="The run's folder; taken up if it is one.")]
RecipeOption = Annotated[
    str, Option("--recipe", help=f"{', '.join(recipe_names())}, or a TOML file.")
]
StepsOption = Annotated[int | None, Option("--steps", min=1, help="Optimizer steps.")]
MinutesOption = Annotated[
    float | None, Option("--minutes", min=0, help="Finish cleanly after this wall time.")
]
BatchOption = Annotated[
    int | None, Option("--batch-size", min=1, help="Examples a step, all processes together.")
]
SeedOption = Annotated[int | None, Option("--seed", min=0, help="Of every draw.")]
SetOption = Annotated[
    list[str] | None, Option("--set", help="Any setting of the recipe, as name=value.")
]
DeviceOption = Annotated[str, Option("--device", help="A torch device, like cpu or cuda.")]
JsonOption = Annotated[bool, Option("--json", help="Print one JSON object, for machines.")]


@contextlib.contextmanager
def _stopped_as_interrupted() -> Generator[None]:
    """While open, SIGTERM ends the work as Ctrl-C does, and what that clears away is cleared."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command()
def corpus(
    out: Annotated[Path, Argument(help="The folder to make.")],
    recipe: Annotated[
        str, Option("--recipe", help="A recipe's name, a .toml file, or none.")
    ] = "corpus-default",
    source: Annotated[
        list[str] | None,
        Option("--source", help="folder:PATH, trained on beside the recipe; repeatable."),
    ] = None,
    cache: Annotated[
        Path | None,
        Option("--cache", help="Where packages are kept; OUT-cache if not given."),
    ] = None,
    composites: Annotated[
        int | None, Option("--composites", min=0, help="Not as many as the recipe says.")
    ] = None,
    hashes: Annotated[
        Path | None,
        Option("--write-hashes", help="Write the test split's `sha256  source  path` here."),
    ] = None,
    workers: Annotated[int, Option("--workers", min=1, help="Threads.")] = 2,
    as_json: Annotated[bool, Option("--json", help="Print corpus.json, shortened.")] = False,
) -> None:
    """Pack pictures of packages and folders: deduplicated, licensed, split by hash."""
    from model.train.corpus.build import make

    output = Output(as_json, "nothing was written")
    with output.errors(), _stopped_as_interrupted():
        make(
            out,
            recipe,
            source or [],
            cache or out.with_name(f"{out.name}-cache"),
            composites=composites,
            hashes=hashes,
            workers=workers,
            output=output,
        )


@app.command("synthetic-2afc")
def synthetic_2afc(
    pictures: PicturesArgument,
    out: Annotated[Path, Argument(help="The folder to make.")],
    triplets: Annotated[int, Option("--triplets", min=10, max=1_000_000, help="How many.")] = 600,
    seed: Annotated[int, Option("--seed", min=0, help="Another seed, another set.")] = 0,
    split: SplitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make judged triplets of any pictures, in the layout of NIGHTS, for trying things out."""
    from model.train.synthetic_2afc import make

    output = Output(as_json, "nothing was written")
    with output.errors():
        make(pictures, out, triplets, seed, split, output=output)


@app.command()
def teach(
    pictures: PicturesArgument,
    out: Annotated[Path, Argument(help="The folder to write.")],
    teacher: Annotated[
        str, Option("--teacher", help="A teacher: see docs/teachers.md.")
    ] = "efficientnet-lite0",
    weights: Annotated[
        Path | None, Option("--weights", help="The teacher's weights on disk.")
    ] = None,
    split: SplitOption = None,
    size: Annotated[
        int | None, Option("--size", help="Side of the teacher's input, not its own.")
    ] = None,
    framing: Annotated[
        Literal["resize", "center-crop"],
        Option("--framing", help="How a picture becomes square."),
    ] = "resize",
    batch: Annotated[int, Option("--batch", min=1, help="Pictures at once.")] = 32,
    dim: Annotated[
        int | None, Option("--dim", min=1, help="Keep so many principal components.")
    ] = None,
    device: DeviceOption = "cpu",
    threads: Annotated[int, Option("--threads", min=1, help="Of the teacher.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Ask a teacher once for the embedding of every picture; after a stop, the same goes on."""
    from model.cli.devices import check_device
    from model.cli.threads import limit_threads
    from model.data.pictures import open_pictures, splits_of
    from model.errors import TrainingError
    from model.teachers.load import load_teacher
    from model.train.teach import precompute

    output = Output(as_json)
    with output.errors():
        check_device(device, TrainingError)
        limit_threads(threads)
        found = precompute(
            open_pictures(pictures, split=split),
            load_teacher(teacher, weights=weights, size=size, device=device),
            out,
            framing=framing,
            batch=batch,
            dim=dim,
            progress=Progress(sys.stderr),
        )
    fields = {"out": str(out), "count": found.count, "dim": found.dim, "record": found.record}
    text = f"{found.count} embeddings of {found.dim} numbers by {found.name} in {out}"
    if splits := splits_of(pictures):
        text += f", of the splits {', '.join(splits)}" if split is None else f", of {split}"
    output.show(fields, text)


@app.command()
def distill(
    data: Annotated[
        Path, Option("--data", help="A folder of pictures, a corpus, or ImageNet's layout.")
    ],
    out: OutOption,
    recipe: RecipeOption,
    teacher: Annotated[
        str | None, Option("--teacher", help="Another teacher than the recipe's.")
    ] = None,
    teacher_weights: Annotated[
        Path | None, Option("--teacher-weights", help="Its weights, if no package has them.")
    ] = None,
    embeddings: Annotated[
        Path | None, Option("--embeddings", help="A teacher's embeddings, made before.")
    ] = None,
    start: Annotated[
        Path | None, Option("--from", help="Checkpoint to start from; else a fresh student.")
    ] = None,
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Step 1: teach a network a teacher's embeddings, or whatever task the recipe names.

    The same command goes on with a run that was stopped or killed.
    """
    output = Output(as_json)
    with output.errors(), _stopped_as_interrupted():
        from model.train.commands import run
        from model.train.task import Sources

        flags = {
            "teacher": teacher, "steps": steps, "minutes": minutes, "batch_size": batch_size,
            "seed": seed,
        }  # fmt: skip
        sources = Sources(data, out, start, teacher_weights, embeddings, device)
        run(recipe, flags, settings or [], sources, output=output)


@app.command()
def finetune(
    data: Annotated[Path, Option("--data", help="Triplets in the layout of NIGHTS or BAPPS.")],
    start: Annotated[Path, Option("--from", help="Checkpoint to start from, of any kind.")],
    out: OutOption,
    recipe: RecipeOption = "lipsim-small-nights",
    objective: Annotated[
        str | None, Option("--objective", help="hinge (published) or radius.")
    ] = None,
    margin: Annotated[
        float | None, Option("--margin", help="In cosine distance, or in pixels for radius.")
    ] = None,
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    batch_size: BatchOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Step 2: train a checkpoint, of either architecture, on judged triplets.

    The same command goes on with a run that was stopped or killed.
    """
    output = Output(as_json)
    with output.errors(), _stopped_as_interrupted():
        from model.train.commands import run
        from model.train.task import Sources

        flags = {
            "objective": objective, "margin": margin, "steps": steps, "minutes": minutes,
            "batch_size": batch_size, "seed": seed, "task": "finetune",
        }  # fmt: skip
        run(recipe, flags, settings or [], Sources(data, out, start, device=device), output=output)


if __name__ == "__main__":
    app()
