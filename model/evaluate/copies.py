"""Copy detection: telling copies of gallery pictures from pictures that are not in the gallery.

A seventh of the originals is taken out of the gallery, so their copies have no right answer:
whatever a search brings back for them is a false positive if it looks like a match. A threshold on
a statistic of the first result is set by how many of those may pass; recall is the share of the
other copies that find their original with a statistic above it. Each seventh is taken out in turn
and all turns are counted together: the threshold hangs on the few strangest pictures, and which of
them happen to be out in a single draw moves recall by ten points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.evaluate.gathering import Gathered
from model.evaluate.measurement import Group, Measurement, by_groups
from model.evaluate.radii import Proof, norms_of
from model.evaluate.retrieval import query_divisions
from model.evaluate.standing import Gallery, LeftOut

TASK = "copies"
RATES = (0.01, 0.001)
TURNS = 7


@dataclass(frozen=True, eq=False)
class FirstResults:
    """What each query finds first in each turn, (Q, T).

    Attributes:
        entries: number of the first result.
        margins: its radius in embedding space over the embedding's norm.
        cosines: its similarity.
    """

    entries: Int64[np.ndarray, "Q T"]
    margins: Float64[np.ndarray, "Q T"]
    cosines: Float64[np.ndarray, "Q T"]


def turn_of(digests: Sequence[str]) -> Int64[np.ndarray, " N"]:
    """The turn in which each original is taken out, (N,): by its hash alone.

    What else is in the set does not matter, and equal files go together.
    """
    return np.array([int(digest, 16) % TURNS for digest in digests], dtype=np.int64)


def first_results(
    gallery: Gallery,
    queries: Float64[np.ndarray, "Q D"],
    turns: Int64[np.ndarray, " N"],
    proof: Proof | None,
) -> FirstResults:
    """The first result of each query in each turn.

    It is the first of the whole gallery in every turn but the one in which that is out.

    Args:
        gallery: with all entries.
        queries: raw embeddings, (Q, D).
        turns: in which each entry is out, (N,); not one for all.
        proof: its forward error counts against the margin, as in the service; None for none.
    """
    best = gallery.nearest(queries)
    by_group = gallery.stand_by_group(queries, best, turns, TURNS)
    out = [LeftOut(turns, turns[best])]
    second = gallery.nearest(queries, out)
    instead = gallery.stand(queries, second, without=out)
    shape = (len(queries), TURNS)
    found = FirstResults(np.empty(shape, dtype=np.int64), np.empty(shape), np.empty(shape))
    for turn in range(TURNS):
        is_out = turns[best] == turn
        others = np.delete(by_group.radii, turn, axis=1).min(axis=1)
        radii = np.where(is_out, instead.radii[:, 0], others)
        found.entries[:, turn] = np.where(is_out, second, best)
        found.margins[:, turn] = margins(radii, queries, proof)
        found.cosines[:, turn] = np.where(is_out, instead.similarities, by_group.similarities)
    return found


def threshold_for(statistics: Float64[np.ndarray, " F"], rate: float) -> float:
    """The lowest threshold that at most `rate` of these are above; -inf for none at all."""
    allowed = int(np.floor(rate * statistics.size + 1e-9))
    if allowed >= statistics.size:
        return -np.inf
    return float(np.sort(statistics)[::-1][allowed])


def measure_copies(metric: str, gathered: Gathered, *, proof: Proof | None) -> list[Measurement]:
    """Recall at the allowed rates of false positives, by margin and by cosine, and by edit.

    The margin is the first result's radius in embedding space over the embedding's norm. It needs
    no certificate: a metric without one has it too, and nothing is proved by it.

    Args:
        metric: its name.
        gathered: the embeddings.
        proof: its forward error counts against the margin, as in the service; None for none.
    """
    vectors, originals = gathered.vectors[metric], gathered.queries.originals
    turns = turn_of(gathered.sheet.origins)
    if (turns == turns[0]).all():
        return []
    found = first_results(Gallery(vectors.pictures), vectors.queries, turns, proof)
    is_absent = turns[originals][:, None] == np.arange(TURNS)
    is_right = found.entries == originals[:, None]
    groups = by_groups(query_divisions(gathered), len(originals))
    out: list[Measurement] = []
    for statistic, values in (("margin", found.margins), ("cosine", found.cosines)):
        for rate in RATES:
            threshold = threshold_for(values[is_absent], rate)
            at_rate = _above_threshold(metric, values > threshold, is_absent, is_right, groups)
            at_rate.append(Measurement(TASK, metric, "threshold", threshold, len(originals)))
            out += [replace(one, statistic=statistic, rate=rate) for one in at_rate]
    return out


def margins(
    radii: Float64[np.ndarray, " Q"], queries: Float64[np.ndarray, "Q D"], proof: Proof | None
) -> Float64[np.ndarray, " Q"]:
    """Embedding-space radii over the embeddings' norms, (Q,); 0 for a zero embedding."""
    error = 0.0 if proof is None else 2.0 * proof.forward_error
    norms = norms_of(queries)
    reach = np.maximum(0.0, radii - error)
    return np.divide(reach, norms, out=np.zeros(len(norms)), where=norms > 0.0)


def _above_threshold(
    metric: str,
    passes: Bool[np.ndarray, "Q T"],
    is_absent: Bool[np.ndarray, "Q T"],
    is_right: Bool[np.ndarray, "Q T"],
    groups: Sequence[Group],
) -> list[Measurement]:
    """What passes a threshold rightly, by group, and what passes it wrongly.

    A copy counts once, by the share of its turns: in all but one its original is there.
    """
    right = (passes & is_right).sum(axis=1) / (TURNS - 1)
    wrong = (passes & ~is_right & ~is_absent).sum(axis=1) / (TURNS - 1)
    false = (passes & is_absent).sum(axis=1).astype(np.float64)
    out = [group.mean(TASK, metric, "copy_recall", right) for group in groups]
    whole = groups[0]
    out.append(whole.mean(TASK, metric, "wrong_match_rate", wrong))
    out.append(whole.mean(TASK, metric, "false_positive_rate", false))
    return out
