"""The truth about a search, from the formulas and the whole gallery; shares no code with `model`.

Everything is in embedding space and of the full gallery: no candidates, no tail, no slack, no
Gram matrix. Pair distances come from differences formed first, thresholds from extended precision.
"""

from dataclasses import dataclass

import numpy as np

_CHUNK = 4096


@dataclass
class Truth:
    membership: np.ndarray
    top1: float | None
    set: float
    order: float


def scores(query, gallery):
    """<g, f> in extended precision, (N,)."""
    wide = query.astype(np.longdouble)
    parts = [
        (gallery[start : start + _CHUNK].astype(np.longdouble) * wide).sum(axis=1)
        for start in range(0, gallery.shape[0], _CHUNK)
    ]
    return np.concatenate([np.zeros(0, np.longdouble), *parts])


def signed_radii(query, gallery, entry):
    """Distance from the query to each plane between `entry` and another, (N,); inf at itself."""
    radii = np.empty(gallery.shape[0])
    own = gallery[entry].astype(np.float64)
    for start in range(0, gallery.shape[0], _CHUNK):
        difference = own - gallery[start : start + _CHUNK].astype(np.float64)
        apart = np.linalg.norm(difference, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            radii[start : start + _CHUNK] = difference @ query / apart
    equal = (gallery == gallery[entry]).all(axis=1)
    radii[equal] = np.where(np.flatnonzero(equal) >= entry, np.inf, -np.inf)
    return radii


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


def ranking(query, gallery, k, max_distance=None):
    """Entry numbers of the true answer, best first."""
    exact = scores(query, gallery)
    order = np.lexsort((np.arange(exact.size), -exact))[:k]
    if max_distance is None:
        return order
    norm = np.sqrt((query.astype(np.longdouble) ** 2).sum())
    return order[np.clip(1 - exact[order] / norm, 0, 2) <= max_distance]


def truth(query, gallery, answer, k, max_distance=None):
    """What an answer's radii really are in embedding space, over the whole gallery.

    Args:
        query: raw embedding, (D,).
        gallery: all rows, (N, D) float32.
        answer: entry numbers in rank order.
        k: number of results asked for.
        max_distance: the threshold, or None.
    """
    inside = set(answer.tolist())
    others = np.array([row for row in range(gallery.shape[0]) if row not in inside], dtype=int)
    pairs = [signed_radii(query, gallery, int(entry)) for entry in answer]
    membership = np.array([kth_smallest(radii, k) for radii in pairs])
    top1 = pairs[0].min() if pairs else np.inf
    whole = min((radii[others].min(initial=np.inf) for radii in pairs), default=np.inf)
    if max_distance is not None:
        exits = np.array([cosine_flip(query, gallery[entry], max_distance) for entry in answer])
        membership = np.minimum(membership, exits)
        top1 = min([top1, *exits[:1]])
        if answer.size < k:
            never = max_distance >= 2
            whole = np.inf if never else nearest_entry(query, gallery, others, max_distance)
        whole = min([whole, *exits])
    consecutive = [pairs[t][answer[t + 1]] for t in range(answer.size - 1)]
    return Truth(membership, top1 if pairs else None, whole, min([whole, *consecutive]))


def nearest_entry(query, gallery, others, max_distance):
    """Smallest change of the query that brings one of the other rows within the threshold."""
    if others.size == 0:
        return np.inf
    # Nearly unit rows: the best scores are the nearest to enter, with room for their norms.
    best = others[np.argsort(-scores(query, gallery[others]))[:32]]
    return min(cosine_flip(query, gallery[row], max_distance) for row in best)
