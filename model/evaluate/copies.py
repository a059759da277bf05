"""Copy detection: telling copies of gallery pictures from pictures that are not in the gallery.

A seventh of the originals is taken out of the gallery, so their copies have no right answer:
whatever a search brings back for them is a false positive if it looks like a match. A threshold on
a statistic of the first result is set by how many of those may pass; recall is the share of the
other copies that find their original with a statistic above it. Each seventh is taken out in turn
and all turns are counted together: the threshold hangs on the few strangest pictures, and which of
them happen to be out in a single draw moves recall by ten points.

Margin and cosine may be added: how much of the cosine serves a gallery is told by half of its
pictures, and measured on the other half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.statistic import COSINE_WEIGHTS
from model.evaluate.embedding import Counting, EmbeddedSet, uncounted
from model.evaluate.rows import Group, Row, groups_of, mean_rows
from model.evaluate.standing import Gallery, LeftOut

TASK = "copies"
RATES = (0.01, 0.001)
TURNS = 7

# What a calibration chooses from, by the statistic's name.
WEIGHTS = {
    f"margin + {weight:g} cosine" if weight else "margin": weight for weight in COSINE_WEIGHTS
}
CALIBRATED = "calibrated"


def turn_of(digests: Sequence[str]) -> Int64[np.ndarray, " N"]:
    """The turn in which each original is taken out, (N,): by its hash alone.

    What else is in the set does not matter, and equal files go together.
    """
    return np.array([int(digest, 16) % TURNS for digest in digests], dtype=np.int64)


def half_of(digests: Sequence[str]) -> Int64[np.ndarray, " N"]:
    """The half of the pictures that each is in, 0 or 1, by its hash alone; each has all turns."""
    return np.array([int(digest, 16) // TURNS % 2 for digest in digests], dtype=np.int64)


def first_results(
    gallery: Gallery,
    queries: Float64[np.ndarray, "Q D"],
    turns: Int64[np.ndarray, " N"],
) -> tuple[Int64[np.ndarray, "Q T"], dict[str, Float64[np.ndarray, "Q T"]]]:
    """The first result of each query in each turn: its number, and each statistic of it.

    It is the first of the whole gallery in every turn but the one in which that is out.

    `turns` says in which each entry is out, not one for all.
    """
    best, weights = gallery.nearest(queries), [weight for weight in WEIGHTS.values() if weight]
    by_group = gallery.stand_by_group(queries, best, turns, TURNS, weights)
    out = [LeftOut(turns, turns[best])]
    second = gallery.nearest(queries, out)
    instead = gallery.stand(queries, second, without=out, cosine_weights=weights)
    is_out = turns[best][:, None] == np.arange(TURNS)
    found: dict[str, Float64[np.ndarray, "Q T"]] = {}
    for name, groups, alone in zip(
        WEIGHTS,
        (by_group.margins, *by_group.statistics),
        (instead.margins, *instead.statistics),
        strict=True,
    ):
        others = [np.delete(groups, turn, axis=1).min(axis=1) for turn in range(TURNS)]
        found[name] = np.where(is_out, alone, np.stack(others, axis=1))
    found["margin"] = np.maximum(0.0, found["margin"])
    similarities = instead.similarities[:, None], by_group.similarities[:, None]
    found["cosine"] = np.where(is_out, *similarities)
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


@dataclass(frozen=True, eq=False)
class _Cases:
    """Queries in all turns.

    Attributes:
        is_right: their original is what they find, (Q, T).
        is_absent: it is out, (Q, T).
        groups: the queries by what they are, with bootstrap samples.
    """

    is_right: Bool[np.ndarray, "Q T"]
    is_absent: Bool[np.ndarray, "Q T"]
    groups: list[Group]

    def best(self, statistics: Mapping[str, Float64[np.ndarray, "Q T"]], rate: float) -> str:
        """The statistic that finds the most at a rate of false positives; of equals the first."""
        found = {
            name: (self.is_right & (values > threshold_for(values[self.is_absent], rate))).sum()
            for name, values in statistics.items()
        }
        return max(found, key=lambda name: found[name])

    def rows(self, fields: Row, values: Float64[np.ndarray, "Q T"], rate: float) -> list[Row]:
        """Every figure of a statistic at a rate of false positives."""
        threshold, rows = threshold_for(values[self.is_absent], rate), list[Row]()
        varied = thresholds_for(values[self.is_absent], rate, self.groups[0].weights).tolist()
        # A copy counts once, by the share of its turns: in all but one its original is there.
        for figure, counted, turns_each, shown in (
            ("copy_recall", self.is_right, TURNS - 1, self.groups),
            ("wrong_match_rate", ~self.is_right & ~self.is_absent, TURNS - 1, self.groups[:1]),
            ("false_positive_rate", self.is_absent, 1, self.groups[:1]),
        ):
            whole, *sampled = [
                (counted & (values > at)).sum(axis=1) / turns_each for at in (threshold, *varied)
            ]
            rows += mean_rows({**fields, "figure": figure}, whole, shown, np.stack(sampled))
        number = {"value": threshold if np.isfinite(threshold) else None}
        count = {"count": len(values)}
        return [*rows, {**fields, "figure": "threshold", "by": "all", **number, **count}]


def measure_copies(metric: str, pictures: EmbeddedSet, counting: Counting = uncounted) -> list[Row]:
    """Recall at the allowed rates of false positives, by each statistic, and by edit.

    The margin is the first result's distance in embedding space to the nearest plane over the
    embedding's norm, as verdicts have it. It needs no certificate: a metric without one has it too,
    and nothing is proved by it.
    """
    embedded, originals = pictures.metrics[metric], pictures.originals
    turns = turn_of(pictures.origins)
    if (turns == turns[0]).all():
        return []
    gallery = Gallery(embedded.pictures, pictures.views, counting=counting)
    entries, found = first_results(gallery, embedded.queries, turns)
    is_absent = turns[originals][:, None] == np.arange(TURNS)
    is_right = entries == originals[:, None]

    def cases(some: Bool[np.ndarray, " Q"]) -> _Cases:
        divisions = {
            by: [name for name, is_one in zip(names, some, strict=True) if is_one]
            for by, names in pictures.divisions().items()
        }
        _, renumbered = np.unique(originals[some], return_inverse=True)
        return _Cases(is_right[some], is_absent[some], groups_of(divisions, renumbered))

    everyone = cases(np.ones(originals.size, dtype=np.bool_))
    half = half_of(pictures.origins)[originals]
    has_halves = (half == 0).any() and (half == 1).any()
    halves = [cases(half == which) for which in (0, 1)] if has_halves else []
    rows: list[Row] = []
    for rate in RATES:
        fields = {"task": TASK, "metric": metric, "rate": rate}
        for statistic, values in found.items():
            rows += everyone.rows({**fields, "statistic": statistic}, values, rate)
        if halves:
            choosing, measuring = halves
            best = choosing.best({name: found[name][half == 0] for name in WEIGHTS}, rate)
            named = {**fields, "statistic": CALIBRATED, "cosine_weight": WEIGHTS[best]}
            rows += measuring.rows(named, found[best][half == 1], rate)
    return rows
