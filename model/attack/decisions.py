# pyright: basic
# torch's types are loose.
"""Decisions that an attack tries to flip, each a classifier whose class 0 means that it holds.

A decision knows of a vector: `scores` for an attack to push, in torch, of which the first is the
largest while the decision holds; whether it `holds`, by the program's own float64 comparison; the
l2 change of the pixels below which it provably does, its `certified_radius`. It `is_flat` where
its gradient vanishes at the unchanged picture.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional

from model.attack.pixel_metric import PixelMetric
from model.certificate.pairs import LARGEST_NORM_DEVIATION, Candidates, rank, score
from model.certificate.search import certify_search
from model.certificate.similarity import PairCertificate, certify_pair
from model.errors import AttackError
from model.metrics.metric import first_equal

# Scores are scaled so that a decision holds by this much before an attack: cross-entropy then has
# a gradient, whatever the metric's spread is.
_FIRST_GAP = 10.0
_SMALLEST_GAP = 1e-4
# Far above the rounding of a product of unit rows, over the norm of the vector.
_CLOSE = 1e-9

Vector = Float64[np.ndarray, " D"]


class Top1:
    """Which entry a query finds first; the entries are one gallery, or a small one a question.

    With a gallery this is retrieval, and an attack evicts the true entry from rank 1. With the two
    alternatives of a triplet it is two-alternative forced choice, and only the reference moves.

    Args:
        galleries: unit vectors, (G, N V, D), as an index stores them, those of one entry side by
            side; G is 1 or one a question.
        entries: the entry that is right for each question, (Q,).
        clean: vectors of the unchanged questions, (Q, D).
        views: vectors of each entry, V, which scores by the best.
        device: where `scores` runs.
    """

    is_flat = False

    def __init__(
        self,
        galleries: Float32[np.ndarray, "G R D"],
        entries: Int64[np.ndarray, " Q"],
        clean: Float64[np.ndarray, "Q D"],
        *,
        views: int = 1,
        device: str = "cpu",
    ) -> None:
        self._galleries, self._entries, self._views = galleries, entries, views
        self._deviation = _norm_deviation(galleries)
        self._columns = torch.from_numpy(galleries).to(device).transpose(1, 2).contiguous()
        self._equal = torch.from_numpy(_equal_to_entry(galleries, entries, views)).to(device)
        self._right = torch.from_numpy(entries).to(device)
        self._scales = torch.ones(len(entries), device=device)
        cosines = self.scores(torch.from_numpy(clean).to(self._columns), torch.arange(len(entries)))
        gaps = cosines[:, 0] - cosines[:, 1:].amax(dim=1)
        self._scales = _FIRST_GAP / gaps.clamp_min(_SMALLEST_GAP)

    def scores(
        self, vectors: Float[Tensor, "B D"], rows: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        """Scaled cosines: the right entry's first, then all entries', its own far below."""
        directions = functional.normalize(vectors, dim=1)
        if len(self._columns) == 1:
            cosines = directions @ self._columns[0]
        else:
            cosines = (directions[:, None] @ self._columns[rows])[:, 0]
        cosines = cosines.unflatten(1, (-1, self._views)).amax(dim=2)
        right = cosines.gather(1, self._right[rows, None])
        # Cosines end at -1, so no attack is drawn to these.
        others = cosines.masked_fill(self._equal[rows], -2.0)
        scales = self._scales[rows, None].to(cosines.dtype)
        return torch.cat([right, others], dim=1) * scales

    def holds(
        self, vectors: Float64[np.ndarray, "B D"], rows: Int64[np.ndarray, " B"]
    ) -> Bool[np.ndarray, " B"]:
        """Whether the right entry ranks first by the program's scores; equal ones go by number.

        A matrix product decides what it can; what is closer than its rounding is scored and ranked
        as a search does it.
        """
        leads = self._leads(vectors, rows)
        room = _CLOSE * np.linalg.norm(vectors, axis=1)
        out = leads > 0.0
        for place in np.flatnonzero(~(np.abs(leads) > room)).tolist():
            out[place] = self._is_first(vectors[place], int(rows[place]))
        return out

    def _is_first(self, vector: Vector, row: int) -> bool:
        best = self._best(score(self._of(row), vector, self._deviation).values)
        return int(rank(best, np.arange(best.size), 1)[0]) == int(self._entries[row])

    def _best(self, scores: Float64[np.ndarray, "... R"]) -> Float64[np.ndarray, "... N"]:
        """The score of each entry: that of the best of its vectors."""
        return scores.reshape(*scores.shape[:-1], -1, self._views).max(axis=-1)

    def _leads(
        self, vectors: Float64[np.ndarray, "B D"], rows: Int64[np.ndarray, " B"]
    ) -> Float64[np.ndarray, " B"]:
        """How far each right entry's score is above the best other one's."""
        if len(self._galleries) == 1:
            scores = vectors @ self._galleries[0].astype(np.float64).T
        else:
            scores = np.einsum("bd,bnd->bn", vectors, self._galleries[rows].astype(np.float64))
        scores, places = self._best(scores), np.arange(len(rows))
        own = scores[places, self._entries[rows]]
        scores[places, self._entries[rows]] = -np.inf
        return own - scores.max(axis=1)

    def certified_radius(self, vector: Vector, row: int, metric: PixelMetric) -> float:
        """The certificate of a search with k = 1 over the whole gallery."""
        gallery = self._of(row)
        everything = Candidates(
            rows=np.arange(len(gallery)),
            vectors=gallery,
            unseen_score=-np.inf,
            size=len(gallery),
            norm_deviation=self._deviation,
            items=None if self._views == 1 else np.arange(len(gallery)) // self._views,
            item_count=len(gallery) // self._views,
        )
        answer = certify_search(
            vector,
            everything,
            k=1,
            lipschitz_bound=_bound(metric),
            output_scales=metric.output_scales,
            gain=metric.gain,
            forward_error=metric.forward_error,
        )
        return float(answer.certified_radii[0])

    def _of(self, row: int) -> Float32[np.ndarray, "R D"]:
        return self._galleries[row if len(self._galleries) > 1 else 0]


class Match:
    """Whether a changed picture still matches the unchanged one: distance <= threshold.

    Pushing the distance up is pushing this decision over, so it is how a distance is attacked. At
    the unchanged picture the distance is least and has no gradient: attacks must start off it.

    Args:
        clean: vectors of the unchanged pictures, (Q, D).
        threshold: distance beyond which the two no longer match, in (0, 2).
        device: where `scores` runs.
    """

    is_flat = True

    def __init__(
        self, clean: Float64[np.ndarray, "Q D"], threshold: float, *, device: str = "cpu"
    ) -> None:
        self._clean, self._threshold = clean, threshold
        directions = functional.normalize(torch.from_numpy(clean), dim=1)
        self._directions = directions.to(device=device, dtype=torch.float32)

    def scores(
        self, vectors: Float[Tensor, "B D"], rows: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        """How far the distance is below the threshold, scaled, and 0."""
        directions = functional.normalize(vectors, dim=1)
        cosines = (directions * self._directions[rows]).sum(dim=1)
        room = (cosines - (1.0 - self._threshold)) * (_FIRST_GAP / self._threshold)
        return torch.stack([room, torch.zeros_like(room)], dim=1)

    def holds(
        self, vectors: Float64[np.ndarray, "B D"], rows: Int64[np.ndarray, " B"]
    ) -> Bool[np.ndarray, " B"]:
        """Whether the program calls each two a match."""
        pairs = zip(vectors, rows.tolist(), strict=True)
        return np.array([bool(self.pair(vector, row).match) for vector, row in pairs])

    def certified_radius(self, vector: Vector, row: int, metric: PixelMetric) -> float:
        """The evasion radius of a pair of which one picture changes."""
        return float(self.pair(vector, row, metric).radius_a or 0.0)

    def reach(self, row: int, epsilon: float, metric: PixelMetric) -> float:
        """The largest distance that is proved possible for l2 changes below a budget."""
        interval = self.pair(self._clean[row], row, metric, epsilon=epsilon).interval_a
        return 2.0 if interval is None else interval[1]

    def pair(
        self,
        vector: Vector,
        row: int,
        metric: PixelMetric | None = None,
        *,
        epsilon: float | None = None,
    ) -> PairCertificate:
        """A changed picture's vector beside the unchanged one's, proved where there is a metric."""
        bound, gain, error = 1.0, 1.0, 0.0
        if metric is not None:
            bound, gain, error = _bound(metric), metric.gain, metric.forward_error
        return certify_pair(
            vector,
            self._clean[row],
            lipschitz_bound=bound,
            gain_a=gain,
            gain_b=gain,
            forward_error_a=error,
            forward_error_b=error,
            epsilon=epsilon,
            threshold=self._threshold,
        )


Decision = Top1 | Match
"""Decisions about many questions, asked by their row."""


def _bound(metric: PixelMetric) -> float:
    if metric.lipschitz_bound is None:
        raise AttackError(f"{metric.name} proves no radius")
    return metric.lipschitz_bound


def _norm_deviation(galleries: Float32[np.ndarray, "G R D"]) -> float:
    """Bound on | |f| - 1 | over all rows, with room for its own rounding."""
    lengths = np.linalg.norm(galleries.astype(np.float64), axis=2)
    return min(LARGEST_NORM_DEVIATION, float(np.abs(lengths - 1.0).max()) * 1.01 + 1e-12)


def _equal_to_entry(
    galleries: Float32[np.ndarray, "G R D"], entries: Int64[np.ndarray, " Q"], views: int
) -> np.ndarray:
    """Whether an entry is, bit for bit, the right one: these rank by number for good, (Q, N)."""
    of_entries = galleries.reshape(len(galleries), -1, views * galleries.shape[2])
    numbers = np.stack([first_equal(gallery) for gallery in of_entries])
    of = np.arange(len(entries)) if len(galleries) > 1 else np.zeros(len(entries), dtype=np.int64)
    return numbers[of] == numbers[of, entries][:, None]
