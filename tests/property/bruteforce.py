"""The truth about a search, from the formulas and the whole gallery; shares no code with `model`.

Everything is in embedding space and of the full gallery: no candidates, no tail, no slack, no
Gram matrix. Pair distances come from differences formed first, thresholds from extended precision.
"""

from dataclasses import dataclass, field

import numpy as np

_CHUNK = 4096


@dataclass
class Truth:
    membership: np.ndarray
    top1: float | None
    set: float
    order: float


@dataclass(frozen=True, eq=False)
class World:
    """A gallery, and how the embedding of a query may move.

    Attributes:
        rows: all rows, (N, D) float32.
        items: which item each is a view of, (N,), numbers from 0 on without gaps; by default each
            is one of its own.
        scales: a change of the input, times gain and L, moves <g, D> by |scales o D| of itself.
        error: forward error of an embedding.
    """

    rows: np.ndarray
    items: np.ndarray | None = None
    scales: np.ndarray | None = None
    error: float = 0.0
    # What was found already: of one query many answers are checked, with the same items in them.
    radii: dict = field(default_factory=dict, init=False)
    scores: dict = field(default_factory=dict, init=False)

    def __post_init__(self):
        if self.items is None:
            object.__setattr__(self, "items", np.arange(self.rows.shape[0]))

    @property
    def count(self):
        return int(self.items.max(initial=-1)) + 1

    def views(self, item):
        return np.flatnonzero(self.items == item)


def scores(query, gallery):
    """<g, f> in extended precision, (N,)."""
    wide = query.astype(np.longdouble)
    parts = [
        (gallery[start : start + _CHUNK].astype(np.longdouble) * wide).sum(axis=1)
        for start in range(0, gallery.shape[0], _CHUNK)
    ]
    return np.concatenate([np.zeros(0, np.longdouble), *parts])


def row_radii(query, world, row):
    """How far the input may move before each row's score reaches that of one row, (N,)."""
    radii = np.empty(world.rows.shape[0])
    own = world.rows[row].astype(np.float64)
    for start in range(0, world.rows.shape[0], _CHUNK):
        part = slice(start, start + _CHUNK)
        difference = own - world.rows[part].astype(np.float64)
        apart = np.linalg.norm(difference, axis=1)
        moves = apart if world.scales is None else np.linalg.norm(difference * world.scales, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            radii[part] = (difference @ query - 2 * world.error * apart) / moves
    equal = (world.rows == world.rows[row]).all(axis=1)
    radii[equal] = np.where(world.items[equal] >= world.items[row], np.inf, -np.inf)
    return radii


def item_radii(query, world, item):
    """The same of items, (count,): least over another's rows of the largest over its own."""
    key = query.tobytes(), int(item)
    if key not in world.radii:
        world.radii[key] = _item_radii(query, world, item)
    return world.radii[key]


def _item_radii(query, world, item):
    best = np.max([row_radii(query, world, row) for row in world.views(item)], axis=0)
    of_items = np.full(world.count, np.inf)
    np.minimum.at(of_items, world.items, best)
    of_items[item] = np.inf
    return of_items


def kth_smallest(radii, k):
    """The k-th smallest of all but one, whose place holds inf; inf where there are fewer."""
    return float(np.sort(radii)[k - 1]) if k <= radii.size else np.inf


def cosine_flip(query, row, threshold):
    """Distance from the query to where 1 - <g, f> / |g| crosses the threshold for this row."""
    if threshold < 0 or threshold >= 2:
        return float(np.linalg.norm(query))
    wide, other = query.astype(np.longdouble), row.astype(np.longdouble)
    norm, length = np.sqrt((wide * wide).sum()), np.sqrt((other * other).sum())
    now = np.arccos(np.clip((wide * other).sum() / norm / length, -1, 1))
    limit = np.arccos(np.clip((1 - np.longdouble(threshold)) / length, -1, 1))
    return float(norm * np.sin(np.minimum(np.abs(limit - now), np.pi / 2)))


def item_scores(query, world):
    """The best of each item's rows, (count,)."""
    key = query.tobytes()
    if key not in world.scores:
        best = np.full(world.count, -np.inf, np.longdouble)
        np.maximum.at(best, world.items, scores(query, world.rows))
        world.scores[key] = best
    return world.scores[key]


def ranking(query, world, k, max_distance=None):
    """Item numbers of the true answer, best first."""
    best = item_scores(query, world)
    order = np.lexsort((np.arange(best.size), -best))[:k]
    if max_distance is None:
        return order
    norm = np.sqrt((query.astype(np.longdouble) ** 2).sum())
    return order[np.clip(1 - best[order] / norm, 0, 2) <= max_distance]


def truth(query, world, answer, k, max_distance=None):
    """What an answer's radii really are, times gain and L, over the whole gallery.

    Args:
        query: raw embedding, (D,).
        world: gallery, metric and forward error.
        answer: item numbers in rank order.
        k: number of results asked for.
        max_distance: the threshold, or None.
    """
    others = np.setdiff1d(np.arange(world.count), answer)
    pairs = [item_radii(query, world, int(item)) for item in answer]
    membership = np.array([kth_smallest(radii, k) for radii in pairs])
    top1 = pairs[0].min() if pairs else np.inf
    whole = min((radii[others].min(initial=np.inf) for radii in pairs), default=np.inf)
    if max_distance is not None:
        exits = np.array([exit_radius(query, world, item, max_distance) for item in answer])
        membership = np.minimum(membership, exits)
        top1 = min([top1, *exits[:1]])
        if answer.size < k:
            never = max_distance >= 2
            whole = np.inf if never else nearest_entry(query, world, others, max_distance)
        whole = min([whole, *exits])
    consecutive = [pairs[t][int(answer[t + 1])] for t in range(answer.size - 1)]
    return Truth(membership, top1 if pairs else None, whole, min([whole, *consecutive]))


def exit_radius(query, world, item, max_distance):
    """An item leaves with the last of its rows."""
    norm = np.sqrt((query.astype(np.longdouble) ** 2).sum())
    flips = []
    for row in world.rows[world.views(item)]:
        is_within = 1 - scores(query, row[None])[0] / norm <= max_distance
        flips.append(cosine_flip(query, row, max_distance) if is_within else 0.0)
    return max(flips) - 2 * world.error


def nearest_entry(query, world, others, max_distance):
    """Smallest change of the query that brings one of the other items within the threshold."""
    if others.size == 0:
        return np.inf
    rows = np.flatnonzero(np.isin(world.items, others))
    # Nearly unit rows: the best scores are the nearest to enter, with room for their norms.
    best = rows[np.argsort(-scores(query, world.rows[rows]))[:32]]
    flips = [cosine_flip(query, world.rows[row], max_distance) for row in best]
    return min(flips) - 2 * world.error
