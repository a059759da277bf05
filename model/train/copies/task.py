# pyright: basic
# torch's types are loose.
"""The default model's task: tell edited copies from other pictures, by certified radius.

The front is a scattering network, or that of a checkpoint; it is held. The head starts from its
closed form and is trained with large batches of features computed once.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.data.edits import edit, query_kinds
from model.data.pictures import PictureSet, check_pictures
from model.errors import TrainingError
from model.presets import WaveConfig
from model.progress import Progress
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train.config import TrainConfig
from model.train.copies.closed_form import covariance_of, discriminant, fit_narrowing_maps
from model.train.copies.feature_bank import FeatureBank, features_of
from model.train.copies.head_student import HeadStudent
from model.train.copies.objective import pairwise_radii, radius_loss, relational_loss
from model.train.copies.validation import validation_scores
from model.train.copies.views import network_input
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import current, gather_rows, share_of, wait_for_all
from model.train.held_out import training_and_validation
from model.train.sampling import Part, evenly, ids_digest, view_generator
from model.train.student import Student
from model.train.students import fresh_student, stored_student
from model.train.task import Sources

_FITTED_ON = 512
"""Pictures that the narrowing maps of a fresh front are fitted to."""
_QUERY, _DRAW = 4, 5
"""What the generators of validation queries and of batches are for."""


def build(config: TrainConfig, sources: Sources) -> tuple[Student, "CopyTask"]:
    """The student, its head in closed form, and the task.

    Raises:
        TrainingError: the student is no wavelet network, or there is no folder to keep features in.
        DataError: a picture is bad; the message names its file.
        MetricError: a teacher's stored embeddings are missing or damaged.
    """
    if sources.work is None:
        raise TrainingError("the task copies needs a folder to keep features in")
    training, validation = training_and_validation(config, sources)
    for pictures in (training, validation):
        checked = Part(pictures, evenly(len(pictures), config.checked_examples))
        check_pictures(checked, workers=config.workers or 1)
    targets = None
    if sources.embeddings is not None and config.teacher_weight > 0:
        targets = PrecomputedEmbeddings(sources.embeddings)
    front, start = _front(config, sources, training)
    bank = FeatureBank(
        front,
        training,
        seed=config.seed,
        views=config.views,
        stacked_share=config.stacked_share,
        dim=config.head_basis,
    )
    world, folder = current(), sources.work / "features"
    bank.build(folder, world, Progress(sys.stderr if world.leads else None).counting)
    wait_for_all(sources.device)
    rows = torch.from_numpy(bank.load(folder))
    dim = front.config.embedding_dim
    student = HeadStudent(front, bank.basis, bank.centre, *_closed_form(config, rows, dim))
    return student, CopyTask(
        config, training, validation, student=student, rows=rows, targets=targets, start=start
    )


class CopyTask:
    """Certified radii of edited copies, over features that were computed before.

    Attributes:
        examples: training pictures.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: PictureSet,
        validation: PictureSet,
        *,
        student: HeadStudent,
        rows: Tensor,
        targets: PrecomputedEmbeddings | None,
        start: str | None,
    ) -> None:
        """A task over a bank's rows, (pictures, 1 + views, K), float16."""
        self.examples = len(training)
        self._config, self._training, self._validation = config, training, validation
        self._rows, self._start = rows, start
        kinds = [str(training[place].fields.get("kind", "")) for place in range(len(training))]
        self._weights = _weights(config.kind_weights, kinds)
        self._targets = None
        if targets is not None:
            self._targets = torch.from_numpy(targets.rows(list(training.ids)))
            self._teacher = targets.name
        self._plain, self._queries, self._originals = _validation_rows(config, validation, student)

    def identity(self) -> dict[str, Any]:
        """Pictures by number and digest of their ids; the teacher; where the front came from."""
        return {
            "training_pictures": len(self._training),
            "training_ids_sha256": ids_digest(self._training.ids),
            "validation_pictures": len(self._validation),
            "validation_ids_sha256": ids_digest(self._validation.ids),
            "teacher": None if self._targets is None else self._teacher,
            "start": self._start,
        }

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Features of this process's pictures and of one edited copy of each."""
        config = self._config
        pictures: list[int] = []
        views: list[int] = []
        drawn = self._drawn(step)
        for place in share_of(config.batch_size, rank, world):
            pictures.append(int(drawn[place]))
            generator = view_generator(config.seed, step * config.batch_size + place)
            views.append(1 + int(generator.integers(config.views)))
        chosen = torch.tensor(pictures)
        batch = {
            "plain": self._rows[chosen, 0].float(),
            "edited": self._rows[chosen, torch.tensor(views)].float(),
        }
        return batch if self._targets is None else {**batch, "targets": self._targets[chosen]}

    def _drawn(self, step: int) -> np.ndarray:
        """The pictures of a step's global batch, by weight; none twice where there are enough."""
        count = self._config.batch_size
        rng = np.random.default_rng([self._config.seed, _DRAW, step])
        is_scarce = bool(count > np.count_nonzero(self._weights))
        return rng.choice(self.examples, count, replace=is_scarce, p=self._weights)

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Radii in pixels, radii relative to the embedding's norm, and a teacher's relations."""
        config = self._config
        student = _trained(student)
        keys, queries = student.head(batch["plain"]), student.head(batch["edited"])
        all_keys, first = gather_rows(keys), current().rank * len(keys)
        radii, counts = pairwise_radii(queries, all_keys, first)
        norms = queries.norm(dim=1, keepdim=True).clamp_min(1e-6)
        parts = {"radius": radius_loss(radii, counts, config.radius_margin, config.temperature)}
        loss = parts["radius"]
        if config.relative_weight > 0:
            parts["relative"] = radius_loss(
                radii / norms, counts, config.relative_margin, config.relative_temperature
            )
            loss = loss + config.relative_weight * parts["relative"]
        if "targets" in batch:
            targets = batch["targets"]
            parts["relational"] = relational_loss(
                keys,
                all_keys,
                targets,
                gather_rows(targets),
                first=first,
                temperature=config.teacher_temperature,
            )
            loss = loss + config.teacher_weight * parts["relational"]
        details = {name: part.detach() for name, part in parts.items()}
        return loss, {**details, "embedding_norm": norms.detach().mean()}

    def validate(self, student: Student) -> dict[str, float]:
        """Recall, certified recall and copy recall on pictures that are not trained on."""
        head = _trained(student).head
        pictures, queries = (
            head(rows).detach().double().cpu().numpy() for rows in (self._plain, self._queries)
        )
        return validation_scores(pictures, queries, self._originals)

    def finish(self, student: Student) -> None:
        """Nothing: what was trained is what is kept."""


def _trained(student: Student) -> HeadStudent:
    """The student as the one that this task built."""
    assert isinstance(student, HeadStudent)  # noqa: S101 (the task and its student come together)
    return student


def _weights(kind_weights: str, kinds: Sequence[str]) -> np.ndarray:
    """Probability of each picture, from its kind.

    Raises:
        TrainingError: a weight is no number, or nothing is left to draw.
    """
    try:
        pairs = [pair.split("=") for pair in kind_weights.split(",") if pair.strip()]
        table = {kind.strip(): float(weight) for kind, weight in pairs}
    except ValueError:
        raise TrainingError(
            f'kind_weights must be like "clipart=4,photo=3", got {kind_weights!r:.60}'
        ) from None
    weights = np.array([table.get(kind, 1.0) for kind in kinds])
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise TrainingError(f"kind_weights must be positive, got {kind_weights!r:.60}")
    return weights / weights.sum()


def _front(
    config: TrainConfig, sources: Sources, training: PictureSet
) -> tuple[WaveStudent, str | None]:
    """The held front: a checkpoint's, or a scattering network fitted to some pictures."""
    if sources.start is not None:
        student, fingerprint = stored_student(sources.start)
    else:
        student, fingerprint = fresh_student(config), None
    if not isinstance(student, WaveStudent) or not isinstance(student.config, WaveConfig):
        raise TrainingError("the task copies trains wavelet networks, preset wave-64, alone")
    if fingerprint is None:
        places = evenly(len(training), _FITTED_ON)
        inputs = [
            network_input(training[place].pixels(), student.config.input_size) for place in places
        ]
        fit_narrowing_maps(student, torch.from_numpy(np.stack(inputs)))
    return student, fingerprint


def _closed_form(config: TrainConfig, rows: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Head and offset from the bank's first rows of each picture, and their edited copies.

    Where so few pictures have fewer directions than an embedding has numbers, the rest are 0.
    """
    some = rows[evenly(len(rows), 4096)].float()
    edits = (some[:, 1:] - some[:, :1]).flatten(0, 1).double()
    mix = discriminant(
        edits.T @ edits / len(edits),
        covariance_of(some[:, 0]),
        min(dim, rows.shape[2]),
        config.within_scale,
        config.total_scale,
    )
    mix = functional.pad(mix, (0, 0, 0, dim - len(mix)))
    return mix, mix @ some[:, 0].double().mean(dim=0)


def _validation_rows(
    config: TrainConfig, validation: PictureSet, student: HeadStudent
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Features of validation pictures and of two queries of each, in the student's basis."""
    size = student.config.input_size
    plain: list[np.ndarray] = []
    queries: list[np.ndarray] = []
    for place in range(len(validation)):
        pixels = validation[place].pixels()
        plain.append(network_input(pixels, size))
        for number, kind in enumerate(query_kinds(place)):
            rng = np.random.default_rng([config.seed, _QUERY, place, number])
            queries.append(network_input(edit(pixels, kind, rng), size))
    rows = [
        (features_of(student.front, np.stack(inputs)) - student.centre) @ student.basis
        for inputs in (plain, queries)
    ]
    return rows[0], rows[1], np.repeat(np.arange(len(validation)), 2)
