"""Label accuracy of nearest neighbours: how much meaning the embedding carries."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from model.evaluate.embedding import Embedded, EmbeddedSet, Facts
from model.evaluate.radii import claims_of
from model.evaluate.rows import Claim, Row, certified_rows, groups_of, mean_rows
from model.evaluate.standing import Gallery, LeftOut
from model.metrics.metric import unit_rows

TASK = "knn"
SMALLEST_CLASS = 6
VOTERS = (10, 20, 100, 200)
TEMPERATURE = 0.07
_BLOCK_ROWS = 256


def measure_labels(metric: str, pictures: EmbeddedSet, epsilons: Sequence[float]) -> list[Row]:
    """Leave-one-out label accuracy of the nearest neighbour, source by source.

    Pictures of classes with fewer than 6 members are left out, as queries and as answers. The
    certified accuracy asks for the radius within which no picture of another label overtakes the
    nearest one.
    """
    rows: list[Row] = []
    for source in sorted({facts.source for facts in pictures.facts}):
        chosen = _labelled(pictures.facts, source)
        if chosen.size:
            names = [pictures.facts[int(number)].label for number in chosen]
            labels = np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)
            by = {"by": "source", "group": source} if source else {"by": "all"}
            group = groups_of({}, np.arange(chosen.size))[0]._replace(fields=by)
            fields = {"task": TASK, "metric": metric, "k": 1}
            embedded, places = pictures.metrics[metric], chosen * pictures.views
            found, claims = _nearest_is_right(embedded, places, labels)
            rows += mean_rows({**fields, "figure": "label_accuracy"}, found, [group])
            certified = {**fields, "figure": "certified_label_accuracy"}
            rows += certified_rows(certified, found, claims, epsilons, [group])
    return rows


def _labelled(facts: Sequence[Facts], source: str) -> Int64[np.ndarray, " M"]:
    """Numbers of the pictures of one source whose class is large enough."""
    labels = {number: one.label for number, one in enumerate(facts) if one.source == source}
    sizes = Counter(labels.values())
    large = [n for n, label in labels.items() if label and sizes[label] >= SMALLEST_CLASS]
    return np.array(large, dtype=np.int64)


def _nearest_is_right(
    embedded: Embedded, chosen: Int64[np.ndarray, " M"], labels: Int64[np.ndarray, " M"]
) -> tuple[Bool[np.ndarray, " M"], list[Claim]]:
    """Whether each chosen row's nearest has its label, and within which radii that stays."""
    vectors, numbers = embedded.pictures[chosen], np.arange(len(chosen))
    gallery, itself = Gallery(vectors, proof=embedded.proof), LeftOut(numbers, numbers)
    nearest = gallery.nearest(vectors, [itself])
    is_right = np.asarray(labels[nearest] == labels, dtype=np.bool_)
    if embedded.proof is None:
        return is_right, []
    same_label = LeftOut(labels, labels[nearest])
    standing = gallery.stand(vectors, nearest, without=[itself, same_label])
    radii, margins = standing.radii[:, 0], standing.margins[:, 0]
    return is_right, claims_of(radii, margins, embedded.proof, None)


def measure_votes(metric: str, train: EmbeddedSet, test: EmbeddedSet) -> list[Row]:
    """The weighted kNN of the DINO protocol: k train pictures vote, each by exp(cosine / 0.07).

    Returns:
        Top-1 and top-5 accuracy at k = 10, 20, 100, 200, as far as there are so many voters.

    Source: Caron et al. 2021, arXiv:2104.14294, and its public evaluation code.
    """
    names = sorted({facts.label for facts in (*train.facts, *test.facts)})
    number = {name: place for place, name in enumerate(names)}
    voters = np.array([number[facts.label] for facts in train.facts])
    wanted = np.array([number[facts.label] for facts in test.facts])
    ks = [k for k in VOTERS if k <= len(voters)]
    if not ks:
        return []
    places = {k: np.empty(len(wanted), dtype=np.int64) for k in ks}
    rows = unit_rows(train.metrics[metric].pictures)
    queries = unit_rows(test.metrics[metric].pictures)
    for start in range(0, len(wanted), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        for k, votes in _votes(queries[part], rows, voters, ks, len(names)).items():
            mine = votes[np.arange(len(votes)), wanted[part]][:, None]
            earlier = np.arange(len(names)) < wanted[part][:, None]
            places[k][part] = ((votes > mine) | ((votes == mine) & earlier)).sum(axis=1)
    fields, all_of_them = {"task": TASK, "metric": metric}, groups_of({}, np.arange(len(wanted)))
    return [
        row
        for k in ks
        for figure, top in (("voted_accuracy", 1), ("voted_accuracy_top5", 5))
        for row in mean_rows({**fields, "figure": figure, "k": k}, places[k] < top, all_of_them)
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
        np.add.at(votes, (np.arange(len(queries))[:, None], voters[nearest[:, :k]]), weights[:, :k])
        out[k] = votes
    return out
