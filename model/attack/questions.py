"""Questions to attack: edited pictures searched in their gallery, triplets, and pictures alone.

The queries of a gallery are made as evaluation makes them: two kinds of edits a picture, each drawn
from the seed, the picture's number and the kind.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float32, Float64

from model.attack.decisions import Decision, Match, Top1
from model.attack.pixel_metric import PixelMetric, metric_of_upload
from model.attack.plan import Plan
from model.cli.progress import Progress
from model.data.edits import query_kinds, query_of
from model.data.pictures import PictureSet, open_pictures, usual_split
from model.data.triplets import load_triplet_pixels, read_triplets
from model.errors import AttackError
from model.metrics.metric import Pixels, squares, unit_rows
from model.pixels.resize import resize_operator
from model.pixels.views import VIEW_SETS, VIEWS

_PICTURES_PER_PASS = 16

Decide = Callable[[np.ndarray, np.ndarray], Decision]
"""Places of questions among those asked, (Q,), and their vectors, (Q, D), to their decisions."""


@dataclass(frozen=True, eq=False)
class Block:
    """Questions whose pictures have one size, so that they are attacked together.

    Attributes:
        metric: the metric, seen from pixels of this size.
        decision: what is to hold.
        ids: the questions', (Q,).
        pictures: unchanged pixels in [0, 1], (Q, 3, H, W).
        vectors: their raw vectors, (Q, D).
    """

    metric: PixelMetric
    decision: Decision
    ids: list[str]
    pictures: Float64[np.ndarray, "Q 3 H W"]
    vectors: Float64[np.ndarray, "Q D"]


@dataclass(frozen=True, eq=False)
class _Asked:
    ids: list[str]
    pictures: list[Pixels]
    decide: Decide


def ask(plan: Plan, metric: PixelMetric, progress: Progress) -> list[Block]:
    """The questions of a plan, put to one metric, in blocks of one picture size.

    Raises:
        AttackError: there is nothing that could be attacked.
        DataError: the data cannot be read.
    """
    if plan.objective == "2afc":
        asked = _triplets(plan, metric)
    else:
        pictures = open_pictures(plan.data, split=plan.split or usual_split(plan.data))
        if plan.objective == "eviction":
            asked = _edited_copies(plan, metric, pictures, progress)
        else:
            asked = _single_pictures(plan, pictures)
    return _blocks(metric, plan.space, asked)


def _edited_copies(
    plan: Plan, metric: PixelMetric, pictures: PictureSet, progress: Progress
) -> _Asked:
    """Two kinds of edits a picture: each copy must find its original first among all."""
    if len(pictures) < 2:
        raise AttackError(
            f"nothing was attacked: eviction needs at least two pictures, {len(pictures)} came"
        )
    numbers = progress.counting("gallery", range(len(pictures)), len(pictures))
    names = VIEW_SETS[plan.views]
    whole = (pictures[i].pixels() for i in numbers)
    gallery = _rows(metric, (VIEWS[name].of(pixels) for pixels in whole for name in names))
    chosen = _draw(2 * len(pictures), plan)
    ids: list[str] = []
    copies: list[Pixels] = []
    for query in chosen:
        number, kind = query // 2, query_kinds(query // 2)[query % 2]
        copies.append(query_of(pictures[number].pixels(), kind, seed=plan.seed, number=number))
        ids.append(f"{pictures.ids[number]}:{kind}")
    entries = np.array(chosen, dtype=np.int64) // 2
    return _Asked(
        ids,
        copies,
        lambda places, vectors: Top1(
            gallery[None], entries[places], vectors, views=len(names), device=plan.device
        ),
    )


def _triplets(plan: Plan, metric: PixelMetric) -> _Asked:
    """Triplets on which the metric and people agree: the reference is attacked, nothing else.

    Triplets whose vote is a tie have no right answer and are left out; so are those of which the
    metric cannot tell the two alternatives apart.
    """
    every = read_triplets(plan.data, plan.split)
    voted = [one for one in every if one.vote != 0.5]
    if not voted:
        raise AttackError(
            f"nothing was attacked: at least one triplet whose vote is no tie was wanted, "
            f"{len(every)} ties came"
        )
    triplets = [voted[i] for i in _draw(len(voted), plan)]
    pixels = [load_triplet_pixels(one) for one in triplets]
    alternatives = _rows(metric, (picture for one in pixels for picture in one[1:]))
    pairs: Float32[np.ndarray, "Q 2 D"] = alternatives.reshape(len(triplets), 2, -1)
    differ = np.flatnonzero((pairs[:, 0] != pairs[:, 1]).any(axis=1))
    if not differ.size:
        raise AttackError(
            f"nothing was attacked: {metric.name} must tell the alternatives of at least one "
            f"triplet apart, {len(triplets)} that look the same came"
        )
    pairs = pairs[differ]
    right = np.array([int(triplets[i].vote > 0.5) for i in differ], dtype=np.int64)
    return _Asked(
        [triplets[i].id for i in differ],
        [pixels[i][0] for i in differ],
        lambda places, vectors: Top1(pairs[places], right[places], vectors, device=plan.device),
    )


def _single_pictures(plan: Plan, pictures: PictureSet) -> _Asked:
    """Pictures held against changed copies of themselves: they must stay a match."""
    if not 0.0 < plan.threshold < 2.0:
        raise AttackError(f"a distance threshold must be in (0, 2), got {plan.threshold}")
    chosen = _draw(len(pictures), plan)
    return _Asked(
        [pictures.ids[i] for i in chosen],
        [pictures[i].pixels() for i in chosen],
        lambda _, vectors: Match(vectors, plan.threshold, device=plan.device),
    )


def _blocks(metric: PixelMetric, space: str, asked: _Asked) -> list[Block]:
    """Questions in blocks of one picture size, each with its unchanged vectors."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(asked.pictures):
        places.setdefault(picture.shape[:2] if space == "upload" else (), []).append(place)
    blocks: list[Block] = []
    for size, part in places.items():
        pictures, seen = [asked.pictures[place] for place in part], metric
        if size:
            height, width = size
            seen = metric_of_upload(metric, resize_operator(height, width, metric.height))
            images = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2) / 255.0)
        else:
            images = _squares(pictures, metric)
        vectors, ids = seen.embed(images), [asked.ids[place] for place in part]
        blocks.append(Block(seen, asked.decide(np.array(part), vectors), ids, images, vectors))
    return blocks


def _rows(metric: PixelMetric, pictures: Iterable[Pixels]) -> Float32[np.ndarray, "N D"]:
    """Pictures as the rows of a gallery."""
    left = iter(pictures)
    parts = iter(lambda: list(islice(left, _PICTURES_PER_PASS)), [])
    return unit_rows(np.concatenate([metric.embed(_squares(part, metric)) for part in parts]))


def _squares(pixels: Sequence[Pixels], metric: PixelMetric) -> Float64[np.ndarray, "N 3 S S"]:
    """Pictures through the certified resize, on whole levels where only these exist."""
    values = squares(pixels, metric.height)
    return np.rint(255.0 * values) / 255.0 if metric.has_levels else values


def _draw(total: int, plan: Plan) -> list[int]:
    """Numbers below a total, each once, in a drawn order: as many as the plan wants."""
    order = np.random.default_rng(plan.seed).permutation(total)
    return [int(i) for i in order[: plan.queries or total]]
