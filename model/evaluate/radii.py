"""From embedding-space radii to radii in pixels, and what the paper's formula would claim."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from model.certificate.bounds import product_bound
from model.certificate.geometry import embedding_norm, pixel_scale, radius_in_pixels
from model.certificate.rounding import round_up
from model.evaluate.rows import Claim
from model.metrics.metric import norms_of

PROVED = {"unit": "input", "formula": "ours"}
UPLOAD = {"unit": "upload", "formula": "ours"}
NORMALISED = {"unit": "input", "formula": "normalised"}


@dataclass(frozen=True)
class Proof:
    """What is proved of a metric: how fast its vectors move, and how far off they are computed."""

    lipschitz_bound: float
    forward_error: float


Resizes = Float64[np.ndarray, "Q 2"]
"""Of the resize of each query its gain, the l2 operator norm rounded up, and a bound on the l2
rounding error of the input that it computes."""


def claims_of(
    radii: Float64[np.ndarray, " Q"],
    queries: Float64[np.ndarray, "Q D"],
    proof: Proof,
    resizes: Resizes | None,
) -> list[Claim]:
    """What may be said of embedding-space radii, ours in the network's pixels first.

    The radii have their slack off. Without resizes uploads are left out.
    """
    claims: list[Claim] = [
        (PROVED, input_radii(radii, queries, proof)),
        (NORMALISED, normalised_radii(radii, queries)),
    ]
    if resizes is not None:
        claims.append((UPLOAD, upload_radii(radii, queries, proof, resizes)))
    return claims


def input_radii(
    radii: Float64[np.ndarray, " Q"], queries: Float64[np.ndarray, "Q D"], proof: Proof
) -> Float64[np.ndarray, " Q"]:
    """Embedding-space radii as l2 changes of the network's input in [0, 1], rounded down, (Q,)."""
    return upload_radii(radii, queries, proof, np.tile([1.0, 0.0], (len(radii), 1)))


def upload_radii(
    radii: Float64[np.ndarray, " Q"],
    queries: Float64[np.ndarray, "Q D"],
    proof: Proof,
    resizes: Resizes,
) -> Float64[np.ndarray, " Q"]:
    """Embedding-space radii as l2 changes of the uploaded pixels in [0, 1], rounded down, (Q,).

    The forward error counts twice, for the query's own embedding and for the changed image's; a
    radius stops where the embedding could become zero, which has no direction.
    """
    out = np.zeros(len(radii))
    numbers = zip(radii.tolist(), queries, resizes.tolist(), strict=True)
    for place, (radius, query, (gain, input_error)) in enumerate(numbers):
        norm = embedding_norm(query)
        error = proof.forward_error
        if input_error > 0.0:
            error = round_up(error + product_bound(proof.lipschitz_bound, input_error))
        if norm.value > 0.0:
            scale = pixel_scale(proof.lipschitz_bound, gain, error)
            out[place] = radius_in_pixels(radius, scale=scale, forward_error=error, limit=norm.low)
    return out


def normalised_radii(
    radii: Float64[np.ndarray, " Q"], queries: Float64[np.ndarray, "Q D"]
) -> Float64[np.ndarray, " Q"]:
    """What the paper's formula claims, (Q,): the embedding-space radius over the norm.

    It normalises all embeddings, so it is unsound where the norm is below 1, and smaller than need
    be above. It takes the constant as 1 and rounding as nothing.

    Source: Ghazanfari et al. 2024, arXiv:2310.18274, as its public code computes it.
    """
    norms = norms_of(queries)
    return np.divide(radii, norms, out=np.zeros(len(radii)), where=norms > 0.0)
