"""Match or no match, decided by the margin, and how far the query may change before that flips.

The margin of result i is the sine of an angle: <g, u> / |g| for the unit normal u of the plane that
parts i from a competitor j, taken at the k-th smallest over all competitors. Angles change by no
more than the query turns, and an order statistic of such numbers is one again, so a verdict's
radius is the angle left to the threshold. A share of the cosine may be added to each margin
(`model.certificate.statistic`); then a result must be in the top k as well, which a margin above 0
says by itself. `docs/certificate.md` has the proof.

Every decision is the one of a full scan: where the entries that were not retrieved could change
it, the verdict is not decided and the caller must bring more candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.certificate.geometry import (
    ANGLE_ROUNDING,
    Norm,
    embedding_norm,
    flip_radius,
    pixel_scale,
    radii_in_pixels,
    radius_in_pixels,
)
from model.certificate.kth_smallest import KthSmallest
from model.certificate.metric import relative_scales
from model.certificate.pairs import Candidates, Pairs, Slack, score
from model.certificate.ranking import beat_the_unseen, first_items
from model.certificate.rounding import gamma
from model.certificate.scan import PairBlock, PairScan
from model.certificate.statistic import LARGEST_COSINE_WEIGHT, Cones, cone_angles, cone_lengths
from model.errors import CertificateError

# In units of gamma(D + 8): the rounding of a margin beyond that of the two scores and their next
# comparison. The largest part is that of distances from products, here and at a moved query: 2 /
# GRAM_FROM each for the closest rows that are compared so.
_COMMON_ROUNDING = 2e5


@dataclass(frozen=True)
class MatchRule:
    """A result matches when its statistic in a search with this `k` is `threshold` or more.

    The statistic is margin + `cosine_weight` x cosine. With a weight above 0 a result must also be
    among the first `k`; without, a margin above 0 says so.

    Attributes:
        k: how many competitors must stand clear of the result's place: the k-th nearest decides.
        threshold: in (0, 1 + cosine_weight).
        cosine_weight: in [0, `LARGEST_COSINE_WEIGHT`].
    """

    k: int
    threshold: float
    cosine_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.cosine_weight <= LARGEST_COSINE_WEIGHT:
            raise CertificateError(
                f"the cosine's weight must be in [0, {LARGEST_COSINE_WEIGHT:g}], got"
                f" {self.cosine_weight}"
            )
        if self.k < 1 or not 0.0 < self.threshold < 1.0 + self.cosine_weight:
            raise CertificateError(
                f"a match rule needs k >= 1 and a threshold in (0, {1.0 + self.cosine_weight:g}),"
                f" got k = {self.k} and {self.threshold}"
            )


@dataclass(frozen=True, eq=False)
class Margins:
    """Two bounds of each result's statistic; it lies between the smaller of them and `seen`.

    Attributes:
        seen: the k-th smallest over the candidates, (K,); inf where there are fewer.
        unseen: proved lower bound for every entry that was not compared, (K,); inf for none.
    """

    seen: Float64[np.ndarray, " K"]
    unseen: Float64[np.ndarray, " K"]

    @property
    def value(self) -> Float64[np.ndarray, " K"]:
        """The statistics as far as they are proved, (K,)."""
        return np.minimum(self.seen, self.unseen)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Match or no match for each result.

    Attributes:
        is_decided: no unseen entry can change a verdict; if not, more candidates are needed.
        matches: (K,).
        margins: of each result, (K,), in [0, 1].
        statistics: what was compared with the threshold, (K,): the margins, or margin + weight x
            cosine, in [-(1 + weight), 1 + weight].
        radii: l2 change of the uploaded pixels below which the verdict stays, (K,); 0 where
            nothing is proved.
    """

    is_decided: bool
    matches: Bool[np.ndarray, " K"]
    margins: Float64[np.ndarray, " K"]
    statistics: Float64[np.ndarray, " K"]
    radii: Float64[np.ndarray, " K"]

    @classmethod
    def of_zero_query(cls, count: int) -> "Verdicts":
        """A zero query matches nothing, with statistics and radii 0."""
        none = np.zeros(count)
        return cls(True, none > 0.0, none, none, none)


def measure_margins(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    positions: Int64[np.ndarray, " K"],
    k: int,
) -> Margins:
    """Margins of some items against all others, free of image size and brightness.

    `measure_statistics` explains the arguments.
    """
    return measure_statistics(query, candidates, positions, k, (0.0,))[0]


def measure_statistics(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    positions: Int64[np.ndarray, " K"],
    k: int,
    cosine_weights: Sequence[float],
) -> list[Margins]:
    """Margin + weight x cosine of some items against all others, for each weight.

    Args:
        query: raw embedding of the query, (D,); not zero.
        candidates: what a search retrieved, with every row of the items asked about.
        positions: one candidate of each item asked about.
        k: which competitor decides: the one that is the k-th to overtake.
        cosine_weights: each at least 0.

    Raises:
        CertificateError: the query is zero or not finite, or a row is not of unit length.
    """
    norm = embedding_norm(query)
    if norm.value == 0.0:
        raise CertificateError("a zero embedding has no margins")
    slack = Slack.of(norm.high, dimension=query.size, norm_deviation=candidates.norm_deviation)
    scan = _scan(query, candidates, positions, k=k, norm=norm, slack=slack)
    statistics = [_Statistics(weight, k, scan, norm) for weight in cosine_weights]
    for block, _ in scan:
        sines = block.pairs.sines(norm.value)
        for statistic in statistics:
            statistic.add(block, sines)
    return [statistic.bounds() for statistic in statistics]


def judge(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    positions: Int64[np.ndarray, " K"],
    rule: MatchRule,
    *,
    lipschitz_bound: float,
    gain: float,
    forward_error: float,
    output_scales: Float64[np.ndarray, " D"] | None = None,
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
        output_scales: proved bound of how the network moves embeddings along each coordinate, (D,);
            None where nothing but `lipschitz_bound` is proved.

    Raises:
        CertificateError: a number is NaN, infinite, or outside what can carry a proof.
    """
    scale = pixel_scale(lipschitz_bound, gain, forward_error)
    norm = embedding_norm(query)
    if norm.value == 0.0:
        return Verdicts.of_zero_query(positions.size)
    slack = Slack.of(
        norm.high,
        dimension=query.size,
        forward_error=forward_error,
        norm_deviation=candidates.norm_deviation,
    )
    scales = relative_scales(lipschitz_bound, output_scales)
    scan = _scan(query, candidates, positions, k=rule.k, norm=norm, slack=slack, scales=scales)
    judging = Judging(rule, scan, norm, query.size)
    for block, _ in scan:
        judging.add(block)
    return judging.verdicts(scale=scale, forward_error=forward_error)


def _scan(
    query: Float64[np.ndarray, " D"],
    candidates: Candidates,
    positions: Int64[np.ndarray, " K"],
    *,
    k: int,
    norm: Norm,
    slack: Slack,
    scales: Float64[np.ndarray, " D"] | None = None,
) -> PairScan:
    scores = score(candidates.vectors, query, candidates.norm_deviation)
    return PairScan(candidates, scores, positions, k=k, norm=norm, slack=slack, scales=scales)


class _Statistics:
    """Margin + weight x cosine as a scan goes by: the k-th smallest, and a bound on the rest.

    With a weight above 0 the scan is told which blocks it can do without, so that the bound on the
    rest is never the smaller one where every row is a candidate.
    """

    def __init__(self, weight: float, k: int, scan: PairScan, norm: Norm) -> None:
        self._weight, self._scan, self._norm = weight, scan, norm
        self._smallest = KthSmallest(k, scan.kept.count)
        # Of each candidate, times the weight.
        self._cosines = weight * scan.scores.values / norm.value
        self._rounding = 8.0 * gamma(scan.candidates.vectors.shape[1] + 8) * weight
        if weight > 0.0:
            scan.leave_out_only(self._has_more_than_enough)

    def add(
        self, block: PairBlock, sines: Float64[np.ndarray, "A B"]
    ) -> Float64[np.ndarray, "A B"]:
        """Take in a block, whose margins are `sines`; gives the statistic of each pair of rows."""
        values = sines
        if self._weight > 0.0:
            values = sines + self._cosines[block.kept.positions][:, None]
        self._smallest.add(block.of_items(values))
        return values

    def of_rest(self, rest_of_rows: Float64[np.ndarray, " A"]) -> Float64[np.ndarray, " A"]:
        """Lower bounds of it, by row, over what has these bounds for its isotropic radius."""
        bounds = rest_of_rows / self._norm.high
        if self._weight > 0.0:
            bounds += self._cosines[self._scan.kept.positions] - self._rounding
        return bounds

    def bounds(self) -> Margins:
        """What is known of it, once the scan is through."""
        rest = self._scan.kept.largest(self.of_rest(self._scan.rest_of_rows))
        return Margins(self._smallest.kth(), rest)

    def _has_more_than_enough(
        self,
        rest_of_rows: Float64[np.ndarray, " A"],
        rest_gap: Float64[np.ndarray, " A"],  # noqa: ARG002 (a value needs no lead)
    ) -> Bool[np.ndarray, " K"]:
        return self._scan.kept.largest(self.of_rest(rest_of_rows)) >= self._smallest.limit


class Judging:
    """What verdicts need of the pairs as a scan goes by: order statistics of values and angles.

    Each value is compared with the threshold as it is computed now and as it will be after a turn;
    hence its error is taken off on both sides. The error holds at any query, since a value does not
    depend on the query's length. "No match" stays while k candidates stand too near, so it needs
    no bound on the rest.
    """

    def __init__(self, rule: MatchRule, scan: PairScan, norm: Norm, dimension: int) -> None:
        self._rule, self._scan, self._norm, self._unit = rule, scan, norm, gamma(dimension + 8)
        self._margins = self._statistics = _Statistics(0.0, rule.k, scan, norm)
        if rule.cosine_weight > 0.0:
            self._statistics = _Statistics(rule.cosine_weight, rule.k, scan, norm)
            scan.leave_out_only(self._has_room_enough)
        self._staying, self._entering, self._outside = (
            KthSmallest(rule.k, scan.kept.count) for _ in range(3)
        )

    def add(self, block: PairBlock) -> None:
        """Take in a block."""
        threshold, pairs, weight = self._rule.threshold, block.pairs, self._rule.cosine_weight
        values = self._margins.add(block, pairs.sines(self._norm.value))
        lengths: Float64[np.ndarray, "A B"] | float = 1.0
        if weight > 0.0:
            values = self._statistics.add(block, values)
            squares = self._scan.scores.squared_norms
            lengths = cone_lengths(
                pairs.distance,
                squares[block.kept.positions],
                squares[block.columns.positions],
                weight,
                self._unit,
            )
            # As far as a row of the other stays before all of this one's, it does: the same pairs
            # the other way round.
            behind = Pairs(-pairs.gap, pairs.distance, pairs.scaled).lower(self._scan.slack)
            self._outside.add(block.of_items(-behind))
        cones = Cones(values, lengths, self._errors(pairs.distance))
        self._staying.add(block.of_items(cones.staying(threshold)))
        self._entering.add(block.of_items(cones.entering(threshold)))

    def verdicts(self, *, scale: float, forward_error: float) -> Verdicts:
        """The verdicts, once the scan is through."""
        rule, norm, weight = self._rule, self._norm, self._rule.cosine_weight
        found, threshold = self._statistics.bounds(), rule.threshold
        matches = found.value >= threshold
        # "No" by the candidates is final, "yes" must hold for the unseen too; between, no slack is
        # left.
        is_decided = (found.seen < threshold) | matches
        if weight > 0.0:
            is_in, is_proved = self._in_the_top()
            matches &= is_in & is_proved
            is_decided = (found.seen < threshold) | ~is_in | matches
        staying = np.minimum(self._staying.kth(), self._slack_to_the_rest())
        slack = np.where(matches, staying, -self._entering.kth()) - ANGLE_ROUNDING
        in_pixels = [
            radius_in_pixels(r, limit=norm.low, scale=scale, forward_error=forward_error)
            for r in flip_radius(slack, norm.low).tolist()
        ]
        radii = np.array(in_pixels)
        if weight > 0.0:
            # A match may leave the top k first; "no match" stays while either condition fails.
            inside = radii_in_pixels(
                np.minimum(self._scan.lower.kth(rule.k), self._scan.rest), scale=scale
            )
            outside = radii_in_pixels(-self._outside.kth(), scale=scale)
            # Finite, since a verdict's radius is: an equal row ahead stays there for good.
            limit = radius_in_pixels(norm.low, scale=scale, forward_error=forward_error)
            outside[outside == np.inf] = limit
            radii = np.where(matches, np.minimum(radii, inside), np.maximum(radii, outside))
        largest, margins = 1.0 + weight, self._margins.bounds().value
        return Verdicts(
            is_decided=bool(is_decided.all()),
            matches=matches,
            margins=np.clip(margins, 0.0, 1.0),
            statistics=np.clip(found.value, -largest if weight > 0.0 else 0.0, largest),
            radii=radii,
        )

    def _errors(self, distance: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        """Rounding of the statistic of rows this far apart, at any query."""
        common = _COMMON_ROUNDING + 8.0 * self._rule.cosine_weight
        return self._unit * (8.0 / np.minimum(distance, 1.0) + common)

    def _in_the_top(self) -> tuple[Bool[np.ndarray, " K"], Bool[np.ndarray, " K"]]:
        """Which items are among the first k of the candidates, and of which no unseen row is ahead.

        By rank as a search has it: of equal scores the lower item number is first.
        """
        scan = self._scan
        candidates, values = scan.candidates, scan.scores.values
        first = candidates.numbers[first_items(candidates, scan.scores, self._rule.k)]
        best = scan.kept.largest(values[scan.kept.positions])
        is_in = np.isin(candidates.numbers[scan.kept.first], first)
        return is_in, beat_the_unseen(candidates, best, self._norm)

    def _slack_to_the_rest(self) -> Float64[np.ndarray, " K"]:
        """Angle to the threshold over all that was not compared; inf where there is nothing."""
        return self._slack_to(self._scan.rest_of_rows, self._scan.rest_gap)

    def _has_room_enough(
        self, rest_of_rows: Float64[np.ndarray, " A"], rest_gap: Float64[np.ndarray, " A"]
    ) -> Bool[np.ndarray, " K"]:
        """The cone that is assumed of the rest is wider than those that are known of pairs.

        So a rest that decides no verdict could still decide a radius.
        """
        limit = np.maximum(self._staying.limit, self._entering.limit)
        return self._slack_to(rest_of_rows, rest_gap) >= limit

    def _slack_to(
        self, rest_of_rows: Float64[np.ndarray, " A"], rest_gap: Float64[np.ndarray, " A"]
    ) -> Float64[np.ndarray, " K"]:
        """Angle to the threshold over rows of which each kept row has these bounds.

        Two rows are at least as far apart as their scores differ, over |g|: so close one of the
        rest may come, and so much rounding its statistic may have when it is seen after the turn.
        """
        scan, weight = self._scan, self._rule.cosine_weight
        errors = self._errors(np.clip(rest_gap / self._norm.high, 1e-300, 1.0))
        values = self._statistics.of_rest(rest_of_rows)
        if weight > 0.0:  # Bounds of margins alone are proved as they are.
            values -= errors
        longest = 1.0 + weight * (1.0 + scan.candidates.norm_deviation)
        slack = cone_angles(values, longest)
        slack -= cone_angles(self._rule.threshold + errors, longest)
        slack[rest_of_rows == np.inf] = np.inf
        return scan.kept.largest(slack)
