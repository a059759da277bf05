# pyright: basic
"""The state of a run between two steps: everything that the next step depends on."""

import copy
import time

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.train.config import TrainConfig
from model.train.distributed import World
from model.train.run_folder import STATE, Best, RunFolder
from model.train.schedules import progress_of
from model.train.student import Student
from model.train.task import Task


class TrainingState:
    """The state of a run after `step` steps, `seconds` of wall time over all attempts.

    `average` is the student with averaged weights, where the config wants them; `best` are the
    weights with the highest validation score before the last step.
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
            fused=True if device.startswith("cuda") else None,
        )
        self.average = copy.deepcopy(student) if config.ema_decay > 0 else None
        self._started = time.monotonic()

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return progress_of(self.config, self.step, self.seconds)

    @property
    def is_over(self) -> bool:
        return self.progress >= 1.0

    def clock(self) -> float:
        """Seconds of all attempts until now."""
        return time.monotonic() - self._started

    def save(self) -> None:
        """Keeps what a later attempt goes on from."""
        self.folder.save_state(
            {
                "step": self.step,
                "seconds": self.seconds,
                "student": self.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict() if self.average is not None else {},
            }
        )

    def resume(self) -> None:
        """Takes up the saved state, if there is one."""
        state = self.folder.load_state()
        if state is None:
            return
        self.best = self.folder.load_best()
        with self.folder.damage(STATE):
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.student.load_state_dict(state["student"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        self._started = time.monotonic() - self.seconds

    def follow(self) -> None:
        """Moves the averaged weights a little towards the present ones."""
        if self.average is None:
            return
        # Early weights are forgotten faster, or the average would begin as the initial draw.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        averaged, present = tuple(self.average.parameters()), tuple(self.student.parameters())
        get_ema_multi_avg_fn(decay)(averaged, present, self.step)

    def averaged_student(self) -> Student:
        """What is validated and kept, in eval mode: the averaged weights, where there are some.

        A copy, which is never compiled: what is measured is what is written down.
        """
        if self.average is None:
            return copy.deepcopy(self.student).eval()
        student = copy.deepcopy(self.average)
        student.constrain()
        return student.eval()
