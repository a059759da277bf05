"""The evaluations of one run: which data they read, and what they measure of each metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.data.pictures import is_listed_part, open_pictures
from model.data.triplets import TABLE, Triplet, read_triplets
from model.errors import EvaluationError
from model.evaluate import copies, neighbours, retrieval
from model.evaluate.gathering import Counting, Gathered, gather, gather_files
from model.evaluate.measurement import Measurement
from model.evaluate.radii import Resizes
from model.evaluate.results import DataIdentity, RadiusCurve, check_hashes, identify
from model.evaluate.subjects import proof_of
from model.evaluate.triplets import Judged, decide, measure_triplets
from model.metrics.metric import Metric

PICTURE_TASKS = frozenset({retrieval.TASK, copies.TASK, neighbours.TASK})
_LABELS = frozenset({neighbours.TASK})
_TRAINING = "train"
_USUAL_SPLITS = ("test", "val", "validation")


@dataclass(frozen=True)
class Request:
    """What all evaluations of a run have in common.

    Attributes:
        metrics: by name.
        epsilons: budgets, l2.
        seed: of the edits.
        split: the part of the data; None for test where there is one, else val, else everything.
        limit: take at most so many pictures or triplets, evenly spread; None for all.
        hashes: list of the sha256 that the pictures must have; None for any pictures. Triplets
            are outside it.
        counting: opens a progress bar.
    """

    metrics: Mapping[str, Metric]
    epsilons: Sequence[float]
    seed: int
    split: str | None
    limit: int | None
    hashes: Path | None
    counting: Counting


@dataclass
class Outcome:
    """What the evaluations have measured so far, and of which files."""

    measurements: list[Measurement] = field(default_factory=list[Measurement])
    curves: list[RadiusCurve] = field(default_factory=list[RadiusCurve])
    data: dict[str, DataIdentity] = field(default_factory=dict[str, DataIdentity])

    def merge(self, other: "Outcome") -> None:
        """Take in another evaluation's part."""
        self.measurements += other.measurements
        self.curves += other.curves
        self.data |= other.data

    def add(self, measured: tuple[list[Measurement], RadiusCurve | None]) -> None:
        """Take in one metric's part of a task."""
        self.measurements += measured[0]
        if measured[1] is not None:
            self.curves.append(measured[1])


def evaluate_pictures(path: Path, request: Request, tasks: frozenset[str]) -> Outcome:
    """Retrieval, copies and labels of one set of pictures, in one pass over it.

    Raises:
        DataError: the set cannot be read.
        EvaluationError: a task has nothing to measure in it, it is not the set of the hashes, or
            all of it is there to train on.
    """
    if tasks == _LABELS and request.split is None and _has_training_part(path):
        return _evaluate_votes(path, request)
    pictures = open_pictures(path, split=request.split or usual_split(path))
    with_queries = tasks != _LABELS
    gathered = gather(
        pictures,
        request.metrics,
        request.counting,
        seed=request.seed,
        limit=request.limit,
        with_queries=with_queries,
    )
    sheet = gathered.sheet
    if request.hashes is not None:
        check_hashes(sheet.origins, request.hashes, is_part=request.limit is not None)
    outcome = Outcome(data={"pictures": identify(pictures.name, sheet.digests)})
    if sheet.origins != sheet.digests:
        outcome.data["origins"] = identify(f"made into {pictures.name}", sheet.origins)
    for name, metric in request.metrics.items():
        proof, epsilons = proof_of(metric), request.epsilons
        if retrieval.TASK in tasks and len(sheet.ids) > 1:
            outcome.add(retrieval.measure_retrieval(name, gathered, epsilons=epsilons, proof=proof))
        if copies.TASK in tasks:
            outcome.add((copies.measure_copies(name, gathered, proof=proof), None))
        if neighbours.TASK in tasks:
            vectors = gathered.vectors[name].pictures
            labels = neighbours.measure_labels(name, vectors, sheet, epsilons=epsilons, proof=proof)
            outcome.add((labels, None))
    return _something(outcome, tasks, path)


def evaluate_triplets(path: Path, request: Request) -> Outcome:
    """2AFC on triplets in the layout of NIGHTS or of BAPPS.

    Raises:
        DataError: the layout is neither, or what it holds is damaged.
    """
    # NIGHTS is measured on test, BAPPS, which has none, on val.
    usual = "test" if (path / TABLE).exists() else "val"
    triplets = _spread(read_triplets(path, request.split or usual), request.limit)
    sides = [[getattr(t, side) for t in triplets] for side in ("reference", "left", "right")]
    files = list(dict.fromkeys(file for side in sides for file in side))
    number = {file: place for place, file in enumerate(files)}
    places = [np.array([number[file] for file in side]) for side in sides]
    digests, vectors, resizes = gather_files(files, request.metrics, request.counting)
    judged = _judged(triplets)
    outcome = Outcome(data={"triplets": identify(str(path), digests)})
    for name, metric in request.metrics.items():
        reference, left, right = (vectors[name][side] for side in places)
        resize = resizes.get(name)
        if resize is not None:
            resize = Resizes(resize.gains[places[0]], resize.input_errors[places[0]])
        outcome.add(
            measure_triplets(
                name,
                decide(reference, left, right),
                reference,
                judged,
                epsilons=request.epsilons,
                proof=proof_of(metric),
                resizes=resize,
            )
        )
    return outcome


def usual_split(path: Path) -> str | None:
    """The part of a data set that is there to be measured on; None where it has no parts.

    Raises:
        EvaluationError: it has a training part alone: what a metric was trained
            on says little of it, so that has to be asked for.
    """
    if not path.is_dir():
        return None
    folders: set[str] = set()
    listed: set[str] = set()
    for entry in path.iterdir():
        if entry.is_dir():
            folders.add(entry.name)
        if is_listed_part(path, entry.name):
            listed.add(entry.name)
    usual = next((split for split in _USUAL_SPLITS if split in folders), None)
    # A folder called train may be a label: pictures of trains.
    if usual is None and _TRAINING in listed:
        raise EvaluationError(
            f"{path} has a training part, but none of {', '.join(_USUAL_SPLITS)}; "
            f"to measure what was trained on, say --split {_TRAINING}"
        )
    return usual


def _has_training_part(path: Path) -> bool:
    return (path / _TRAINING).is_dir() and any((path / s).is_dir() for s in _USUAL_SPLITS)


def _evaluate_votes(path: Path, request: Request) -> Outcome:
    """The DINO protocol: the training part votes on the other part's labels.

    A list of hashes is about the other part, as it is for the other tasks on the same folder.
    """
    outcome = Outcome()
    parts: list[Gathered] = []
    # The part that is measured first: what the list refuses need not wait for the other.
    for split in (usual_split(path), _TRAINING):
        pictures = open_pictures(path, split=split)
        part = gather(
            pictures,
            request.metrics,
            request.counting,
            seed=request.seed,
            limit=request.limit,
            with_queries=False,
        )
        if request.hashes is not None and split != _TRAINING:
            is_part = request.limit is not None
            check_hashes(part.sheet.origins, request.hashes, is_part=is_part)
        outcome.data[str(split)] = identify(pictures.name, part.sheet.digests)
        parts.append(part)
    test, train = parts
    for name in request.metrics:
        outcome.measurements += neighbours.measure_votes(
            name,
            train.vectors[name].pictures,
            train.sheet.labels,
            test.vectors[name].pictures,
            test.sheet.labels,
        )
    return _something(outcome, _LABELS, path)


def _something(outcome: Outcome, tasks: frozenset[str], path: Path) -> Outcome:
    """The outcome, unless a task of its own came to nothing.

    Raises:
        EvaluationError: it did.
    """
    reasons = {
        retrieval.TASK: "at least two pictures were wanted, one came",
        copies.TASK: "too few pictures to take some of them out",
        neighbours.TASK: f"no label has {neighbours.SMALLEST_CLASS} pictures",
    }
    measured = {one.task for one in outcome.measurements}
    if not measured or (len(tasks) == 1 and tasks - measured):
        missing = ", ".join(sorted(tasks - measured))
        why = "; ".join(reasons[task] for task in sorted(tasks - measured) if task in reasons)
        raise EvaluationError(f"nothing to measure for {missing} in {path}: {why}")
    return outcome


def _spread(triplets: list[Triplet], limit: int | None) -> list[Triplet]:
    if limit is None or limit >= len(triplets):
        return triplets
    return [triplets[place * len(triplets) // limit] for place in range(limit)]


def _judged(triplets: Sequence[Triplet]) -> Judged:
    """Votes and divisions of triplets: NIGHTS tells ImageNet apart, BAPPS its subsets."""
    halves = {True: "_imagenet", False: "_no_imagenet"}
    return Judged(
        np.array([t.vote for t in triplets], dtype=np.float64),
        {
            "split": [
                "" if t.is_imagenet is None else t.split + halves[t.is_imagenet] for t in triplets
            ],
            # A synthetic triplet says after a colon how it was made.
            "group": [(t.group or "").partition(":")[0] for t in triplets],
        },
    )
