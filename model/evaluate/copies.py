"""Copy detection: telling copies of gallery pictures from pictures that are not in the gallery.

A seventh of the originals is taken out of the gallery, so their copies have no right answer:
whatever a search brings back for them is a false positive if it looks like a match. A threshold on
a statistic of the first result is set by how many of those may pass; recall is the share of the
other copies that find their original with a statistic above it. Each seventh is taken out in turn
and all turns are counted together: the threshold hangs on the few strangest pictures, and which of
them happen to be out in a single draw moves recall by ten points.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from model.evaluate.embedding import EmbeddedSet
from model.evaluate.rows import Row, groups_of, mean_rows
from model.evaluate.standing import Gallery, LeftOut

TASK = "copies"
RATES = (0.01, 0.001)
TURNS = 7


def turn_of(digests: Sequence[str]) -> Int64[np.ndarray, " N"]:
    """The turn in which each original is taken out, (N,): by its hash alone.

    What else is in the set does not matter, and equal files go together.
    """
    return np.array([int(digest, 16) % TURNS for digest in digests], dtype=np.int64)


def first_results(
    gallery: Gallery,
    queries: Float64[np.ndarray, "Q D"],
    turns: Int64[np.ndarray, " N"],
) -> tuple[Int64[np.ndarray, "Q T"], dict[str, Float64[np.ndarray, "Q T"]]]:
    """The first result of each query in each turn: its number, its margin and its cosine.

    It is the first of the whole gallery in every turn but the one in which that is out.

    `turns` says in which each entry is out, not one for all.
    """
    best = gallery.nearest(queries)
    by_group = gallery.stand_by_group(queries, best, turns, TURNS)
    out = [LeftOut(turns, turns[best])]
    second = gallery.nearest(queries, out)
    instead = gallery.stand(queries, second, without=out)
    is_out = turns[best][:, None] == np.arange(TURNS)
    others = [np.delete(by_group.margins, turn, axis=1).min(axis=1) for turn in range(TURNS)]
    found = {
        "margin": np.maximum(0.0, np.where(is_out, instead.margins, np.stack(others, axis=1))),
        "cosine": np.where(is_out, instead.similarities[:, None], by_group.similarities[:, None]),
    }
    return np.where(is_out, second[:, None], best[:, None]), found


def threshold_for(statistics: Float64[np.ndarray, " F"], rate: float) -> float:
    """The lowest threshold that at most `rate` of these are above; -inf for none at all."""
    return float(thresholds_for(statistics, rate, np.ones((1, statistics.size)))[0])


def thresholds_for(
    statistics: Float64[np.ndarray, " F"], rate: float, weights: Float64[np.ndarray, "S F"]
) -> Float64[np.ndarray, " S"]:
    """`threshold_for` of samples in which each of these comes so often, (S,)."""
    order = np.argsort(-statistics)
    passed = np.cumsum(weights[:, order], axis=1)
    allowed = rate * weights.sum(axis=1, keepdims=True) + 1e-9
    return np.append(statistics[order], -np.inf)[(passed <= allowed).sum(axis=1)]


def measure_copies(metric: str, pictures: EmbeddedSet) -> list[Row]:
    """Recall at the allowed rates of false positives, by margin and by cosine, and by edit.

    The margin is the first result's distance in embedding space to the nearest plane over the
    embedding's norm, as verdicts have it. It needs no certificate: a metric without one has it too,
    and nothing is proved by it.
    """
    embedded, originals = pictures.metrics[metric], pictures.originals
    turns = turn_of(pictures.origins)
    if (turns == turns[0]).all():
        return []
    gallery = Gallery(embedded.pictures, pictures.views)
    entries, found = first_results(gallery, embedded.queries, turns)
    is_absent = turns[originals][:, None] == np.arange(TURNS)
    is_right = entries == originals[:, None]
    groups = groups_of(pictures.divisions(), originals)
    rows: list[Row] = []
    for statistic, values in found.items():
        for rate in RATES:
            fields = {"task": TASK, "metric": metric, "statistic": statistic, "rate": rate}
            threshold = threshold_for(values[is_absent], rate)
            varied = thresholds_for(values[is_absent], rate, groups[0].weights).tolist()
            # A copy counts once, by the share of its turns: in all but one its original is there.
            for figure, counted, turns_each, shown in (
                ("copy_recall", is_right, TURNS - 1, groups),
                ("wrong_match_rate", ~is_right & ~is_absent, TURNS - 1, groups[:1]),
                ("false_positive_rate", is_absent, 1, groups[:1]),
            ):
                whole, *sampled = [
                    (counted & (values > at)).sum(axis=1) / turns_each
                    for at in (threshold, *varied)
                ]
                named = {**fields, "figure": figure}
                rows += mean_rows(named, whole, shown, np.stack(sampled))
            number = {"value": threshold if np.isfinite(threshold) else None}
            count = {"count": len(originals)}
            rows.append({**fields, "figure": "threshold", "by": "all", **number, **count})
    return rows
