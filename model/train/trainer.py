# pyright: basic
# torch's types are loose.
"""One training run, read top to bottom: claim the folder, go on from what is there, step, conclude.

The next state of a run is a pure function of the last one and of (seed, step): there is no global
generator, and no order that a data loader decides. So a run that is killed and started again ends
with the very weights of one that was not, as long as it is limited by steps and not by time.
"""

import contextlib
import math
import platform
import shutil
import sys
from collections.abc import Generator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.errors import TrainingError
from model.nets.checkpoint import Checkpoint, load_checkpoint
from model.train.batches import batches
from model.train.config import TrainConfig
from model.train.distributed import averaged, current, lost_company, share_of, wait_for_all
from model.train.interrupts import Interrupts
from model.train.logs import MetricLog, Narrator, duration
from model.train.memory import memory_for
from model.train.proof import write_proved
from model.train.run import Run
from model.train.run_state import Best, RunFolder, replacing
from model.train.schedules import learning_rate
from model.train.student import Student
from model.train.task import Task


def train(
    student: Student,
    task: Task,
    config: TrainConfig,
    out: Path,
    *,
    device: str = "cpu",
    stream: TextIO | None = None,
) -> Checkpoint:
    """Trains a student, and writes the checkpoints that could be proved.

    Where OUT holds a run of the same config and data, it goes on from its last saved state, or
    gives its result if it is finished.

    Args:
        student: as it is to start; where it starts from is part of `task.identity()`.
        task: what is minimised.
        config: how, and for how long.
        out: the run's folder: checkpoints, states, logs.
        device: a torch device.
        stream: what a person reads, a bar where it is a terminal; None takes standard error.

    Returns:
        The checkpoint with the higher validation score: of the last step, or the best before it.

    Raises:
        TrainingError: OUT holds another run, or one at work; a number is not finite; a process of
            this run ended.
        CheckpointError: the network cannot be proved, or is not the one that was trained.
        KeyboardInterrupt: Ctrl-C or SIGTERM came, and the state was saved.
    """
    with claimed(out, device) as folder:
        return train_in(folder, student, task, config, device=device, stream=stream)


@contextlib.contextmanager
def claimed(out: Path, device: str) -> Generator[RunFolder]:
    """The folder of one run, for all its processes; none goes on before it is theirs.

    Raises:
        TrainingError: another run is at work there.
    """
    folder = RunFolder(out)
    with folder.claimed() if current().leads else contextlib.nullcontext():
        wait_for_all(device)
        yield folder


def train_in(
    folder: RunFolder,
    student: Student,
    task: Task,
    config: TrainConfig,
    *,
    device: str = "cpu",
    stream: TextIO | None = None,
) -> Checkpoint:
    """As `train`, in a folder that is claimed already."""
    world = current()
    if not (config.steps or config.minutes):
        raise TrainingError("a run needs an end: set steps, epochs or minutes")
    share_of(config.batch_size, world.rank, world.size)
    _full_precision()
    narrator = Narrator((stream or sys.stderr) if world.leads else None)
    if world.leads:
        folder.agree(config, task.identity())
    wait_for_all(device)  # nobody reads the folder before it is agreed whose it is
    if (report := folder.read_report()) is not None:
        narrator.say(f"{folder.path} holds this run, finished")
        return _finished(folder, report["best"]["fingerprint"])
    run = Run(student.to(device), task, config, folder, device=device, world=world)
    run.resume()
    wait_for_all(device)  # nobody writes to it before all have read
    if run.step:
        narrator.say(f"going on from step {run.step} in {folder.path}")
    _take_steps(run, narrator)
    return _conclude(run, narrator)


def _take_steps(run: Run, narrator: Narrator) -> None:
    """Steps until the run is over; saves, validates and logs on the way."""
    config, folder = run.config, run.folder
    log: MetricLog | None = None
    with contextlib.ExitStack() as stack:
        if run.world.leads:
            events = folder.tensorboard if config.tensorboard else None
            log = stack.enter_context(MetricLog(folder.metrics, events, run.step))
        interrupts = stack.enter_context(Interrupts())
        stack.enter_context(narrator.steps())
        coming = stack.enter_context(contextlib.closing(_coming(run)))
        objective = _objective(run)
        if run.step and _is_validation_due(run):  # its state is saved before it is validated
            _validate(run, log, narrator)
        while not run.is_over:
            with memory_for(config.batch_size):
                measured = _step(run, objective, next(coming), is_stopped=interrupts.came)
            is_stopped = measured.pop("stopped") > 0 and not run.is_over
            is_line_due = run.step % config.log_every == 0 or run.is_over
            if log is not None and is_line_due:
                log.write(run.step, "train", measured)
            narrator.step(run.progress, _sentence(run, measured), line_is_due=is_line_due)
            is_save_due = run.step % config.save_every == 0 or run.is_over or is_stopped
            if run.world.leads and (is_save_due or _is_validation_due(run)):
                folder.save_state(run.state())
            if is_stopped:
                narrator.say(f"stopped after step {run.step}; the same command goes on from it")
                raise KeyboardInterrupt
            if _is_validation_due(run):
                _validate(run, log, narrator)


def _step(run: Run, objective: nn.Module, batch: Any, *, is_stopped: bool) -> dict[str, float]:
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


def _validate(run: Run, log: MetricLog | None, narrator: Narrator) -> None:
    """Measures the averaged weights, and keeps them if they are the best."""
    with run.averaged_student() as student:
        scores = _scores(run)
        narrator.say(f"step {run.step}: {_listed(scores)}")
        if log is not None:
            log.write(run.step, "validation", scores)
        if run.best is None or scores["score"] > run.best.score:
            weights = {name: value.cpu().clone() for name, value in student.state_dict().items()}
            run.best = Best(run.step, scores["score"], weights)
            if run.world.leads:
                run.folder.save_best(run.best)


def _conclude(run: Run, narrator: Narrator) -> Checkpoint:
    """Finishes, validates and writes the last weights, and the best before them; keeps one."""
    folder = run.folder
    with run.averaged_student() as student:
        last = winner = _finish(run, folder.last, run.step, narrator)
        if run.best is not None and run.best.score > last["scores"]["score"]:
            student.load_state_dict(run.best.weights)
            best = _finish(run, folder.best, run.best.step, narrator)
            if best["scores"]["score"] > last["scores"]["score"]:
                winner = best
    if run.world.leads:
        if winner is last:
            with replacing(folder.best) as aside:
                shutil.copyfile(folder.last, aside)
        folder.write_report({"best": winner, "last": last, "seconds": round(run.seconds, 1)})
        narrator.say(f"kept the weights of step {winner['step']}: {folder.best}")
    wait_for_all(run.device)
    return load_checkpoint(folder.best)


def _finished(folder: RunFolder, fingerprint: str) -> Checkpoint:
    """The checkpoint that a finished run reported, and no other that lies in its place."""
    checkpoint = load_checkpoint(folder.best)
    if checkpoint.fingerprint != fingerprint:
        raise folder.damaged(
            folder.best.name,
            f"its fingerprint is {checkpoint.fingerprint}, the report's is {fingerprint}",
        )
    return checkpoint


def _finish(run: Run, path: Path, step: int, narrator: Narrator) -> dict[str, Any]:
    """Lets the task finish the student as it is, validates it, proves it and writes it."""
    run.task.finish(run.student)
    run.student.eval()
    outcome: dict[str, Any] = {"step": step, "scores": _scores(run)}
    narrator.say(f"step {step}, finished: {_listed(outcome['scores'])}")
    if not run.world.leads:
        return outcome
    record = {
        "config": run.config.to_json(),
        "data": run.task.identity(),
        "processes": run.world.size,
        "seconds": round(run.seconds, 1),
        "versions": _versions(),
        **outcome,
    }
    name, steps = run.config.recipe, run.config.estimate_steps
    proved = write_proved(run.student, path, name=name, training=record, estimate_steps=steps)
    return outcome | {
        "fingerprint": proved.checkpoint.fingerprint,
        "lipschitz_bound": proved.checkpoint.lipschitz_bound,
        "lipschitz_estimate": proved.lipschitz_estimate,
    }


class _Objective(nn.Module):
    """The task's loss as one forward pass, which is what data parallelism wants to see."""

    def __init__(self, student: Student, task: Task) -> None:
        super().__init__()
        self.student = student
        self._task = task

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        return self._task.loss(self.student, batch)


def _objective(run: Run) -> nn.Module:
    """What a step minimises, its gradients averaged over processes."""
    run.student.bfloat16 = run.config.precision == "bfloat16"
    run.student.train()
    objective = _Objective(run.student, run.task)
    if run.world.size == 1:
        return objective
    with lost_company():
        return DistributedDataParallel(objective)


def _coming(run: Run) -> Any:
    """The batches of the steps that are left."""
    return batches(
        run.task,
        run.world,
        first=run.step,
        last=run.config.steps,
        workers=run.config.workers,
        device=run.device,
    )


def _is_validation_due(run: Run) -> bool:
    """Whether this step's weights are to be validated; the last ones are, in the conclusion."""
    every = run.config.validate_every
    return every > 0 and run.step % every == 0 and not run.is_over


def _scores(run: Run) -> dict[str, float]:
    """The task's validation, the same in every process.

    Raises:
        TrainingError: one of the numbers is not finite.
    """
    with torch.no_grad():
        scores = _agreed(run.task.validate(run.student), run.device)
    if not all(map(math.isfinite, scores.values())):
        raise TrainingError(f"step {run.step}: validation gave {_listed(scores)}")
    return scores


def _agreed(values: Mapping[str, float | Tensor], device: str) -> dict[str, float]:
    """Means over processes; rounding must not lead two of them to different decisions."""
    plain = (value.detach() if isinstance(value, Tensor) else value for value in values.values())
    means = averaged([float(value) for value in plain], device)
    return dict(zip(values, means, strict=True))


def _full_precision() -> None:
    """float32 means float32, for the whole process; bfloat16 is asked for by name."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _sentence(run: Run, measured: Mapping[str, float]) -> str:
    """Where a run is, in one line."""
    left = run.seconds * (1.0 - run.progress) / max(run.progress, 1e-9)
    of = f" of {run.config.steps}" if run.config.steps else ""
    rate = run.step / max(run.seconds, 1e-9)
    return (
        f"step {run.step}{of}, loss {measured['loss']:.4g}, {rate:.2f} steps/s, "
        f"{duration(left)} left"
    )


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())


def _versions() -> dict[str, str]:
    """What the run was computed with."""
    try:
        ours = version("lipsim-retrieval")
    except PackageNotFoundError:
        ours = "not installed"
    return {
        "lipsim-retrieval": ours,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
