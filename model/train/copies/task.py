# pyright: basic
"""The task `copies`: edited copies against other pictures, by certified radius."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from model.evaluate.copies import threshold_for
from model.evaluate.radii import Proof
from model.evaluate.standing import Gallery, LeftOut
from model.train.copies.draws import Draws, kind_probabilities
from model.train.copies.head_student import HeadStudent
from model.train.copies.material import Material
from model.train.copies.objective import copies_loss
from model.train.student import Student

RADII = (0.5, 1.0, 2.0)
_RATE = 0.01


class CopiesTask:
    """Certified radii of edited copies over other pictures, by features in the student's basis.

    Attributes:
        examples: training pictures.
    """

    def __init__(
        self,
        material: Material,
        rows: np.ndarray,
        validation: tuple[Tensor, Tensor, Int64[np.ndarray, " Q"]],
        gallery_views: int = 1,
    ) -> None:
        """A task over a bank of rows (pictures, gallery views + copies, ...), as it is first.

        For validation there are rows of pictures' views, of queries, and each query's picture.
        """
        self.examples = len(material.training)
        self._material, self._rows, self._gallery_views = material, rows, gallery_views
        self._plain, self._queries, self._originals = validation
        settings = material.config.copies
        self._draws = Draws(
            kind_probabilities(settings.kind_weights, material.kinds),
            seed=material.config.seed,
            batch_size=material.config.batch_size,
            views=settings.views,
        )

    def identity(self) -> dict[str, Any]:
        return self._material.identity()

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Rows of this process's pictures and of one edited copy of each."""
        pictures, views = self._draws.pairs(step, rank, world)
        batch = {
            "plain": torch.from_numpy(self._rows[pictures, : self._gallery_views]),
            "edited": torch.from_numpy(self._rows[pictures, self._gallery_views - 1 + views]),
        }
        if (teacher := self._material.teacher) is not None:
            ids = self._material.training.ids
            rows = teacher.rows([ids[int(place)] for place in pictures])
            batch["targets"] = torch.from_numpy(rows)
        return batch

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss of the batch, its terms beside it."""
        student = _of_this_task(student)
        keys, queries = (student.head(batch[name].float()) for name in ("plain", "edited"))
        loss, details = copies_loss(
            self._material.config.copies, queries, keys, batch.get("targets"), student.metric()
        )
        return loss, {**details}

    def validate(self, student: Student) -> dict[str, float]:
        """Recall, certified recall and copy recall on pictures that are not trained on."""
        student = _of_this_task(student)
        pictures, queries = (student.embedded(rows) for rows in (self._plain, self._queries))
        # Turned so that the metric is one number a coordinate.
        squares, turn = np.linalg.eigh(student.metric().detach().double().cpu().numpy())
        return validation_scores(
            pictures @ turn,
            queries @ turn,
            self._originals,
            views=self._gallery_views,
            scales=np.sqrt(np.maximum(squares, 0.0)),
        )


def _of_this_task(student: Student) -> HeadStudent:
    assert isinstance(student, HeadStudent)  # noqa: S101 (the task and its student come together)
    return student


def validation_scores(
    pictures: Float64[np.ndarray, "NV D"],
    queries: Float64[np.ndarray, "Q D"],
    originals: Int64[np.ndarray, " Q"],
    *,
    views: int = 1,
    scales: Float64[np.ndarray, " D"] | None = None,
) -> dict[str, float]:
    """Shares in percent; `score` is their mean.

    Args:
        pictures: raw embeddings of the pictures' views, those of one side by side.
        queries: raw embeddings of edited copies.
        originals: number of each query's picture.
        views: how many each picture has.
        scales: of a head, along each coordinate; without, radii are those of embedding space.

    Returns:
        recall_at_1; certified_R, found first with a radius above R; and
        copy_recall, found first with a margin that one in a hundred queries has without their
        original in the gallery.
    """
    bound = 1.0 if scales is None else float(scales.max())
    gallery = Gallery(pictures, views, Proof(bound, 0.0, scales))
    own = gallery.stand(queries, originals)
    absent = [LeftOut(np.arange(len(gallery)), originals)]
    stranger = gallery.nearest(queries, absent)
    without = gallery.stand(queries, stranger, without=absent)
    threshold = threshold_for(np.maximum(0.0, without.margins[:, 0]), _RATE)
    scores = {"recall_at_1": 100.0 * float((own.ranks == 0).mean())}
    for radius in RADII:
        scores[f"certified_{radius:g}"] = 100.0 * float(np.mean(own.radii[:, 0] > radius * bound))
    scores["copy_recall"] = 100.0 * float(np.mean(own.margins[:, 0] > threshold))
    return {"score": sum(scores.values()) / len(scores), **scores}
