# pyright: basic
"""What a student is taught: a teacher's embeddings, asked for in each step or computed before.

Both kinds of targets have `dim`, the length of an embedding; `view_size`, the side of the views
that the teacher looks at, in pixels, None where it looks at none; and `record`, what a checkpoint
should remember of it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from model.errors import TrainingError
from model.teachers.load import load_teacher
from model.teachers.precomputed import PrecomputedEmbeddings
from model.teachers.teacher import Teacher
from model.train.config import TrainConfig
from model.train.task import Sources


class OnlineTargets:
    """A teacher that looks at view 1 in every step."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.dim, self.view_size = teacher.dim, teacher.input_size
        self.record = {"teacher": teacher.name, **teacher.record}

    def stored(self, ids: list[str]) -> None:
        """None: views are wanted."""

    def of(self, views: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """The teacher's answer; nothing of it is trained."""
        with torch.no_grad():
            return self._teacher.embed(views)


class StoredTargets:
    """Embeddings computed before, of the pictures as they are."""

    def __init__(self, embeddings: PrecomputedEmbeddings) -> None:
        self._embeddings = embeddings
        self.dim, self.view_size = embeddings.dim, None
        self.record = {**embeddings.record, "embeddings": "computed before"}

    def stored(self, ids: list[str]) -> Float[Tensor, "B D"]:
        """The rows of these pictures."""
        return torch.from_numpy(self._embeddings.rows(ids))

    def of(self, views: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Never asked: the rows are there."""
        raise NotImplementedError


Targets = OnlineTargets | StoredTargets


def targets_of(config: TrainConfig, sources: Sources) -> Targets:
    """The stored embeddings, if any are given, or else the teacher that the config names."""
    if sources.embeddings is not None:
        embeddings = PrecomputedEmbeddings(sources.embeddings)
        framing = embeddings.record.get("framing", config.framing)
        if framing != config.framing:
            raise TrainingError(
                f"the embeddings are of pictures framed by {framing}, the student would see them "
                f"framed by {config.framing}; run with --set framing={framing}, or ask again"
            )
        return StoredTargets(embeddings)
    return OnlineTargets(
        load_teacher(config.distill.teacher, weights=sources.teacher_weights, device=sources.device)
    )
