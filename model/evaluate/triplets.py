"""2AFC: which of two pictures is closer to a reference, and how far the reference is from a flip.

Only the reference moves; left and right are fixed. With u = e_left - e_right, the unit embeddings'
difference, left is closer exactly while <h, u> > 0, whatever the norm of h: the reference is
|<h, u>| / |u| away from the flip in embedding space, |<h, u>| / |c o u| by the metric's scales.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from model.certificate.geometry import SMALLEST_NORM
from model.certificate.metric import relative_scales
from model.certificate.pairs import Slack, compare_pairs
from model.certificate.rounding import gamma
from model.data.triplets import Triplet
from model.evaluate.curves import RadiusCurve
from model.evaluate.embedding import Embedded
from model.evaluate.radii import Proof, claims_of
from model.evaluate.rows import Row, certified_rows, groups_of, mean_rows
from model.metrics.metric import norms_of, units_of

TASK = "2afc"


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a metric decides on triplets, and how far it is from deciding otherwise.

    Attributes:
        left_closer: whether d(reference, left) < d(reference, right), (T,).
        right_closer: the opposite; neither on a tie, (T,).
        radii: how far the reference may move, times gain and Lipschitz bound, slack off, (T,); 0 on
            a tie.
        margins: its distance to the flip in embedding space, over its norm, (T,).
    """

    left_closer: Bool[np.ndarray, " T"]
    right_closer: Bool[np.ndarray, " T"]
    radii: Float64[np.ndarray, " T"]
    margins: Float64[np.ndarray, " T"]


def decide(
    reference: Float64[np.ndarray, "T D"],
    left: Float64[np.ndarray, "T D"],
    right: Float64[np.ndarray, "T D"],
    proof: Proof | None = None,
) -> Decisions:
    """Decisions of a metric from raw embeddings, each (T, D); a zero embedding ties.

    Without a proof radii are those of exact embeddings that move alike in all directions.
    """
    proof = proof or Proof(1.0, 0.0)
    norms = norms_of(reference)
    units = [units_of(side) for side in (left, right)]
    # Summed along each row alone, so that equal pictures get bitwise equal scores: a tie.
    scores = [(reference * unit).sum(axis=1) for unit in units]
    gap = scores[0] - scores[1]
    dimension = reference.shape[1]
    longest = norms * (1.0 + gamma(dimension + 8))
    slack = Slack.of(longest, dimension=dimension, forward_error=proof.forward_error)
    scales = relative_scales(proof.lipschitz_bound, proof.output_scales)
    pairs = compare_pairs(np.abs(gap), *units, scales=scales)
    apart, is_pointed = pairs.gap < np.inf, norms >= SMALLEST_NORM
    radii = np.where(apart & is_pointed, np.maximum(0.0, pairs.lower(slack)), 0.0)
    margins = np.where(is_pointed, pairs.sines(np.where(is_pointed, norms, 1.0)), 0.0)
    return Decisions(apart & (gap > 0.0), apart & (gap < 0.0), radii, margins)


def natural_scores(
    decisions: Decisions, votes: Float64[np.ndarray, " T"]
) -> Float64[np.ndarray, " T"]:
    """Agreement with the votes, (T,): the share that voted alike, half on a tie."""
    agreed = agreement(decisions, votes)
    return np.where(decisions.left_closer | decisions.right_closer, agreed, 0.5)


def agreement(decisions: Decisions, votes: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, " T"]:
    """The share of votes that a decision agrees with, (T,); 0 on a tie."""
    return decisions.left_closer * (1.0 - votes) + decisions.right_closer * votes


def divisions_of(triplets: Sequence[Triplet]) -> dict[str, Sequence[str]]:
    """How triplets are divided in tables: NIGHTS tells ImageNet apart, BAPPS its subsets."""
    halves = {None: "", True: "_imagenet", False: "_no_imagenet"}
    return {
        "split": [
            "" if t.is_imagenet is None else t.split + halves[t.is_imagenet] for t in triplets
        ],
        # A synthetic triplet says after a colon how it was made.
        "group": [(t.group or "").partition(":")[0] for t in triplets],
    }


def measure_triplets(
    metric: str,
    embedded: Embedded,
    votes: Float64[np.ndarray, " T"],
    divisions: Mapping[str, Sequence[str]],
    epsilons: Sequence[float],
) -> tuple[list[Row], RadiusCurve | None]:
    """Natural score and, where something is proved of the metric, certified scores.

    Left and right are by turns the pictures, the references the queries. A vote is the share for
    right, in [0, 1]; a division has every triplet's group, and "" is in none.

    The curve is of each reference's radius; there is none without a certificate.
    """
    references, left, right = embedded.queries, embedded.pictures[::2], embedded.pictures[1::2]
    decisions = decide(references, left, right, embedded.proof)
    groups = groups_of(divisions, np.arange(len(votes)))
    fields = {"task": TASK, "metric": metric}
    rows = mean_rows({**fields, "figure": "score"}, natural_scores(decisions, votes), groups)
    if embedded.proof is None:
        return rows, None
    agreed, is_small = agreement(decisions, votes), norms_of(references) < 1.0
    rows += mean_rows({**fields, "figure": "norm_below_1"}, is_small, groups[:1])
    claims = claims_of(decisions.radii, decisions.margins, embedded.proof, embedded.gains)
    certified = {**fields, "figure": "certified_score"}
    rows += certified_rows(certified, agreed, claims, epsilons, groups)
    return rows, RadiusCurve(TASK, metric, claims[0][1], agreed)
