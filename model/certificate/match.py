"""Match or no match, decided by the margin, and how far the query may change before that flips.

The margin of result i is the sine of an angle: <g, u> / |g| for the unit normal u of the plane that
parts i from a competitor j, taken at the k-th smallest over all competitors. Angles change by no
more than the query turns, and an order statistic of such numbers is one again, so a verdict's
radius is the angle left to the threshold. `docs/certificate.md` has the proof.

Every decision is the one of a full scan: where the entries that were not retrieved could change
it, the verdict is not decided and the caller must bring more candidates.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.geometry import (
    ANGLE_ROUNDING,
    Norm,
    embedding_norm,
    flip_radius,
    pixel_scale,
    radius_in_pixels,
)
from model.certificate.pairs import Candidates, Scores, Slack, score
from model.certificate.rounding import gamma
from model.certificate.scan import KthSmallest, PairBlock, PairScan
from model.errors import CertificateError

# In units of gamma(D + 8): the rounding of a margin beyond that of the two scores and their next
# comparison. The largest part is that of distances from products, here and at a moved query: 2 /
# GRAM_FROM each for the closest rows that are compared so.
_COMMON_ROUNDING = 2e5


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
        unseen: proved lower bound for every entry that was not compared, (K,); inf for none.
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

    @classmethod
    def of_zero_query(cls, count: int) -> "Verdicts":
        """A zero query matches nothing, with margins and radii 0."""
        none = np.zeros(count)
        return cls(True, none > 0.0, none, none)


def measure_margins(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    positions: Int64[np.ndarray, " K"],
    k: int,
) -> Margins:
    """Margins of some items against all others, free of image size and brightness.

    Args:
        query: raw embedding of the query, (D,); not zero.
        candidates: what a search retrieved, with every row of the items asked about.
        positions: one candidate of each item asked about.
        k: which competitor decides: the one that is the k-th to overtake.

    Raises:
        CertificateError: the query is zero or not finite, or a row is not of unit length.
    """
    norm = embedding_norm(query)
    if norm.value == 0.0:
        raise CertificateError("a zero embedding has no margins")
    scores = score(candidates.vectors, query, candidates.norm_deviation)
    scan = _scan(candidates, scores, positions, k, norm)
    smallest = KthSmallest(k, positions.size)
    for block, _ in scan:
        smallest.add(block.of_items(block.pairs.sines(norm.value)))
    return Margins(smallest.kth(), scan.rest_isotropic / norm.high)


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
    """Decide items of one's own choice; a search decides its results as it certifies them.

    Args:
        query: raw embedding of the query image, (D,).
        candidates: what the search retrieved, with every row of the items; any others give sound
            radii.
        positions: one candidate of each item.
        rule: when a result matches.
        lipschitz_bound: proved upper bound of the network's l2 Lipschitz constant, > 0.
        gain: l2 operator norm of this image's resize, rounded up, > 0.
        forward_error: bound on the l2 error of a computed embedding; it counts twice.

    Raises:
        CertificateError: a number is NaN, infinite, or outside what can carry a proof.
    """
    scale = pixel_scale(lipschitz_bound, gain, forward_error)
    norm = embedding_norm(query)
    if norm.value == 0.0:
        return Verdicts.of_zero_query(positions.size)
    scores = score(candidates.vectors, query, candidates.norm_deviation)
    scan = _scan(candidates, scores, positions, rule.k, norm)
    judging = Judging(rule, scan, norm, query.size)
    for block, _ in scan:
        judging.add(block)
    return judging.verdicts(scale=scale, forward_error=forward_error)


def _scan(
    candidates: Candidates,
    scores: Scores,
    positions: Int64[np.ndarray, " K"],
    k: int,
    norm: Norm,
) -> PairScan:
    """A scan for margins alone, in which a metric's scales and the forward error have no part."""
    deviation, dimension = candidates.norm_deviation, candidates.vectors.shape[1]
    slack = Slack.of(norm.high, dimension=dimension, norm_deviation=deviation)
    return PairScan(candidates, scores, positions, k=k, norm=norm, slack=slack)


class Judging:
    """What verdicts need of the pairs as a scan goes by: three order statistics.

    Each sine is compared with the threshold as it is computed now and as it will be after a turn;
    hence its error is taken off on both sides. The error holds at any query, since a sine does not
    depend on the query's length. "No match" stays while k candidates stand too near, so it needs
    no bound on the rest.
    """

    def __init__(self, rule: MatchRule, scan: PairScan, norm: Norm, dimension: int) -> None:
        self._rule, self._scan, self._norm, self._unit = rule, scan, norm, gamma(dimension + 8)
        self._sines, self._staying, self._entering = (
            KthSmallest(rule.k, scan.kept.count) for _ in range(3)
        )

    def add(self, block: PairBlock) -> None:
        """Take in a block."""
        threshold, pairs = self._rule.threshold, block.pairs
        sines = pairs.sines(self._norm.value)
        errors = self._unit * (8.0 / np.minimum(pairs.distance, 1.0) + _COMMON_ROUNDING)
        self._sines.add(block.of_items(sines))
        staying = _arcsin(sines - errors) - _arcsin(threshold + errors)
        self._staying.add(block.of_items(staying))
        entering = _arcsin(sines + errors) - _arcsin(threshold - errors)
        self._entering.add(block.of_items(entering))

    def verdicts(self, *, scale: float, forward_error: float) -> Verdicts:
        """The verdicts, once the scan is through."""
        margins = Margins(self._sines.kth(), self._scan.rest_isotropic / self._norm.high)
        matches = margins.value >= self._rule.threshold
        staying = np.minimum(self._staying.kth(), self._slack_to_the_rest())
        slack = np.where(matches, staying, -self._entering.kth()) - ANGLE_ROUNDING
        radii = flip_radius(slack, self._norm.low).tolist()
        in_pixels = [
            radius_in_pixels(r, limit=self._norm.low, scale=scale, forward_error=forward_error)
            for r in radii
        ]
        # "No" by the candidates is final, "yes" must hold for the unseen too; between, no slack is
        # left.
        is_decided = (margins.seen < self._rule.threshold) | matches
        return Verdicts(
            is_decided=bool(is_decided.all()),
            matches=matches,
            margins=np.clip(margins.value, 0.0, 1.0),
            radii=np.array(in_pixels),
        )

    def _slack_to_the_rest(self) -> Float64[np.ndarray, " K"]:
        """Angle to the threshold over all that was not compared; inf where there is nothing.

        Two rows are at least as far apart as their scores differ, over |g|: so close one of the
        rest may come, and so much rounding its margin may have when it is seen after the turn.
        """
        scan, high = self._scan, self._norm.high
        nearest = np.clip(scan.rest_gap / high, 1e-300, 1.0)
        errors = self._unit * (8.0 / nearest + _COMMON_ROUNDING)
        slack = _arcsin(scan.rest_of_rows / high) - _arcsin(self._rule.threshold + errors)
        slack[scan.rest_of_rows == np.inf] = np.inf
        return scan.kept.largest(slack)


def _arcsin(sines: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return np.arcsin(np.clip(sines, -1.0, 1.0))
