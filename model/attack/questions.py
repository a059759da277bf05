"""Questions to attack: edited pictures searched in their gallery, triplets, and pictures alone.

The queries of a gallery are made as evaluation makes them: two kinds of edits a picture, each drawn
from the seed, the picture's number and the kind.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from model.attack.block import Block
from model.attack.decisions import Decision, FirstPlace, StaysClose, StaysNear
from model.attack.subjects import Subject, subject_of, through_resize
from model.cli.progress import Progress
from model.data.edits import EDIT_KINDS, edit, query_kinds
from model.data.pictures import PictureSet, open_pictures
from model.data.triplets import load_triplet_pixels, read_triplets
from model.errors import AttackError
from model.metrics.metric import Metric, Pixels, squares
from model.pixels.resize import resize_operator

OBJECTIVES = ("eviction", "distance", "2afc")
SPACES = ("input", "upload")
_PICTURES_PER_PASS = 16

Squares = Float64[np.ndarray, "N 3 S S"]
Places = Int64[np.ndarray, " Q"]
Vectors = Float64[np.ndarray, "Q D"]
Decide = Callable[[np.ndarray, np.ndarray], Decision]
"""Places of questions among the chosen ones, and their vectors, to what is to hold of them."""


@runtime_checkable
class Questions(Protocol):
    """Questions about some data, put to one metric."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def blocks(self, count: int, seed: int) -> list[Block]:
        """Some of the questions, drawn from a seed, in blocks of one picture size.

        Args:
            count: how many; 0, or more than there are, takes all.
            seed: draws them and their edits.
        """


class Evictions:
    """Edited copies of pictures: each must find its original first among all.

    Args:
        pictures: the gallery.
        metric: embeds it, and the queries.
        space: "input" attacks the metric's square, "upload" the pixels before the resize.
        device: where gradients run.
        progress: told of each picture that is embedded.

    Raises:
        AttackError: there are not two pictures, so nothing can take another's place.
    """

    def __init__(
        self, pictures: PictureSet, metric: Metric, *, space: str, device: str, progress: Progress
    ) -> None:
        if len(pictures) < 2:
            raise AttackError(
                f"nothing was attacked: eviction needs at least two pictures, {len(pictures)} came"
            )
        self._pictures = pictures
        self._subject = subject_of(metric, device=device)
        self._space, self._device = space, device
        numbers = progress.counting("gallery", range(len(pictures)), len(pictures))
        vectors = [
            self._subject.embed(_squares(part, self._subject))
            for part in _parts(pictures[i].pixels() for i in numbers)
        ]
        self._gallery = self._subject.rows(np.concatenate(vectors))

    def __len__(self) -> int:
        return 2 * len(self._pictures)

    def blocks(self, count: int, seed: int) -> list[Block]:
        """Queries, two kinds of edits a picture, in blocks of one size."""
        chosen = _draw(len(self), count, seed)
        entries = np.array(chosen, dtype=np.int64) // 2
        ids: list[str] = []
        queries: list[Pixels] = []
        for query in chosen:
            number, kind = query // 2, query_kinds(query // 2)[query % 2]
            rng = np.random.default_rng([seed, number, EDIT_KINDS.index(kind)])
            queries.append(edit(self._pictures[number].pixels(), kind, rng))
            ids.append(f"{self._pictures.ids[number]}:{kind}")

        def decide(
            places: Int64[np.ndarray, " Q"], vectors: Float64[np.ndarray, "Q D"]
        ) -> Decision:
            return FirstPlace(self._gallery[None], entries[places], vectors, device=self._device)

        return _blocks(self._subject, self._space, ids, queries, decide)


class Choices:
    """Triplets on which the metric and people agree: the reference is attacked, nothing else.

    Triplets whose vote is a tie have no right answer and are left out; so are those of which the
    metric cannot tell the two alternatives apart.

    Args:
        root: a folder of triplets, see model.data.triplets.
        split: one of that data set's.
        metric: embeds all three pictures.
        space: "input" attacks the metric's square, "upload" the pixels before the resize.
        device: where gradients run.

    Raises:
        AttackError: every vote is a tie.
    """

    def __init__(self, root: Path, split: str, metric: Metric, *, space: str, device: str) -> None:
        triplets = read_triplets(root, split)
        self._triplets = [one for one in triplets if one.vote != 0.5]
        if not self._triplets:
            raise AttackError(
                f"nothing was attacked: at least one triplet whose vote is no tie was wanted, "
                f"{len(triplets)} ties came"
            )
        self._subject = subject_of(metric, device=device)
        self._space, self._device = space, device

    def __len__(self) -> int:
        return len(self._triplets)

    def blocks(self, count: int, seed: int) -> list[Block]:
        """Triplets in blocks of one reference size.

        Raises:
            AttackError: the metric tells no triplet's alternatives apart.
        """
        triplets = [self._triplets[i] for i in _draw(len(self), count, seed)]
        pixels = [load_triplet_pixels(one) for one in triplets]
        alternatives = self._embed([picture for one in pixels for picture in one[1:]])
        pairs: Float32[np.ndarray, "Q 2 D"] = alternatives.reshape(len(triplets), 2, -1)
        # Two alternatives that look the same leave nothing to decide, or to attack.
        differ = [i for i, pair in enumerate(pairs) if (pair[0] != pair[1]).any()]
        if not differ:
            raise AttackError(
                f"nothing was attacked: {self._subject.name} must tell the alternatives of at "
                f"least one triplet apart, {len(triplets)} that look the same came"
            )
        pairs, pixels = pairs[differ], [pixels[i] for i in differ]
        triplets = [triplets[i] for i in differ]
        right = np.array([int(one.vote > 0.5) for one in triplets], dtype=np.int64)

        def decide(
            places: Int64[np.ndarray, " Q"], vectors: Float64[np.ndarray, "Q D"]
        ) -> Decision:
            return FirstPlace(pairs[places], right[places], vectors, device=self._device)

        references = [one[0] for one in pixels]
        ids = [one.id for one in triplets]
        return _blocks(self._subject, self._space, ids, references, decide)

    def _embed(self, pictures: Sequence[Pixels]) -> Float32[np.ndarray, "N D"]:
        vectors = [self._subject.embed(_squares(part, self._subject)) for part in _parts(pictures)]
        return self._subject.rows(np.concatenate(vectors))


class Distances:
    """Pictures held against changed copies of themselves: they must stay a match.

    Args:
        pictures: the pictures.
        metric: embeds them.
        threshold: distance beyond which two pictures no longer match.
        space: "input" attacks the metric's square, "upload" the pixels before the resize.
        device: where gradients run.
    """

    def __init__(
        self, pictures: PictureSet, metric: Metric, *, threshold: float, space: str, device: str
    ) -> None:
        if not 0.0 < threshold < 2.0:
            raise AttackError(f"a distance threshold must be in (0, 2), got {threshold}")
        self._pictures, self._threshold = pictures, threshold
        self._subject = subject_of(metric, device=device)
        self._space, self._device = space, device

    def __len__(self) -> int:
        return len(self._pictures)

    def blocks(self, count: int, seed: int) -> list[Block]:
        """Pictures in blocks of one size."""
        chosen = _draw(len(self), count, seed)
        pixels = [self._pictures[i].pixels() for i in chosen]

        def decide(_: Places, vectors: Vectors) -> Decision:
            stays = StaysClose if self._subject.is_squared else StaysNear
            return stays(vectors, self._threshold, device=self._device)

        ids = [self._pictures.ids[i] for i in chosen]
        return _blocks(self._subject, self._space, ids, pixels, decide)


def open_questions(
    data: Path,
    metric: Metric,
    *,
    objective: str,
    split: str | None = None,
    space: str = "input",
    threshold: float = 0.1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Questions:
    """Questions of one of OBJECTIVES about some data.

    Args:
        data: a folder of pictures or of shards; of triplets for "2afc".
        metric: what is attacked.
        objective: one of OBJECTIVES.
        split: a part of the data; None takes the test part where there is one, else everything.
        space: one of SPACES.
        threshold: for "distance".
        device: where gradients run.
        progress: told how much of the gallery is embedded.

    Raises:
        AttackError: an argument is none of those, or there is nothing that could be attacked.
        DataError: the data cannot be read.
    """
    if objective not in OBJECTIVES:
        raise AttackError(f"an objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if space not in SPACES:
        raise AttackError(f"a space must be one of {', '.join(SPACES)}, got {space!r}")
    if objective == "2afc":
        return Choices(data, split or "test", metric, space=space, device=device)
    if split is None and any(data.glob("test-*.tar")):
        split = "test"
    pictures = open_pictures(data, split=split)
    if objective == "distance":
        return Distances(pictures, metric, threshold=threshold, space=space, device=device)
    progress = progress or Progress()
    return Evictions(pictures, metric, space=space, device=device, progress=progress)


def _blocks(
    subject: Subject,
    space: str,
    ids: list[str],
    pixels: list[Pixels],
    decide: Decide,
) -> list[Block]:
    """Questions in blocks of one picture size, each with its unchanged vectors."""
    if space == "input":
        return [_block(subject, ids, _squares(pixels, subject), np.arange(len(ids)), decide)]
    places: dict[tuple[int, int], list[int]] = {}
    for place, picture in enumerate(pixels):
        places.setdefault((picture.shape[0], picture.shape[1]), []).append(place)
    blocks: list[Block] = []
    for (height, width), part in places.items():
        uploaded = through_resize(subject, resize_operator(height, width, subject.height))
        images = np.stack([pixels[place] for place in part]).transpose(0, 3, 1, 2) / 255.0
        blocks.append(
            _block(uploaded, [ids[place] for place in part], images, np.array(part), decide)
        )
    return blocks


def _block(
    subject: Subject,
    ids: list[str],
    images: Float64[np.ndarray, "Q 3 H W"],
    places: Places,
    decide: Decide,
) -> Block:
    images = np.ascontiguousarray(images)
    vectors = subject.embed(images)
    return Block(subject, decide(places, vectors), ids, images, vectors)


def _squares(pixels: Sequence[Pixels], subject: Subject) -> Squares:
    """Pictures through the certified resize, on whole levels where only these exist."""
    values = squares(pixels, subject.height)
    return np.rint(255.0 * values) / 255.0 if subject.has_levels else values


def _draw(total: int, count: int, seed: int) -> list[int]:
    """Numbers below a total, each once, in a drawn order."""
    return [int(i) for i in np.random.default_rng(seed).permutation(total)[: count or total]]


def _parts(pictures: Iterator[Pixels] | Sequence[Pixels]) -> Iterator[list[Pixels]]:
    part: list[Pixels] = []
    for picture in pictures:
        part.append(picture)
        if len(part) == _PICTURES_PER_PASS:
            yield part
            part = []
    if part:
        yield part
