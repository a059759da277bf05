# pyright: basic
"""Step 2: a student learns which of two pictures people find closer to a reference."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from model.data.pictures import evenly
from model.data.triplets import Triplet, load_triplet_pixels, read_triplets
from model.errors import TrainingError
from model.train.config import TrainConfig
from model.train.distributed import own_share, places_of, progress
from model.train.losses import cosine_hinge, radius_hinge, signed_radius
from model.train.sampling import example_at, ids_digest
from model.train.student import Student
from model.train.task import Sources, stored_student
from model.train.views import framed

RADII = (36 / 255, 72 / 255, 108 / 255, 255 / 255)
"""The radii that are reported, in [0, 1] pixels of the network's input."""

_MOST_KEPT_BYTES = 4 << 30
"""Of validation inputs that are kept between validations: 2 300 triplets at 224 pixels."""

_LOSSES = {"hinge": cosine_hinge, "radius": radius_hinge}


def build(config: TrainConfig, sources: Sources) -> tuple[Student, "FinetuneTask"]:
    """The student and the task of a fine-tuning."""
    if sources.start is None:  # `distill` was given a recipe of this task
        raise TrainingError("fine-tuning starts from a checkpoint: give one with --from")
    student, start = stored_student(sources.start)
    training, validation = (
        read_triplets(sources.data, split)
        for split in (config.train_split or "train", config.validation_split or "val")
    )
    validation = [validation[i] for i in evenly(len(validation), config.validation_examples)]
    task = FinetuneTask(
        config, training, validation, input_size=student.config.input_size, start=start
    )
    task.check()
    return student, task


class FinetuneTask:
    """Judged triplets, by the published hinge on d_left - d_right, or by certified radius.

    Pictures reach the network as in serving: decoded to [0, 1] and squashed to its input by our own
    resize. So every radius is in pixels of that input, also for BAPPS, whose published radii are
    of upsampled patches in [-1, 1].

    Attributes:
        examples: training triplets.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: list[Triplet],
        validation: list[Triplet],
        *,
        input_size: int,
        start: str | None = None,
    ) -> None:
        """A student's input is `input_size` pixels a side; it starts from fingerprint `start`."""
        if not (training and validation):
            raise TrainingError(
                f"triplets to train on and to validate on are wanted, got {len(training)} and "
                f"{len(validation)}"
            )
        self.examples = len(training)
        self._config, self._training, self._validation = config, training, validation
        self._size, self._start = input_size, start
        self._kept: dict[int, dict[str, Tensor]] = {}

    def check(self) -> None:
        """Decodes this process's share of the triplets that are tried before the first step."""
        with ThreadPoolExecutor(self._config.workers or 1) as pool:
            for what, triplets in (("training", self._training), ("validation", self._validation)):
                places = own_share(evenly(len(triplets), self._config.checked_examples))
                tried = pool.map(load_triplet_pixels, [triplets[place] for place in places])
                told = f"decoding {what} triplets to try them"
                for _ in progress().counting(told, tried, len(places)):
                    pass

    def identity(self) -> dict[str, Any]:
        """Triplets by number and digest of their ids and votes; where the student started."""
        return {
            "training_triplets": len(self._training),
            "training_sha256": _digest(self._training),
            "validation_triplets": len(self._validation),
            "validation_sha256": _digest(self._validation),
            "start": self._start,
        }

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Network inputs of this process's triplets, and their votes."""
        config = self._config
        places = places_of(step, config.batch_size, rank, world)
        examples = (example_at(config.seed, self.examples, place) for place in places)
        return self._inputs([self._training[example] for example in examples])

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The objective; logged beside it, the share decided as people did."""
        reference, left, right = _embed(student, batch)
        objective = _LOSSES[self._config.finetune.objective]
        loss = objective(reference, left, right, batch["vote"], self._config.finetune.margin)
        with torch.no_grad():
            agreed = certified_share(signed_radius(reference, left, right), batch["vote"], 0.0)
        return loss, {"accuracy": agreed.mean()}

    def validate(self, student: Student) -> dict[str, float]:
        """Natural and certified 2AFC scores; `score` is the mean of them all.

        A triplet scores the share of people whose choice is made, with a certified radius above
        the given one.
        """
        device, size = next(student.parameters()).device, self._config.batch_size
        radii, votes = [], []
        for first in range(0, len(self._validation), size):
            inputs = self._kept.get(first)
            if inputs is None:
                inputs = self._inputs(self._validation[first : first + size])
                if 36 * self._size**2 * len(self._validation) <= _MOST_KEPT_BYTES:
                    self._kept[first] = inputs
            batch = {name: value.to(device) for name, value in inputs.items()}
            radii.append(signed_radius(*_embed(student, batch)).cpu())
            votes.append(inputs["vote"])
        radius, vote = torch.cat(radii), torch.cat(votes)
        natural = float(certified_share(radius, vote, 0.0, ties=True).mean())
        scores = {"natural": natural} | {
            f"certified_{epsilon:.3f}": float(certified_share(radius, vote, epsilon).mean())
            for epsilon in RADII
        }
        return {"score": sum(scores.values()) / len(scores), **scores}

    def _inputs(self, triplets: list[Triplet]) -> dict[str, Tensor]:
        sides = zip(*(load_triplet_pixels(triplet) for triplet in triplets), strict=True)
        names = ("reference", "left", "right")
        batch = {
            name: torch.from_numpy(np.stack([framed(one, self._size, "resize") for one in side]))
            for name, side in zip(names, sides, strict=True)
        }
        return {**batch, "vote": torch.tensor([triplet.vote for triplet in triplets])}


def certified_share(
    radius: Float[Tensor, " B"], vote: Float[Tensor, " B"], epsilon: float, *, ties: bool = False
) -> Float[Tensor, " B"]:
    """The share of people whose choice is made with a radius above epsilon.

    Args:
        radius: signed; positive where the choice is right.
        vote: share of people that chose right.
        epsilon: in pixels of the network's input.
        ties: whether half of everybody counts as agreeing where nothing is chosen.
    """
    made = torch.where(radius > epsilon, vote, torch.where(-radius > epsilon, 1.0 - vote, 0.0))
    return torch.where(radius == 0, 0.5, made) if ties else made


def _embed(student: Student, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Reference, left and right in one pass: T is computed once."""
    every = student(torch.cat([batch["reference"], batch["left"], batch["right"]]))
    reference, left, right = every.chunk(3)
    return reference, left, right


def _digest(triplets: list[Triplet]) -> str:
    return ids_digest([f"{one.split}/{one.group or ''}/{one.id}={one.vote}" for one in triplets])
