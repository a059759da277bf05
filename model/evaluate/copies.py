"""Copy detection: telling copies of gallery pictures from pictures that are not in the gallery.

Some originals are taken out, so their copies have no right answer: whatever a search brings back
for them is a false positive if it looks like a match. A threshold on a statistic of the first
result is set by how many of those may pass; recall is the share of the other copies that find
their original with a statistic above it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from model.evaluate.gathering import Gathered
from model.evaluate.measurement import Group, Measurement, by_groups
from model.evaluate.radii import Proof, norms_of
from model.evaluate.retrieval import query_divisions
from model.evaluate.standing import Gallery

TASK = "copies"
RATES = (0.01, 0.001)
ABSENT_SHARE = 0.15


def absent_originals(digests: Sequence[str], share: float = ABSENT_SHARE) -> Bool[np.ndarray, " N"]:
    """Which originals are taken out of the gallery, (N,): by their own hash, so always the same.

    The `share` of pictures whose sha256 comes first; equal files go or stay together.
    """
    ordered = sorted(set(digests))
    taken = set(ordered[: round(share * len(ordered))])
    return np.array([digest in taken for digest in digests], dtype=np.bool_)


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
    absent = absent_originals(gathered.sheet.origins)
    is_negative = absent[originals]
    if absent.all() or not is_negative.any():
        return []
    gallery = Gallery(vectors.pictures)
    first = gallery.nearest(vectors.queries, without=absent)
    standing = gallery.stand(vectors.queries, first, without=absent)
    statistics = {
        "margin": margins(standing.radii[:, 0], vectors.queries, proof),
        "cosine": standing.similarities,
    }
    is_right = (first == originals) & ~is_negative
    groups = [
        replace(group, mask=group.mask & ~is_negative)
        for group in by_groups(query_divisions(gathered), len(originals))
    ]
    out: list[Measurement] = []
    for statistic, values in statistics.items():
        for rate in RATES:
            threshold = threshold_for(values[is_negative], rate)
            at_rate = _above_threshold(metric, values > threshold, is_negative, is_right, groups)
            at_rate.append(
                Measurement(TASK, metric, "threshold", threshold, int(is_negative.sum()))
            )
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
    passes: Bool[np.ndarray, " Q"],
    is_negative: Bool[np.ndarray, " Q"],
    is_right: Bool[np.ndarray, " Q"],
    groups: Sequence[Group],
) -> list[Measurement]:
    """What passes a threshold rightly, by group, and what passes it wrongly."""
    positives = [group for group in groups if group.mask.any()]
    out = [group.mean(TASK, metric, "copy_recall", passes & is_right) for group in positives]
    wrong = Group("all", "", ~is_negative), Group("all", "", is_negative)
    out.append(wrong[0].mean(TASK, metric, "wrong_match_rate", passes & ~is_right))
    out.append(wrong[1].mean(TASK, metric, "false_positive_rate", passes))
    return out
