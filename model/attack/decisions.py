# pyright: basic
# torch's types are loose.
"""Decisions that an attack tries to turn, each a classifier whose class 0 means that it holds.

A decision knows three things of a vector: scores for an attack to push, in torch; whether the
decision holds, by the program's own float64 comparison; and the radius below which it provably
does.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional

from model.attack.subjects import Subject
from model.certificate.pairs import LARGEST_NORM_DEVIATION, Candidates, rank, score
from model.certificate.search import certify_search
from model.certificate.similarity import PairCertificate, certify_pair
from model.errors import AttackError

# Scores are scaled so that a decision holds by this much before an attack: cross-entropy then has
# a gradient, whatever the metric's spread is.
_FIRST_GAP = 10.0
_SMALLEST_GAP = 1e-4
# Far above the rounding of a product of unit rows, over the norm of the vector.
_CLOSE = 1e-9

Vector = Float64[np.ndarray, " D"]


@runtime_checkable
class Decision(Protocol):
    """Decisions about many questions, by their row."""

    @property
    def is_flat(self) -> bool:
        """Whether the gradient vanishes at the unchanged picture."""
        ...

    def logits(
        self, vectors: Float[Tensor, "B D"], rows: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        """Scores of which the first is the largest while the decision holds, C >= 2."""
        ...

    def rivals(self, vector: Vector, row: int, count: int) -> list[int]:
        """The classes nearest to overtaking class 0 at this vector, nearest first."""
        ...

    def hold(
        self, vectors: Float64[np.ndarray, "B D"], rows: Int64[np.ndarray, " B"]
    ) -> Bool[np.ndarray, " B"]:
        """Whether each decision is the right one at its vector, as the program computes it."""
        ...

    def certified_radius(self, vector: Vector, row: int, subject: Subject) -> float:
        """The l2 change of the changeable pixels below which a decision that holds still holds."""
        ...


class FirstPlace:
    """Which entry a query finds first; the entries are one gallery, or a small one a question.

    With a gallery this is retrieval, and an attack evicts the true entry from rank 1. With the two
    alternatives of a triplet it is two-alternative forced choice, and only the reference moves.

    Args:
        galleries: unit vectors, (G, N, D), as an index stores them; G is 1 or one a question.
        entries: the entry that is right for each question, (Q,).
        clean: vectors of the unchanged questions, (Q, D).
        device: where `logits` runs.
    """

    is_flat = False

    def __init__(
        self,
        galleries: Float32[np.ndarray, "G N D"],
        entries: Int64[np.ndarray, " Q"],
        clean: Float64[np.ndarray, "Q D"],
        *,
        device: str = "cpu",
    ) -> None:
        self._galleries, self._entries = galleries, entries
        self._deviation = _norm_deviation(galleries)
        self._columns = torch.from_numpy(galleries).to(device).transpose(1, 2).contiguous()
        self._equal = torch.from_numpy(_equal_to_entry(galleries, entries)).to(device)
        self._right = torch.from_numpy(entries).to(device)
        self._scales = torch.from_numpy(self._first_scales(clean)).to(device)

    def logits(
        self, vectors: Float[Tensor, "B D"], rows: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        """Scaled cosines: the right entry's first, then all entries', its own far below."""
        directions = functional.normalize(vectors, dim=1)
        if len(self._columns) == 1:
            cosines = directions @ self._columns[0]
        else:
            cosines = (directions[:, None] @ self._columns[rows])[:, 0]
        right = cosines.gather(1, self._right[rows, None])
        # Cosines end at -1, so no attack is drawn to these.
        others = cosines.masked_fill(self._equal[rows], -2.0)
        scales = self._scales[rows, None].to(cosines.dtype)
        return torch.cat([right, others], dim=1) * scales

    def rivals(self, vector: Vector, row: int, count: int) -> list[int]:
        """The entries whose half-spaces are nearest to the vector."""
        gallery, entry = self._of(row).astype(np.float64), int(self._entries[row])
        difference = gallery[entry] - gallery
        lengths = np.linalg.norm(difference, axis=1)
        radii = np.full(len(gallery), np.inf)
        np.divide(difference @ vector, lengths, out=radii, where=lengths > 0.0)
        order = np.argsort(radii, kind="stable")[:count]
        return [1 + int(other) for other in order if radii[other] < np.inf]

    def hold(
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
        scores = score(self._of(row), vector, self._deviation)
        numbers = np.arange(scores.values.size)
        return int(rank(scores.values, numbers, 1)[0]) == int(self._entries[row])

    def _leads(
        self, vectors: Float64[np.ndarray, "B D"], rows: Int64[np.ndarray, " B"]
    ) -> Float64[np.ndarray, " B"]:
        """How far each right entry's score is above the best other one's."""
        if len(self._galleries) == 1:
            scores = vectors @ self._galleries[0].astype(np.float64).T
        else:
            scores = np.einsum("bd,bnd->bn", vectors, self._galleries[rows].astype(np.float64))
        places = np.arange(len(rows))
        own = scores[places, self._entries[rows]]
        scores[places, self._entries[rows]] = -np.inf
        return own - scores.max(axis=1)

    def certified_radius(self, vector: Vector, row: int, subject: Subject) -> float:
        """The certificate of a search with k = 1 over the whole gallery."""
        gallery = self._of(row)
        everything = Candidates(
            rows=np.arange(len(gallery)),
            vectors=gallery,
            unseen_score=-np.inf,
            size=len(gallery),
            norm_deviation=self._deviation,
        )
        answer = certify_search(
            vector,
            everything,
            k=1,
            lipschitz_bound=_bound(subject),
            gain=subject.gain,
            forward_error=subject.forward_error,
        )
        return float(answer.certified_radii[0])

    def _of(self, row: int) -> Float32[np.ndarray, "N D"]:
        return self._galleries[row if len(self._galleries) > 1 else 0]

    def _first_scales(self, clean: Float64[np.ndarray, "Q D"]) -> Float32[np.ndarray, " Q"]:
        """What brings each question's gap to _FIRST_GAP; wrong answers are never attacked."""
        directions = clean / np.maximum(np.linalg.norm(clean, axis=1, keepdims=True), 1e-300)
        gaps = np.empty(len(clean))
        is_equal = self._equal.cpu().numpy()
        for row, direction in enumerate(directions):
            cosines = self._of(row) @ direction
            own = cosines[self._entries[row]]
            gaps[row] = own - np.where(is_equal[row], -1.0, cosines).max()
        return (_FIRST_GAP / np.maximum(gaps, _SMALLEST_GAP)).astype(np.float32)


class StaysNear:
    """Whether a changed picture still matches the unchanged one: distance <= threshold.

    Pushing the distance up is pushing this decision over, so it is how a distance is attacked. At
    the unchanged picture the distance is least and has no gradient: attacks must start off it.

    Args:
        clean: vectors of the unchanged pictures, (Q, D).
        threshold: distance beyond which the two no longer match, in (0, 2).
        device: where `logits` runs.
    """

    is_flat = True

    def __init__(
        self, clean: Float64[np.ndarray, "Q D"], threshold: float, *, device: str = "cpu"
    ) -> None:
        self._clean, self._threshold = clean, threshold
        directions = functional.normalize(torch.from_numpy(clean), dim=1)
        self._directions = directions.to(device=device, dtype=torch.float32)

    def logits(
        self, vectors: Float[Tensor, "B D"], rows: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        """How far the distance is below the threshold, scaled, and 0."""
        directions = functional.normalize(vectors, dim=1)
        cosines = (directions * self._directions[rows]).sum(dim=1)
        room = (cosines - (1.0 - self._threshold)) * (_FIRST_GAP / self._threshold)
        return torch.stack([room, torch.zeros_like(room)], dim=1)

    def rivals(self, vector: Vector, row: int, count: int) -> list[int]:  # noqa: ARG002
        """There is one: not to match."""
        return [1][:count]

    def distance(self, vector: Vector, row: int) -> float:
        """Cosine distance from the unchanged picture, in [0, 2]."""
        return self._pair(vector, row).distance

    def hold(
        self, vectors: Float64[np.ndarray, "B D"], rows: Int64[np.ndarray, " B"]
    ) -> Bool[np.ndarray, " B"]:
        """Whether the program calls each two a match."""
        pairs = zip(vectors, rows.tolist(), strict=True)
        return np.array([bool(self._pair(vector, row).match) for vector, row in pairs])

    def certified_radius(self, vector: Vector, row: int, subject: Subject) -> float:
        """The evasion radius of a pair of which one picture changes."""
        return float(self._pair(vector, row, subject).radius_a or 0.0)

    def reach(self, row: int, epsilon: float, subject: Subject) -> float:
        """The largest distance that is proved possible for l2 changes below a budget."""
        vector = self._clean[row]
        interval = self._pair(vector, row, subject, epsilon=epsilon).interval_a
        return 2.0 if interval is None else interval[1]

    def _pair(
        self,
        vector: Vector,
        row: int,
        subject: Subject | None = None,
        *,
        epsilon: float | None = None,
    ) -> PairCertificate:
        bound, gain, error = 1.0, 1.0, 0.0
        if subject is not None:
            bound, gain, error = _bound(subject), subject.gain, subject.forward_error
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


class StaysClose:
    """The same for a distance that is the squared Euclidean one, of which nothing is proved.

    Args:
        clean: vectors of the unchanged pictures, (Q, D).
        threshold: distance beyond which the two no longer match, > 0.
        device: where `logits` runs.
    """

    is_flat = True

    def __init__(
        self, clean: Float64[np.ndarray, "Q D"], threshold: float, *, device: str = "cpu"
    ) -> None:
        self._clean, self._threshold = clean, threshold
        self._vectors = torch.from_numpy(clean).to(device=device, dtype=torch.float32)

    def logits(
        self, vectors: Float[Tensor, "B D"], rows: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B C"]:
        """How far the distance is below the threshold, scaled, and 0."""
        distances = ((vectors - self._vectors[rows]) ** 2).sum(dim=1)
        room = _FIRST_GAP * (1.0 - distances / self._threshold)
        return torch.stack([room, torch.zeros_like(room)], dim=1)

    def rivals(self, vector: Vector, row: int, count: int) -> list[int]:  # noqa: ARG002
        """There is one: not to match."""
        return [1][:count]

    def distance(self, vector: Vector, row: int) -> float:
        """Squared distance from the unchanged picture's vector."""
        return float(((vector - self._clean[row]) ** 2).sum())

    def hold(
        self, vectors: Float64[np.ndarray, "B D"], rows: Int64[np.ndarray, " B"]
    ) -> Bool[np.ndarray, " B"]:
        """Whether each two match."""
        return ((vectors - self._clean[rows]) ** 2).sum(axis=1) <= self._threshold

    def certified_radius(self, vector: Vector, row: int, subject: Subject) -> float:  # noqa: ARG002
        """Refused: nothing is proved.

        Raises:
            AttackError: always.
        """
        raise AttackError(f"{subject.name} is compared by a distance that no radius is proved for")


def _bound(subject: Subject) -> float:
    if subject.lipschitz_bound is None:
        raise AttackError(f"{subject.name} proves no radius")
    return subject.lipschitz_bound


def _norm_deviation(galleries: Float32[np.ndarray, "G N D"]) -> float:
    """Bound on | |f| - 1 | over all rows, with room for its own rounding."""
    lengths = np.linalg.norm(galleries.astype(np.float64), axis=2)
    return min(LARGEST_NORM_DEVIATION, float(np.abs(lengths - 1.0).max()) * 1.01 + 1e-12)


def _equal_to_entry(
    galleries: Float32[np.ndarray, "G N D"], entries: Int64[np.ndarray, " Q"]
) -> np.ndarray:
    """Whether a row is, bit for bit, the right entry's: these rank by number for good, (Q, N)."""
    numbers = np.empty(galleries.shape[:2], dtype=np.int64)
    for gallery, places in zip(galleries, numbers, strict=True):
        seen: dict[bytes, int] = {}
        # Adding 0 makes -0 and 0 the same bytes, as they are the same numbers.
        places[:] = [seen.setdefault(row.tobytes(), len(seen)) for row in gallery + np.float32(0)]
    of = np.arange(len(entries)) if len(galleries) > 1 else np.zeros(len(entries), dtype=np.int64)
    return numbers[of] == numbers[of, entries][:, None]
