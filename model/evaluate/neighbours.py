"""Label accuracy of nearest neighbours: how much meaning the embedding carries."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64

from model.evaluate.gathering import Sheet
from model.evaluate.measurement import Group, Measurement, shares_above
from model.evaluate.radii import Proof, claims_of
from model.evaluate.standing import Gallery, LeftOut, unit_rows

TASK = "knn"
SMALLEST_CLASS = 6
VOTERS = (10, 20, 100, 200)
TEMPERATURE = 0.07
_BLOCK_ROWS = 256


def measure_labels(
    metric: str,
    vectors: Float64[np.ndarray, "N D"],
    sheet: Sheet,
    *,
    epsilons: Sequence[float],
    proof: Proof | None,
) -> list[Measurement]:
    """Leave-one-out label accuracy of the nearest neighbour, source by source.

    Pictures of classes with fewer than 6 members are left out, as queries and as answers. The
    certified accuracy asks for the radius within which no picture of another label overtakes the
    nearest one.

    Args:
        metric: its name.
        vectors: raw embeddings, (N, D).
        sheet: labels and sources; "" is no label.
        epsilons: budgets, l2.
        proof: None for a metric without a certificate.
    """
    out: list[Measurement] = []
    for source in sorted(set(sheet.sources)):
        chosen = _labelled(sheet, source)
        if chosen.size:
            names = [sheet.labels[int(number)] for number in chosen]
            order = {name: place for place, name in enumerate(sorted(set(names)))}
            labels = np.array([order[name] for name in names], dtype=np.int64)
            by, group = ("source", source) if source else ("all", "")
            out += _one_source(
                metric,
                vectors[chosen],
                labels,
                Group(by, group, np.ones(chosen.size, dtype=np.bool_)),
                epsilons=epsilons,
                proof=proof,
            )
    return out


def _labelled(sheet: Sheet, source: str) -> Int64[np.ndarray, " M"]:
    """Numbers of the pictures of one source whose class is large enough."""
    of_source = [number for number, name in enumerate(sheet.sources) if name == source]
    sizes = Counter(sheet.labels[number] for number in of_source)
    return np.array(
        [
            number
            for number in of_source
            if sheet.labels[number] and sizes[sheet.labels[number]] >= SMALLEST_CLASS
        ],
        dtype=np.int64,
    )


def _one_source(
    metric: str,
    vectors: Float64[np.ndarray, "M D"],
    labels: Int64[np.ndarray, " M"],
    group: Group,
    *,
    epsilons: Sequence[float],
    proof: Proof | None,
) -> list[Measurement]:
    gallery = Gallery(vectors)
    numbers = np.arange(len(vectors))
    itself = LeftOut(numbers, numbers)
    nearest = gallery.nearest(vectors, [itself])
    is_right = np.asarray(labels[nearest] == labels, dtype=np.bool_)
    out = [group.mean(TASK, metric, "label_accuracy", is_right, k=1)]
    if proof is None:
        return out
    same_label = LeftOut(labels, labels[nearest])
    radii = gallery.stand(vectors, nearest, without=[itself, same_label]).radii[:, 0]
    for claim in claims_of(radii, vectors, proof, None):
        out += shares_above(
            group,
            claim,
            epsilons,
            task=TASK,
            metric=metric,
            figure="certified_label_accuracy",
            weights=is_right,
            k=1,
        )
    return out


def measure_votes(
    metric: str,
    train: Float64[np.ndarray, "N D"],
    train_labels: Sequence[str],
    test: Float64[np.ndarray, "M D"],
    test_labels: Sequence[str],
) -> list[Measurement]:
    """The weighted kNN of the DINO protocol: k votes, each weighing exp(cosine / 0.07).

    Args:
        metric: its name.
        train: raw embeddings of the pictures that vote, (N, D).
        train_labels: their classes.
        test: raw embeddings of the pictures to be classified, (M, D).
        test_labels: their classes.

    Returns:
        Top-1 and top-5 accuracy at k = 10, 20, 100, 200, as far as there are so many voters.

    Source: Caron et al. 2021, arXiv:2104.14294, and its public evaluation code.
    """
    names = sorted({*train_labels, *test_labels})
    number = {name: place for place, name in enumerate(names)}
    voters = np.array([number[label] for label in train_labels])
    wanted = np.array([number[label] for label in test_labels])
    ks = [k for k in VOTERS if k <= len(train)]
    if not ks:
        return []
    places = {k: np.empty(len(test), dtype=np.int64) for k in ks}
    rows, queries = unit_rows(train), unit_rows(test)
    for start in range(0, len(test), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        for k, votes in _votes(queries[part], rows, voters, ks, len(names)).items():
            mine = votes[np.arange(len(votes)), wanted[part]][:, None]
            earlier = np.arange(len(names)) < wanted[part][:, None]
            places[k][part] = ((votes > mine) | ((votes == mine) & earlier)).sum(axis=1)
    everything = Group("all", "", np.ones(len(test), dtype=np.bool_))
    return [
        everything.mean(TASK, metric, figure, places[k] < top, k=k)
        for k in ks
        for figure, top in (("voted_accuracy", 1), ("voted_accuracy_top5", 5))
    ]


def _votes(
    queries: Float32[np.ndarray, "B D"],
    rows: Float32[np.ndarray, "N D"],
    voters: Int64[np.ndarray, " N"],
    ks: Sequence[int],
    classes: int,
) -> dict[int, Float64[np.ndarray, "B C"]]:
    """Each class's weight among the k nearest, for each k."""
    similarities = queries @ rows.T
    most = max(ks)
    nearest = np.argpartition(-similarities, most - 1, axis=1)[:, :most]
    order = np.argsort(-np.take_along_axis(similarities, nearest, axis=1), axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, order, axis=1)
    weights = np.exp(np.take_along_axis(similarities, nearest, axis=1) / np.float32(TEMPERATURE))
    out: dict[int, Float64[np.ndarray, "B C"]] = {}
    for k in ks:
        votes = np.zeros((len(queries), classes))
        places = np.repeat(np.arange(len(queries))[:, None], k, axis=1)
        np.add.at(votes, (places, voters[nearest[:, :k]]), weights[:, :k])
        out[k] = votes
    return out
