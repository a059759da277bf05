"""What `distill` and `finetune` do: a recipe, changes to it, data in, a proved checkpoint out.

Both run under torchrun as they are: `torchrun --nproc-per-node 8 -m model.train distill ...`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

from model.cli.console import Output
from model.errors import TrainingError
from model.nets.presets import PRESETS, WaveConfig
from model.train import distill, finetune
from model.train.config import load_recipe, parse_settings
from model.train.copies import head_task
from model.train.copies.wave_student import require_wavelets
from model.train.distributed import current, joined
from model.train.run_folder import RunFolder, require_event_files
from model.train.task import Sources
from model.train.trainer import train

TASKS = {
    "distill": distill.build,
    "finetune": finetune.build,
    "copies": head_task.build,
}


def run(
    recipe: str,
    flags: Mapping[str, object],
    settings: Sequence[str],
    sources: Sources,
    *,
    output: Output,
) -> None:
    """Builds what a recipe names, trains it in a folder, and says what came of it.

    Flags are settings by name, None where one was not given; settings are others, as name=value.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    config = load_recipe(recipe).with_changes({**parse_settings(settings), **given})
    # Found out before anything is read; a teacher's library, when it is loaded, first of all.
    if config.tensorboard:
        require_event_files()
    if sources.start is None and isinstance(PRESETS[config.preset], WaveConfig):
        require_wavelets()
    with joined(sources.device) as device:
        build = partial(TASKS[config.task], config, dataclasses.replace(sources, device=device))
        train(config, sources.work, build, device=device)
        if current().is_first:
            _show(output, RunFolder(sources.work))


def _show(output: Output, folder: RunFolder) -> None:
    report = folder.read_report()
    if report is None:
        raise TrainingError(f"{folder.report} is gone")
    best = report["best"]
    lines = [
        f"checkpoint   {folder.best} (validated best, step {best['step']}; the last step's, which "
        f"a published recipe keeps: {folder.last.name})",
        f"fingerprint  {best['fingerprint']}",
        f"proved       Lipschitz bound {best['lipschitz_bound']:.12f}; "
        f"largest stretch found {best['lipschitz_estimate']:.6f}",
        *(f"{name:12} {value:.4f}" for name, value in best["scores"].items()),
    ]
    output.show({"checkpoint": str(folder.best), **report}, "\n".join(lines))
