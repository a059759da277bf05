"""Retrieval: does an edited copy find its original, and how far is it from losing it."""

from collections.abc import Sequence

import numpy as np

from model.evaluate.curves import RadiusCurve
from model.evaluate.embedding import Counting, EmbeddedSet, uncounted
from model.evaluate.radii import claims_of
from model.evaluate.rows import Row, certified_rows, groups_of, mean_rows
from model.evaluate.standing import Gallery

TASK = "retrieval"
KS = (1, 5, 10)


def measure_retrieval(
    metric: str,
    pictures: EmbeddedSet,
    epsilons: Sequence[float],
    counting: Counting = uncounted,
) -> tuple[list[Row], RadiusCurve | None]:
    """Natural recall and, where something is proved of the metric, certified recall.

    A copy's original is found when it is among the first k, and certified at epsilon when its
    radius of staying there is larger. Groups are measured at k = 1.

    The curve is of each copy's radius at k = 1; there is none without a certificate.
    """
    embedded = pictures.metrics[metric]
    gallery = Gallery(embedded.pictures, pictures.views, embedded.proof, counting=counting)
    standing = gallery.stand(embedded.queries, pictures.originals, KS)
    groups = groups_of(pictures.divisions(), pictures.originals)
    rows: list[Row] = []
    curve: RadiusCurve | None = None
    for place, k in enumerate(KS):
        fields = {"task": TASK, "metric": metric, "k": k}
        recall, certified = {**fields, "figure": "recall"}, {**fields, "figure": "certified_recall"}
        found, shown = standing.ranks < k, groups if k == 1 else groups[:1]
        rows += mean_rows(recall, found, shown)
        if embedded.proof is None:
            continue
        radii, margins = standing.radii[:, place], standing.margins[:, place]
        claims = claims_of(radii, margins, embedded.proof, embedded.gains)
        # The divided tables are about what is proved at the network's input: the first claim.
        rows += certified_rows(certified, found, claims[:1], epsilons, shown)
        rows += certified_rows(certified, found, claims[1:], epsilons, groups[:1])
        if k == 1:
            curve = RadiusCurve(TASK, metric, claims[0][1], found.astype(np.float64))
    return rows, curve
