"""From radii over a gallery to radii in pixels, and what the paper's formula would claim."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from model.certificate.geometry import pixel_scale, radii_in_pixels
from model.evaluate.rows import Claim

PROVED = {"unit": "input", "formula": "ours"}
UPLOAD = {"unit": "upload", "formula": "ours"}
NORMALISED = {"unit": "input", "formula": "normalised"}


def stated_over(side: int | None) -> str:
    """What radii are l2 lengths over: `side` is of the square that all are stated at, if any."""
    return "the network's input" if side is None else f"{side} x {side} pixels"


@dataclass(frozen=True, eq=False)
class Proof:
    """What is proved of a metric and of the vectors it computed.

    Attributes:
        lipschitz_bound: from the metric's square to its vector, l2 to l2.
        forward_error: bound on the l2 error of any of the vectors, that of their resize included.
        output_scales: proved bounds along each coordinate (`model.certificate.metric`), (D,).
        shrink: side of the metric's square over the side that radii are stated at.
    """

    lipschitz_bound: float
    forward_error: float
    output_scales: Float64[np.ndarray, " D"] | None = None
    shrink: float = 1.0


def claims_of(
    radii: Float64[np.ndarray, " Q"],
    margins: Float64[np.ndarray, " Q"],
    proof: Proof,
    gains: Float64[np.ndarray, " Q"] | None,
) -> list[Claim]:
    """What may be said of the radii of queries, ours in the network's pixels first, shrunk.

    `radii` are times gain and Lipschitz bound, with all slack off; a margin is what the paper's
    formula claims: the radius in embedding space over the embedding's norm. It normalises all
    embeddings, so it is unsound where the norm is below 1, and smaller than need be above. It takes
    the constant as 1 and rounding as nothing.

    `gains` are those of each query's resize; without them uploads are left out.

    Source: Ghazanfari et al. 2024, arXiv:2310.18274, as its public code computes it.
    """

    def in_pixels(gains: Float64[np.ndarray, " Q"]) -> Float64[np.ndarray, " Q"]:
        bound, error = proof.lipschitz_bound, proof.forward_error
        scales = np.array([pixel_scale(bound, gain, error) for gain in gains.tolist()])
        return radii_in_pixels(radii, scale=scales)

    stated = in_pixels(np.full(len(radii), proof.shrink))
    claims: list[Claim] = [(PROVED, stated), (NORMALISED, margins / proof.shrink)]
    if gains is not None:
        claims.append((UPLOAD, in_pixels(gains)))
    return claims
