"""2AFC: which of two pictures is closer to a reference, and how far the reference is from a flip.

Only the reference moves; left and right are fixed. With u = e_left - e_right, the unit embeddings'
difference, left is closer exactly while <h, u> > 0, whatever the norm of h: the reference is
|<h, u>| / |u| away from the flip in embedding space.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from model.certificate.pairs import radii_of_differences
from model.evaluate.measurement import Measurement, by_groups, shares_above
from model.evaluate.radii import Proof, Resizes, claims_of, input_radii, norms_of
from model.evaluate.results import RadiusCurve

TASK = "2afc"


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a metric decides on triplets, and how far it is from deciding otherwise.

    Attributes:
        left_closer: whether d(reference, left) < d(reference, right), (T,).
        right_closer: the opposite; neither on a tie, (T,).
        radii: embedding-space distance of the reference to the flip, slack off, (T,); 0 on a tie.
        norms: of the reference's embedding, (T,).
    """

    left_closer: Bool[np.ndarray, " T"]
    right_closer: Bool[np.ndarray, " T"]
    radii: Float64[np.ndarray, " T"]
    norms: Float64[np.ndarray, " T"]


@dataclass(frozen=True, eq=False)
class Judged:
    """The people's side of triplets: votes, and the groups that a report tells apart.

    Attributes:
        votes: share of votes for right, in [0, 1], (T,).
        groups: names of a division, each with every triplet's group; "" is in none.
    """

    votes: Float64[np.ndarray, " T"]
    groups: dict[str, Sequence[str]]


def decide(
    reference: Float64[np.ndarray, "T D"],
    left: Float64[np.ndarray, "T D"],
    right: Float64[np.ndarray, "T D"],
) -> Decisions:
    """Decisions of a metric from raw embeddings, each (T, D); a zero embedding ties."""
    norms = norms_of(reference)
    units = [_units(side) for side in (left, right)]
    # Summed along each row alone, so that equal pictures get bitwise equal scores: a tie.
    scores = [(reference * unit).sum(axis=1) for unit in units]
    gap = scores[0] - scores[1]
    difference = units[0] - units[1]
    lower = radii_of_differences(np.abs(gap), difference, norm=norms).lower
    apart = lower < np.inf
    radii = np.where(apart & (norms > 0.0), np.maximum(0.0, lower), 0.0)
    return Decisions(apart & (gap > 0.0), apart & (gap < 0.0), radii, norms)


def natural_scores(
    decisions: Decisions, votes: Float64[np.ndarray, " T"]
) -> Float64[np.ndarray, " T"]:
    """Agreement with the votes, (T,): the share that voted alike, half on a tie."""
    agreed = agreement(decisions, votes)
    return np.where(decisions.left_closer | decisions.right_closer, agreed, 0.5)


def agreement(decisions: Decisions, votes: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, " T"]:
    """The share of votes that a decision agrees with, (T,); 0 on a tie."""
    return decisions.left_closer * (1.0 - votes) + decisions.right_closer * votes


def measure_triplets(
    metric: str,
    decisions: Decisions,
    reference: Float64[np.ndarray, "T D"],
    judged: Judged,
    *,
    epsilons: Sequence[float],
    proof: Proof | None,
    resizes: Resizes | None,
) -> tuple[list[Measurement], RadiusCurve | None]:
    """Natural score and, where something is proved of the metric, certified scores.

    Args:
        metric: its name.
        decisions: what it decides.
        reference: raw embeddings of the references, (T, D).
        judged: votes and groups.
        epsilons: budgets, l2.
        proof: None for a metric without a certificate.
        resizes: of the references; None where the metric has no resize of ours.

    Returns:
        The measurements, and each reference's radius; None without a certificate.
    """
    groups = by_groups(judged.groups, len(judged.votes))
    natural = natural_scores(decisions, judged.votes)
    out = [g.mean(TASK, metric, "score", natural) for g in groups]
    if proof is None:
        return out, None
    agreed = agreement(decisions, judged.votes)
    small = (decisions.norms < 1.0).astype(np.float64)
    out += [g.mean(TASK, metric, "norm_below_1", small) for g in groups if g.by == "all"]
    for claim in claims_of(decisions.radii, reference, proof, resizes):
        for group in groups:
            out += shares_above(
                group,
                claim,
                epsilons,
                task=TASK,
                metric=metric,
                figure="certified_score",
                weights=agreed,
            )
    radii = input_radii(decisions.radii, reference, proof)
    return out, RadiusCurve(TASK, metric, radii, agreed)


def _units(embeddings: Float64[np.ndarray, "T D"]) -> Float64[np.ndarray, "T D"]:
    """Rows over their norms; zero rows stay zero."""
    norms = norms_of(embeddings)[:, None]
    return np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 0.0)
