"""Retrieval: does an edited copy find its original, and how far is it from losing it."""

from collections.abc import Sequence

import numpy as np

from model.evaluate.gathering import Gathered
from model.evaluate.measurement import Group, Measurement, by_groups, shares_above
from model.evaluate.radii import Proof, claims_of, input_radii
from model.evaluate.results import RadiusCurve
from model.evaluate.standing import Gallery

TASK = "retrieval"
KS = (1, 5, 10)


def query_divisions(gathered: Gathered) -> dict[str, Sequence[str]]:
    """How queries are divided in tables: by edit, by their picture's source, by its kind."""
    originals = gathered.queries.originals.tolist()
    sheet = gathered.sheet
    return {
        "edit": gathered.queries.edits,
        "source": [sheet.sources[number] for number in originals],
        "kind": [sheet.kinds[number] for number in originals],
    }


def measure_retrieval(
    metric: str, gathered: Gathered, *, epsilons: Sequence[float], proof: Proof | None
) -> tuple[list[Measurement], RadiusCurve | None]:
    """Natural recall and, where something is proved of the metric, certified recall.

    A query's original is found when it is among the first k, and certified at epsilon when its
    radius of staying there is larger. Groups are measured at k = 1.

    Args:
        metric: its name.
        gathered: the embeddings.
        epsilons: budgets, l2.
        proof: None for a metric without a certificate.

    Returns:
        The measurements, and each query's radius at k = 1; None without a certificate.
    """
    vectors = gathered.vectors[metric]
    gallery = Gallery(vectors.pictures)
    standing = gallery.stand(vectors.queries, gathered.queries.originals, KS)
    groups = by_groups(query_divisions(gathered), len(standing.ranks))
    out: list[Measurement] = []
    for k in KS:
        found = standing.ranks < k
        out += [g.mean(TASK, metric, "recall", found, k=k) for g in groups if _is_shown(g, k)]
    if proof is None:
        return out, None
    resizes = gathered.resizes.get(metric)
    for place, k in enumerate(KS):
        claims = claims_of(standing.radii[:, place], vectors.queries, proof, resizes)
        for group in (group for group in groups if _is_shown(group, k)):
            # The divided tables are about what is proved at the network's input: the first claim.
            for claim in claims if group.by == "all" else claims[:1]:
                out += shares_above(
                    group,
                    claim,
                    epsilons,
                    task=TASK,
                    metric=metric,
                    figure="certified_recall",
                    weights=standing.ranks < k,
                    k=k,
                )
    radii = input_radii(standing.radii[:, 0], vectors.queries, proof)
    found = (standing.ranks == 0).astype(np.float64)
    return out, RadiusCurve(TASK, metric, radii, found)


def _is_shown(group: Group, k: int) -> bool:
    return k == 1 or group.by == "all"
