"""Match or no match, decided by the margin, and how far the query may change before that flips.

The margin of result i is the sine of an angle: <g, u> / |g| for the unit normal u of the plane that
parts i from a competitor j, taken at the k-th smallest over all competitors. Angles change by no
more than the query turns, and an order statistic of such numbers is one again, so a verdict's
radius is the angle left to the threshold. `docs/certificate.md` has the proof.

Every decision is the one of a full scan: where the entries that were not retrieved could change
it, the verdict is not decided and the caller must bring more candidates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.pairs import Float64Rows, Kept, KthSmallest, Scores, score, tail_radii
from model.certificate.rounding import gamma
from model.certificate.search import Candidates
from model.certificate.similarity import Norm, embedding_norm, flip_distance, pixel_scale, published
from model.errors import CertificateError

# In units of gamma(D + 8): the rounding of a margin beyond what `Kept.against` charges each pair.
# The largest part is the Gram form's at a moved query, 4 / 1e-4 for the closest rows it is used on.
_COMMON_ROUNDING = 1e5

# Larger than the rounding of two arcsines and their difference.
_ANGLE_ROUNDING = 1e-14


@dataclass(frozen=True)
class MatchRule:
    """A result matches when its margin, as a search with this `k` has it, is `threshold` or more.

    Attributes:
        k: how many competitors must stand clear of the result's place: the k-th nearest decides.
        threshold: in (0, 1).
    """

    k: int
    threshold: float

    def __post_init__(self) -> None:
        """Refuse a rule that no verdict could rest on.

        Raises:
            CertificateError: k is below 1, or the threshold is not inside (0, 1).
        """
        if self.k < 1 or not 0.0 < self.threshold < 1.0:
            raise CertificateError(
                f"a match rule needs k >= 1 and a threshold in (0, 1), got k = {self.k} and"
                f" {self.threshold}"
            )


@dataclass(frozen=True, eq=False)
class Margins:
    """Two bounds of each result's margin; the margin lies between the smaller of them and `seen`.

    Attributes:
        seen: the k-th smallest over the candidates, (K,); inf where there are fewer.
        unseen: proved lower bound for every entry that was not retrieved, (K,); inf for none.
    """

    seen: Float64[np.ndarray, " K"]
    unseen: Float64[np.ndarray, " K"]

    @property
    def value(self) -> Float64[np.ndarray, " K"]:
        """The margins as far as they are proved, (K,)."""
        return np.minimum(self.seen, self.unseen)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Match or no match for each result.

    Attributes:
        is_decided: no unseen entry can change a verdict; if not, more candidates are needed.
        matches: (K,).
        margins: what was compared with the threshold, (K,), in [0, 1].
        radii: l2 change of the uploaded pixels below which the verdict stays, (K,); 0 where
            nothing is proved.
    """

    is_decided: bool
    matches: Bool[np.ndarray, " K"]
    margins: Float64[np.ndarray, " K"]
    radii: Float64[np.ndarray, " K"]


def measure_margins(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    positions: Int64[np.ndarray, " K"],
    k: int,
) -> Margins:
    """Margins of some candidates against all others, free of image size and brightness.

    Args:
        query: raw embedding of the query, (D,); not zero.
        candidates: what a search retrieved.
        positions: those asked about, by their positions in the candidates.
        k: which competitor decides: the one that is the k-th to overtake.

    Raises:
        CertificateError: the query is zero or not finite, or a row is not of unit length.
    """
    norm = embedding_norm(query)
    if norm.value == 0.0:
        raise CertificateError("a zero embedding has no margins")
    return _Comparison(query, candidates, positions, norm).margins(k)


def judge(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    positions: Int64[np.ndarray, " K"],
    rule: MatchRule,
    *,
    lipschitz_bound: float,
    gain: float,
    forward_error: float,
) -> Verdicts:
    """Decide each result by its margin, and prove below which change the decision stays.

    Args:
        query: raw embedding of the query image, (D,).
        candidates: what the search retrieved; any candidates give sound radii.
        positions: the results, by their positions in the candidates.
        rule: when a result matches.
        lipschitz_bound: proved upper bound of the network's l2 Lipschitz constant, > 0.
        gain: l2 operator norm of this image's resize, rounded up, > 0.
        forward_error: bound on the l2 error of a computed embedding; it counts twice.

    Returns:
        The verdicts. A zero query matches nothing, with margins and radii 0.

    Raises:
        CertificateError: a number is NaN, infinite, or outside what can carry a proof.
    """
    scale = pixel_scale(lipschitz_bound, gain, forward_error)
    norm = embedding_norm(query)
    if norm.value == 0.0:
        none = np.zeros(positions.size)
        return Verdicts(True, none > 0.0, none, none)
    comparison = _Comparison(query, candidates, positions, norm)
    margins = comparison.margins(rule.k)
    matches = margins.value >= rule.threshold
    staying, staying_out = comparison.rooms(rule)
    distances = flip_distance(np.where(matches, staying, staying_out), norm.low)
    # "No" by the candidates is final, "yes" must hold for the unseen too; between, no room is left.
    is_decided = (margins.seen < rule.threshold) | matches
    return Verdicts(
        is_decided=bool(is_decided.all()),
        matches=matches,
        margins=np.clip(margins.value, 0.0, 1.0),
        radii=np.array(
            [
                published(distance, limit=norm.low, scale=scale, forward_error=forward_error)
                for distance in distances.tolist()
            ]
        ),
    )


class _Comparison:
    """Some candidates of one query against all of its candidates, and against the unseen."""

    def __init__(
        self,
        query: Float64[np.ndarray, " D"],
        candidates: Candidates,
        positions: Int64[np.ndarray, " K"],
        norm: Norm,
    ) -> None:
        self._rows = Float64Rows(candidates.vectors)
        self._scores: Scores = score(self._rows, query, candidates.norm_deviation)
        self._candidates, self._positions, self._norm = candidates, positions, norm
        self._unit = gamma(self._rows.dimension + 8)

    def margins(self, k: int) -> Margins:
        """The k-th smallest sine of each, and the unseen entries' bound."""
        smallest = KthSmallest(k, self._positions.size)
        for sines, _ in self._blocks():
            smallest.add(sines)
        return Margins(smallest.result(), self._tail() / self._norm.high)

    def rooms(self, rule: MatchRule) -> tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
        """Angles by which the query may turn before "match" and before "no match" can flip.

        Each sine is compared as it is computed now and as it will be after the turn; hence its
        error is taken off on both sides. "No match" stays while k candidates stand too near, so it
        needs no bound on the unseen.
        """
        staying = KthSmallest(rule.k, self._positions.size)
        entering = KthSmallest(rule.k, self._positions.size)
        for sines, errors in self._blocks():
            staying.add(_arcsin(sines - errors) - _arcsin(rule.threshold + errors))
            entering.add(_arcsin(sines + errors) - _arcsin(rule.threshold - errors))
        room = np.minimum(staying.result(), self._tail_room(rule.threshold))
        return room - _ANGLE_ROUNDING, -entering.result() - _ANGLE_ROUNDING

    def _blocks(
        self,
    ) -> Iterator[tuple[Float64[np.ndarray, "K B"], Float64[np.ndarray, "K B"]]]:
        """Sine of the angle to each competitor's plane, and what rounding may move it by.

        The bound holds for the sine computed here and for the one computed at any other query,
        since a sine does not depend on the query's length. Over itself it is inf.
        """
        if self._positions.size == 0:
            return
        kept = Kept(
            self._rows, self._scores, self._candidates.rows, self._positions, self._norm.high
        )
        for start, block in self._rows.blocks():
            radii, slack = kept.against(start, block)
            errors = slack / self._norm.value + _COMMON_ROUNDING * self._unit
            yield radii / self._norm.value, errors

    def _tail(self) -> Float64[np.ndarray, " K"]:
        """Lower bound of each one's signed radius over every unseen entry."""
        return tail_radii(
            self._scores.values[self._positions],
            self._scores.squared_norms[self._positions],
            norm=self._norm,
            unseen_score=self._unseen_score(),
            norm_deviation=self._candidates.norm_deviation,
            dimension=self._rows.dimension,
        )

    def _tail_room(self, threshold: float) -> Float64[np.ndarray, " K"]:
        """Angle to the threshold over every unseen entry; inf where nothing is unseen.

        Two rows are at least as far apart as their scores differ, over |g|: so close an unseen
        entry may come, and so much rounding its margin may have when it is seen after the turn.
        """
        if self._candidates.are_all:
            return np.full(self._positions.size, np.inf)
        rounding = 8.0 * self._unit * (1.0 + self._candidates.norm_deviation) * self._norm.high
        gap = self._scores.values[self._positions] - self._unseen_score() - rounding
        nearest = np.clip(gap / self._norm.high, 1e-300, 1.0)
        errors = self._unit * (8.0 / nearest + 2.0 * _COMMON_ROUNDING)
        return _arcsin(self._tail() / self._norm.high) - _arcsin(threshold + errors)

    def _unseen_score(self) -> float:
        return -math.inf if self._candidates.are_all else self._candidates.unseen_score


def _arcsin(sines: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return np.arcsin(np.clip(sines, -1.0, 1.0))
