# pyright: basic
# torch's types are loose.
"""A run between two steps: everything that the next step depends on."""

import contextlib
import copy
import time
from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor

from model.train.config import TrainConfig
from model.train.distributed import World
from model.train.run_state import BEST, STATE, Best, RunFolder
from model.train.schedules import progress_of
from model.train.state_check import unlike_moments, unlike_tensors
from model.train.student import Student
from model.train.task import Task


class Run:
    """A run between two steps.

    Attributes:
        student: with the present weights.
        task: what is minimised.
        config: how, and for how long.
        folder: where it is kept.
        device: where it runs.
        world: this process's place in it.
        optimizer: with its moments.
        average: the averaged weights; empty where the config wants none.
        step: steps done.
        seconds: wall time of all attempts until the last step, validations included.
        best: the weights with the highest validation score before the last step.
    """

    def __init__(
        self,
        student: Student,
        task: Task,
        config: TrainConfig,
        folder: RunFolder,
        *,
        device: str,
        world: World,
    ) -> None:
        self.student, self.task, self.config = student, task, config
        self.folder, self.device, self.world = folder, device, world
        self.step, self.seconds = 0, 0.0
        self.best: Best | None = None
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        self.optimizer: torch.optim.Optimizer = kind(
            [parameter for parameter in student.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
        averages = config.ema_decay > 0
        self.average: dict[str, Tensor] = copy.deepcopy(student.state_dict()) if averages else {}
        self._started = time.monotonic()

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return progress_of(self.config, self.step, self.seconds)

    @property
    def is_over(self) -> bool:
        """Whether the last step was taken."""
        return self.progress >= 1.0

    def clock(self) -> float:
        """Seconds of all attempts until now."""
        return time.monotonic() - self._started

    def state(self) -> dict[str, Any]:
        """What a later attempt goes on from."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }

    def resume(self) -> None:
        """Takes up the saved state, if there is one.

        Raises:
            TrainingError: it does not fit the student, or is damaged.
        """
        state, best = self.folder.load_state(), self.folder.load_best()
        if state is None:
            return
        if why := self._unlike_ours(state):
            raise self.folder.damaged(STATE, why)
        if best is not None and (why := unlike_tensors(best.weights, self.student.state_dict())):
            raise self.folder.damaged(BEST, f"weights: {why}")
        self.best = best
        self.step, self.seconds = state["step"], state["seconds"]
        self.student.load_state_dict(state["student"])
        # The groups say what the config says, and are not believed from a file.
        groups = self.optimizer.state_dict()["param_groups"]
        moments = state["optimizer"]["state"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self._started = time.monotonic() - self.seconds

    def _unlike_ours(self, state: Mapping[str, Any]) -> str | None:
        """Why a saved state is not of this student and config."""
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        reasons = {
            "student": unlike_tensors(state["student"], self.student.state_dict()),
            "average": unlike_tensors(state["average"], self.average),
            "optimizer": unlike_moments(state["optimizer"].get("state"), parameters),
        }
        return next((f"{name}: {why}" for name, why in reasons.items() if why), None)

    def follow(self) -> None:
        """Moves the averaged weights a little towards the present ones."""
        if not self.average:
            return
        # Early weights are forgotten faster, or the average would begin as the initial draw.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.student.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1.0 - decay)
            else:
                self.average[name].copy_(value)

    @contextlib.contextmanager
    def averaged_student(self) -> Generator[Student]:
        """The student in eval mode, with its averaged weights; the present ones come back."""
        present: dict[str, Tensor] = {}
        if self.average:
            present = copy.deepcopy(self.student.state_dict())
            self.student.load_state_dict(self.average)
            self.student.constrain()
        self.student.eval()
        try:
            yield self.student
        finally:
            if present:
                self.student.load_state_dict(present)
            self.student.train()
