# pyright: basic
"""One training run, read top to bottom: claim the folder, go on from what is there, step, conclude.

The next state of a run is a pure function of the last one and of (seed, step): there is no global
generator, and no order that a data loader decides. So, on a CPU, a run that is killed and started
again ends with the very weights of one that was not, as long as it is limited by steps and not by
time. On an accelerator it does so only as far as torch's own routines repeat their sums.
"""

import contextlib
import math
import platform
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.cli.progress import Progress
from model.errors import TrainingError
from model.nets.checkpoint import Checkpoint, load_checkpoint
from model.train.batches import batches
from model.train.config import TrainConfig
from model.train.distributed import averaged, current, lost_company, places_of, wait_for_all
from model.train.proof import write_proved
from model.train.run_folder import Best, MetricLog, RunFolder, replacing
from model.train.schedules import learning_rate
from model.train.state import TrainingState
from model.train.student import Student
from model.train.task import Task

# numpy's, torch's on processors, and what a worker process passes on as text.
_OUT_OF_MEMORY = (
    "unable to allocate", "can't allocate memory", "not enough memory", "out of memory"
)  # fmt: skip


def train(
    config: TrainConfig,
    out: Path,
    build: Callable[[], tuple[Student, Task]],
    *,
    device: str = "cpu",
    stream: TextIO | None = None,
) -> Checkpoint:
    """Trains a student, and writes the checkpoints that could be proved.

    Where OUT holds a run of the same config and data, it goes on from its last saved state, or
    gives its result if it is finished. A second run there, or one with other settings, is refused
    before anything is built. Progress goes to `stream`, or to standard error.

    Returns:
        The checkpoint with the higher validation score: of the last step, or the best before it.

    Raises:
        RetrievalError: OUT holds another run, or one at work; a number is not finite; a process of
            this run ended; or the network cannot be proved, or is not the one that was trained.
        KeyboardInterrupt: Ctrl-C or SIGTERM came, and the state was saved.
    """
    world, folder = current(), RunFolder(out)
    if not (config.steps or config.minutes or config.epochs):
        raise TrainingError("a run needs an end: set steps, epochs or minutes")
    places_of(0, config.batch_size, world.rank, world.size)  # refuses what cannot be dealt out
    with folder.claimed() if world.is_first else contextlib.nullcontext():
        wait_for_all(device)  # nobody goes on before the folder is theirs
        if world.is_first:
            folder.agree(config)
        student, task = build()
        wait_for_all(device)  # nothing is kept before every process has tried its pictures
        if not config.steps and config.epochs:
            steps = int(config.epochs * task.examples / config.batch_size)
            config = config.with_changes({"steps": max(1, steps)})
        if world.is_first:
            folder.agree(config, task.identity())
        wait_for_all(device)  # nobody reads the folder before it is agreed whose it is
        progress = Progress((stream or sys.stderr) if world.is_first else None)
        if (report := folder.read_report()) is not None:
            progress.step(f"{folder.path} holds this run, finished")
            return _finished(folder, report["best"]["fingerprint"])
        # float32 means float32, for the whole process; bfloat16 is asked for by name.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = device.startswith("cuda")  # every step has the same shapes
        run = TrainingState(student.to(device), task, config, folder, device=device, world=world)
        run.resume()
        wait_for_all(device)  # nobody writes to it before all have read
        if run.step:
            progress.step(f"going on from step {run.step} in {folder.path}")
        _take_steps(run, progress)
        return _conclude(run, progress)


def _finished(folder: RunFolder, fingerprint: str) -> Checkpoint:
    """The checkpoint of a finished run, which must be the one that its report names."""
    checkpoint = load_checkpoint(folder.best)
    if checkpoint.fingerprint != fingerprint:
        raise folder.damaged(
            folder.best.name,
            f"its fingerprint is {checkpoint.fingerprint}, the report's is {fingerprint}",
        )
    return checkpoint


def _take_steps(run: TrainingState, progress: Progress) -> None:
    """Steps until the run is over; saves, validates and logs on the way."""
    config, folder, is_first = run.config, run.folder, run.world.is_first
    log: MetricLog | None = None
    with contextlib.ExitStack() as stack:
        if is_first:
            events = folder.tensorboard if config.tensorboard else None
            log = stack.enter_context(MetricLog(folder.metrics, events, run.step))
        is_interrupted = stack.enter_context(_interrupts_noted())
        left = config.steps - run.step if config.steps else None
        advance = stack.enter_context(progress.counter("training", left, "steps"))
        made = batches(run.task, run.world, run.step, config, device=run.device)
        coming = stack.enter_context(contextlib.closing(made))
        objective = _objective(run)
        if run.step and _is_due(run, config.validate_every):  # its state was saved before it
            _validate(run, log, progress)
        while not run.is_over:
            with _out_of_memory_named(config.batch_size):
                measured = _step(run, objective, next(coming), is_stopped=is_interrupted())
            advance()
            is_stopped = measured.pop("stopped") > 0 and not run.is_over
            if log is not None and (run.step % config.log_every == 0 or run.is_over):
                log.write(run.step, "train", measured)
                of = f" of {config.steps}" if config.steps else ""
                left_s = run.seconds * (1.0 - run.progress) / max(run.progress, 1e-9)
                progress.step(
                    f"step {run.step}{of}, loss {measured['loss']:.4g}, "
                    f"{left_s / 60:.1f} minutes left"
                )
            if is_first and _is_due(run, config.keep_every):
                _write(run, run.averaged_student(), folder.kept(run.step), run.step, {})
            is_save_due = run.step % config.save_every == 0 or run.is_over or is_stopped
            if is_first and (is_save_due or _is_due(run, config.validate_every)):
                run.save()
            if is_stopped:
                progress.step(f"stopped after step {run.step}; the same command goes on from it")
                raise KeyboardInterrupt
            if _is_due(run, config.validate_every):
                _validate(run, log, progress)


def _step(
    run: TrainingState, objective: nn.Module, batch: dict[str, Tensor], *, is_stopped: bool
) -> dict[str, float]:
    """One optimizer step; the weights are not touched where a number is not finite."""
    rate = learning_rate(run.config, run.step, run.progress)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad(set_to_none=True)
    with lost_company():
        loss, details = objective(batch)
        loss.backward()
    limit = run.config.grad_clip_norm or math.inf
    norm = float(nn.utils.clip_grad_norm_(run.student.parameters(), limit))
    own = {"loss": loss, **details, "stopped": is_stopped, "seconds": run.clock()}
    # One sum tells every process the loss, the time, and whether any of them was told to stop.
    measured = _agreed(own, run.device)
    if not (math.isfinite(measured["loss"]) and math.isfinite(norm)):
        raise TrainingError(
            f"step {run.step + 1}: the loss is {measured['loss']} and its gradient's norm {norm}; "
            f"the last saved state is kept in {run.folder.path}. Try a lower learning_rate, or "
            f"grad_clip_norm, in another folder"
        )
    run.optimizer.step()
    run.student.constrain()
    run.step += 1
    run.seconds = measured["seconds"]
    run.follow()
    return {**measured, "learning_rate": rate, "gradient_norm": norm}


def _validate(run: TrainingState, log: MetricLog | None, progress: Progress) -> None:
    """Measures the averaged weights, and keeps them if they are the best."""
    student = run.averaged_student()
    scores = _scores(run, student)
    progress.step(f"step {run.step}: {_listed(scores)}")
    if log is not None:
        log.write(run.step, "validation", scores)
    if run.best is None or scores["score"] > run.best.scores["score"]:
        weights = {name: value.cpu() for name, value in student.state_dict().items()}
        run.best = Best(step=run.step, scores=scores, weights=weights)
        if run.world.is_first:
            run.folder.save_best(run.best)


def _conclude(run: TrainingState, progress: Progress) -> Checkpoint:
    """Proves and writes the last weights, and the best before them; keeps one of them as best."""
    folder, best = run.folder, run.best
    student = run.averaged_student()
    scores = _scores(run, student)
    progress.step(f"step {run.step}, the last: {_listed(scores)}")
    if run.world.is_first:
        winner = last = _write(run, student, folder.last, run.step, scores)
        if best is not None and best.scores["score"] > scores["score"]:
            student.load_state_dict(best.weights)
            winner = _write(run, student, folder.best, best.step, best.scores)
        else:
            with replacing(folder.best) as aside:
                shutil.copyfile(folder.last, aside)
        folder.write_report({"best": winner, "last": last, "seconds": round(run.seconds, 1)})
        progress.step(
            f"{folder.best} has the weights of step {winner['step']}, which validated best; "
            f"{folder.last} those of the last step, which a published recipe keeps"
        )
    wait_for_all(run.device)
    return load_checkpoint(folder.best)


def _write(
    run: TrainingState, student: Student, path: Path, step: int, scores: Mapping[str, float]
) -> dict[str, Any]:
    """Proves a student and writes it with the record of its run."""
    outcome = {"step": step, "scores": dict(scores)}
    versions = {
        "lipsim-retrieval": version("lipsim-retrieval"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    record = {
        "config": run.config.to_json(),
        "data": run.task.identity(),
        "processes": run.world.size,
        "seconds": round(run.seconds, 1),
        "versions": versions,
        **outcome,
    }
    name, steps = run.config.recipe, run.config.estimate_steps
    proved = write_proved(student, path, name=name, training=record, estimate_steps=steps)
    return outcome | {
        "fingerprint": proved.fingerprint,
        "lipschitz_bound": proved.lipschitz_bound,
        "lipschitz_estimate": proved.training["lipschitz_estimate"],
    }


class _Objective(nn.Module):
    """The task's loss as one forward pass, which is what data parallelism wants to see."""

    def __init__(self, student: Student, task: Task) -> None:
        super().__init__()
        self.student = student
        self._task = task

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        return self._task.loss(self.student, batch)


def _objective(run: TrainingState) -> nn.Module:
    """What a step minimises, its gradients averaged over processes."""
    run.student.bfloat16 = run.config.precision == "bfloat16"
    run.student.parts = run.config.accumulate
    run.student.train()
    if run.config.compile:
        run.student.compile()
    objective = _Objective(run.student, run.task)
    if run.world.size == 1:
        return objective
    with lost_company():
        return DistributedDataParallel(objective, broadcast_buffers=False)  # no step changes one


@contextlib.contextmanager
def _interrupts_noted() -> Generator[Callable[[], bool]]:
    """While open, a first Ctrl-C or SIGTERM is noted for the end of a step; a second is raised."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if came:
            raise KeyboardInterrupt
        came.append(number)

    # Only the main thread may take signals over: elsewhere nothing changes.
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _out_of_memory_named(batch_size: int) -> Generator[None]:
    """While a batch is made and learnt from: no room for it is an error that says what to set."""
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        is_room = isinstance(exc, MemoryError | torch.OutOfMemoryError)
        if not is_room and not any(words in str(exc).lower() for words in _OUT_OF_MEMORY):
            raise
        why = str(exc).partition("\n")[0]
        raise TrainingError(
            f"a step of batch_size {batch_size} does not fit in memory: set a smaller one, or "
            f"accumulate, in another folder, or start more processes ({why:.200})"
        ) from exc


def _is_due(run: TrainingState, every: int) -> bool:
    """Whether something is, every so many steps (0: never) before the last; the end has its own."""
    return every > 0 and run.step % every == 0 and not run.is_over


def _scores(run: TrainingState, student: Student) -> dict[str, float]:
    """The task's validation, the same in every process, and finite."""
    with torch.no_grad():
        scores = _agreed(run.task.validate(student), run.device)
    if not all(map(math.isfinite, scores.values())):
        raise TrainingError(f"step {run.step}: validation gave {_listed(scores)}")
    return scores


def _agreed(values: Mapping[str, float | Tensor], device: str) -> dict[str, float]:
    """Means over processes; rounding must not lead two of them to different decisions."""
    plain = (value.detach() if isinstance(value, Tensor) else value for value in values.values())
    means = averaged([float(value) for value in plain], device)
    return dict(zip(values, means, strict=True))


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
