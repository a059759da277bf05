"""The commands `distill` and `finetune`: a recipe, changes to it, data in, a proved checkpoint out.

Both run under torchrun as they are: `torchrun --nproc-per-node 8 -m model.train distill ...`.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from model.cli.console import Output
from model.errors import TrainingError
from model.nets.presets import PRESETS, WaveConfig
from model.train.config import TrainConfig, load_recipe, parse_settings, recipe_names
from model.train.copies.wave_student import require_wavelets
from model.train.distributed import current, joined, wait_for_all
from model.train.interrupts import stopped_as_interrupted
from model.train.logs import require_event_files
from model.train.run_state import RunFolder
from model.train.task import Sources, Task, build
from model.train.trainer import claimed, train_in

OutOption = Annotated[Path, typer.Option("--out", help="The run's folder; taken up if it is one.")]
RecipeOption = Annotated[
    str, typer.Option("--recipe", help=f"{', '.join(recipe_names())}, or a TOML file.")
]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps.")]
MinutesOption = Annotated[
    float | None, typer.Option("--minutes", min=0, help="Finish cleanly after this wall time.")
]
BatchOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Examples a step, all processes together.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Of every draw.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any field of the recipe, as name=value.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]


def distill(  # noqa: PLR0917 (typer makes options of them)
    data: Annotated[
        Path, typer.Option("--data", help="A folder of pictures, of shards, or ImageNet's layout.")
    ],
    out: OutOption,
    recipe: RecipeOption,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Another teacher than the recipe's.")
    ] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option("--teacher-weights", help="Its weights, if no package has them.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option("--embeddings", help="A teacher's embeddings, made before.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Checkpoint to start from; else a fresh student.")
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
    flags = {
        "teacher": teacher, "steps": steps, "minutes": minutes, "batch_size": batch_size,
        "seed": seed,
    }  # fmt: skip
    sources = Sources(data, start, teacher_weights, embeddings, device)
    _run(recipe, flags, settings, sources, out, as_json=as_json)


def finetune(  # noqa: PLR0917 (likewise)
    data: Annotated[
        Path, typer.Option("--data", help="Triplets in the layout of NIGHTS or BAPPS.")
    ],
    start: Annotated[Path, typer.Option("--from", help="Checkpoint to start from, of any kind.")],
    out: OutOption,
    recipe: RecipeOption = "lipsim-small-nights",
    objective: Annotated[
        str | None, typer.Option("--objective", help="hinge (published) or radius.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="In cosine distance, or in pixels for radius.")
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
    flags = {
        "objective": objective, "margin": margin, "steps": steps, "minutes": minutes,
        "batch_size": batch_size, "seed": seed, "task": "finetune",
    }  # fmt: skip
    _run(recipe, flags, settings, Sources(data, start, device=device), out, as_json=as_json)


def _run(
    recipe: str,
    flags: dict[str, Any],
    settings: list[str] | None,
    sources: Sources,
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Builds what the recipe names, trains it, and says what came of it."""
    output = Output(as_json)
    with output.errors(), stopped_as_interrupted():
        config = load_recipe(recipe).with_changes(parse_settings(settings or []))
        config = config.with_changes({k: v for k, v in flags.items() if v is not None})
        _require_libraries(config, sources)
        # Claimed before anything is computed or kept: a second run is refused at once.
        with joined(sources.device) as device, claimed(out, device) as folder:
            if current().leads:
                folder.agree_settings(config)
            student, task = build(config, dataclasses.replace(sources, device=device, work=out))
            wait_for_all(device)  # nothing is kept before every process has tried its pictures
            train_in(folder, student, task, _with_an_end(config, task), device=device)
            if current().leads:
                _show(output, folder)


def _require_libraries(config: TrainConfig, sources: Sources) -> None:
    """Find out before anything is read that a library of the run is missing.

    Raises:
        DependencyError: one is; a teacher's is looked for when the teacher is loaded, first of all.
    """
    if config.tensorboard:
        require_event_files()
    if sources.start is None and isinstance(PRESETS[config.preset], WaveConfig):
        require_wavelets()


def _with_an_end(config: TrainConfig, task: Task) -> TrainConfig:
    """The config with its epochs as steps."""
    if config.steps or not config.epochs:
        return config
    steps = int(config.epochs * task.examples / config.batch_size)
    return dataclasses.replace(config, steps=max(1, steps))


def _show(output: Output, folder: RunFolder) -> None:
    """What came of a run."""
    report = folder.read_report()
    if report is None:
        raise TrainingError(f"{folder.report} is gone")
    best = report["best"]
    lines = [
        f"checkpoint   {folder.best}",
        f"fingerprint  {best['fingerprint']}",
        f"proved       Lipschitz bound {best['lipschitz_bound']:.12f}; "
        f"largest stretch found {best['lipschitz_estimate']:.6f}",
        *(f"{name:12} {value:.4f}" for name, value in best["scores"].items()),
    ]
    output.show({"checkpoint": str(folder.best), **report}, "\n".join(lines))
