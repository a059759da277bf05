"""What a validation says of embeddings: recall, certified recall, copy detection."""

import numpy as np
from jaxtyping import Float64, Int64

from model.evaluate.copies import threshold_for
from model.evaluate.radii import norms_of
from model.evaluate.standing import Gallery, LeftOut

RADII = (0.5, 1.0, 2.0)
_RATE = 0.01


def validation_scores(
    pictures: Float64[np.ndarray, "N D"],
    queries: Float64[np.ndarray, "Q D"],
    originals: Int64[np.ndarray, " Q"],
) -> dict[str, float]:
    """Shares in percent; `score` is their mean.

    Args:
        pictures: raw embeddings of the pictures as they are.
        queries: raw embeddings of edited copies.
        originals: row of each query's picture.

    Returns:
        recall_at_1; certified_R, found first with an embedding-space radius above R; and
        copy_recall, found first with a margin that one in a hundred queries has without their
        original in the gallery.
    """
    gallery = Gallery(pictures)
    own = gallery.stand(queries, originals)
    norms = np.maximum(norms_of(queries), 1e-30)
    absent = [LeftOut(np.arange(len(pictures)), originals)]
    stranger = gallery.nearest(queries, absent)
    without = gallery.stand(queries, stranger, without=absent)
    strange: Float64[np.ndarray, " Q"] = np.maximum(0.0, without.radii[:, 0]) / norms
    threshold = threshold_for(strange, _RATE)
    scores = {"recall_at_1": 100.0 * float((own.ranks == 0).mean())}
    for radius in RADII:
        scores[f"certified_{radius:g}"] = 100.0 * float(np.mean(own.radii[:, 0] > radius))
    scores["copy_recall"] = 100.0 * float(np.mean(own.radii[:, 0] / norms > threshold))
    return {"score": sum(scores.values()) / len(scores), **scores}
