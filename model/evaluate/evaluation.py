"""The evaluations of one command: which data they read, and the rows that come of each metric."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from model.cli.files import sha256_of
from model.cli.progress import Advance
from model.data.pictures import evenly, is_listed_part, open_pictures, splits_of, usual_split
from model.data.triplets import read_triplets
from model.errors import EvaluationError
from model.evaluate import copies, labels, retrieval, triplets
from model.evaluate.baselines import describe
from model.evaluate.curves import RadiusCurve
from model.evaluate.embedding import (
    Counting,
    Embedded,
    EmbeddedSet,
    embed_pictures,
    embed_triplets,
)
from model.evaluate.record import SCHEMA, FileList, check_hashes, versions
from model.evaluate.rows import Row
from model.metrics.metric import Metric
from model.pixels.views import VIEW_SETS

PICTURE_TASKS = frozenset({retrieval.TASK, copies.TASK, labels.TASK})
_LABELS = frozenset({labels.TASK})
_TRAINING = "train"
_NOTHING = {
    retrieval.TASK: "at least two pictures were wanted, one came",
    copies.TASK: "too few pictures to take some of them out",
    labels.TASK: f"no label has {labels.SMALLEST_CLASS} pictures",
}


@dataclass(frozen=True)
class Evaluation:
    """What all evaluations of a command have in common, and what they have measured so far.

    Attributes:
        metrics: by name; the first is the one that a report is about.
        epsilons: budgets, l2.
        seed: of the edits.
        split: the part of the data; None for test where there is one, else val, else everything.
        limit: take at most so many pictures or triplets, evenly spread; None for all.
        copies: edited copies of each picture.
        views: name of the set of views that each picture of a gallery has.
        side: of the square that radii are stated at; None for each metric's own.
        hashes: list of the sha256 that the pictures must have; None for any pictures. Triplets
            are outside it.
        counting: opens a progress bar.
        rows: what was measured.
        curves: radii for the plots.
        files: which files it was measured on, by what they are.
    """

    metrics: Mapping[str, Metric]
    epsilons: Sequence[float]
    seed: int
    split: str | None
    limit: int | None
    hashes: Path | None
    copies: int
    views: str
    side: int | None
    counting: Counting
    rows: list[Row] = field(default_factory=list[Row])
    curves: list[RadiusCurve] = field(default_factory=list[RadiusCurve])
    files: dict[str, FileList] = field(default_factory=dict[str, FileList])

    def record(self, command: str) -> Row:
        """All that is known but the rows; docs/evaluation.md has the schema."""
        return {
            "schema": SCHEMA,
            "command": command,
            "seed": self.seed,
            "limit": self.limit,
            "split": self.split,
            "copies": self.copies,
            "views": self.views,
            "side": self.side,
            "versions": versions(),
            "data": {what: files.record() for what, files in self.files.items()},
            "metrics": [describe(name, metric) for name, metric in self.metrics.items()],
            "radii": [curve.record() for curve in self.curves],
        }

    def measure_pictures(self, path: Path, tasks: frozenset[str]) -> None:
        """Retrieval, copies and labels of one set of pictures, in one pass over it.

        Raises:
            DataError: the set cannot be read.
            EvaluationError: there is nothing to measure in it, it is not the set of the hashes, or
                all of it is there to train on.
        """
        if tasks == _LABELS and self.split is None and _is_imagenets_layout(path):
            self._measure_votes(path)
        else:
            split = self.split or usual_split(path)
            pictures = self._embed("pictures", path, split, with_queries=tasks != _LABELS)
            for name in self.metrics:
                self._measure(name, pictures, tasks)
        missing = tasks - {row["task"] for row in self.rows}
        if missing == tasks:
            why = "; ".join(_NOTHING[task] for task in sorted(missing))
            what = ", ".join(sorted(missing))
            raise EvaluationError(f"nothing to measure for {what} in {path}: {why}")

    def measure_triplets(self, path: Path) -> None:
        """2AFC on triplets in the layout of NIGHTS or of BAPPS.

        Raises:
            DataError: the layout is neither, or what it holds is damaged.
        """
        found = read_triplets(path, self.split)
        chosen = [found[number] for number in evenly(len(found), self.limit)]
        metrics = self._stated(embed_triplets(chosen, self.metrics, self.counting))
        files = {file for t in chosen for file in (t.reference, t.left, t.right)}
        self.files["triplets"] = FileList(str(path), [sha256_of(file) for file in files])
        votes = np.array([triplet.vote for triplet in chosen], dtype=np.float64)
        divisions = triplets.divisions_of(chosen)
        for name, embedded in metrics.items():
            measured = triplets.measure_triplets(name, embedded, votes, divisions, self.epsilons)
            self._take(*measured)

    def _measure(self, name: str, pictures: EmbeddedSet, tasks: frozenset[str]) -> None:
        def counting(text: str, total: int) -> AbstractContextManager[Advance]:
            return self.counting(f"{name}: {text}", total)

        if retrieval.TASK in tasks and len(pictures.facts) > 1:
            self._take(*retrieval.measure_retrieval(name, pictures, self.epsilons, counting))
        if copies.TASK in tasks:
            self._take(copies.measure_copies(name, pictures, counting))
        if labels.TASK in tasks:
            self._take(labels.measure_labels(name, pictures, self.epsilons))

    def _measure_votes(self, path: Path) -> None:
        """The DINO protocol: the training part votes on the other part's labels.

        A list of hashes is about the other part, as it is for the other tasks on the same folder.
        """
        # The part that is measured first: what the list refuses need not wait for the other.
        split = str(usual_split(path))
        test = self._embed(split, path, split, with_queries=False)
        train = self._embed(_TRAINING, path, _TRAINING, with_queries=False)
        for name in self.metrics:
            self._take(labels.measure_votes(name, train, test))

    def _embed(
        self, what: str, path: Path, split: str | None, *, with_queries: bool
    ) -> EmbeddedSet:
        """A part of a data set, embedded, held to the list of hashes and noted."""
        pictures = open_pictures(path, split=split)
        embedded = embed_pictures(
            pictures,
            self.metrics,
            self.counting,
            seed=self.seed,
            limit=self.limit,
            copies=self.copies if with_queries else 0,
            views=VIEW_SETS[self.views if with_queries else "none"],
        )
        digests, origins = [one.digest for one in embedded.facts], embedded.origins
        if self.hashes is not None and what != _TRAINING:
            check_hashes(origins, self.hashes, is_part=self.limit is not None)
        self.files[what] = FileList(pictures.name, digests)
        if origins != digests and what == "pictures":
            self.files["origins"] = FileList(f"made into {pictures.name}", origins)
        return replace(embedded, metrics=self._stated(embedded.metrics))

    def _stated(self, embedded: Mapping[str, Embedded]) -> dict[str, Embedded]:
        """The same, with the side that radii are stated at."""
        stated = dict(embedded)
        for name, one in embedded.items():
            own = self.metrics[name].input_size
            if self.side is not None and own is not None and one.proof is not None:
                stated[name] = replace(one, proof=replace(one.proof, shrink=own / self.side))
        return stated

    def _take(self, rows: list[Row], curve: RadiusCurve | None = None) -> None:
        self.rows.extend(rows)
        if curve is not None:
            self.curves.append(curve)


def _is_imagenets_layout(path: Path) -> bool:
    """Whether a training part is there to vote: not that of a corpus, which has a list."""
    return _TRAINING in splits_of(path) and not is_listed_part(path, _TRAINING)
