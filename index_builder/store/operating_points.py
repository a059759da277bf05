"""What a calibrated version knows of its gallery: named thresholds on `margin`, and their rates.

The manifest keeps counts; rates are computed from them wherever they are shown, so that no two
numbers can contradict each other. A manifest may come from anywhere: every type and range is
checked before anything is made of it.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from index_builder.store.rates import upper_bound
from model.certificate.match import MatchRule

STATISTIC = "margin"
SYNTHETIC, LABELLED = "synthetic", "labelled"
# A search brings back at least 128 candidates; beyond that a margin would often need a full scan.
LARGEST_K = 100
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_KIND = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
# Rates of so many queries are still computed in no time.
MOST_QUERIES = 10_000_000
MOST_SEED = (1 << 53) - 1


@dataclass(frozen=True)
class Measured:
    """Counts over the queries that the thresholds were not chosen on.

    Attributes:
        positives: queries whose original was in the gallery.
        hits: those whose original matched.
        negatives: queries searched without their original, or that have none.
        false_positives: those with any match.
    """

    positives: int
    hits: int
    negatives: int
    false_positives: int

    @property
    def recall(self) -> float | None:
        """Share of the positives that matched; None of none."""
        return self.hits / self.positives if self.positives else None

    @property
    def false_positive_rate(self) -> float | None:
        """Share of the negatives that matched; None of none."""
        return self.false_positives / self.negatives if self.negatives else None


@dataclass(frozen=True)
class OperatingPoint:
    """A named threshold: a result whose margin reaches it is called a match.

    Attributes:
        name: like "strict".
        threshold: on the margin, in (0, 1).
        target_false_positive_rate: what it was chosen for.
        pictures: how many pictures the negatives were made from.
        pictures_with_false_positives: those of which any query matched.
        measured: counts by kind of query.
    """

    name: str
    threshold: float
    target_false_positive_rate: float
    pictures: int
    pictures_with_false_positives: int
    measured: dict[str, Measured]

    @property
    def total(self) -> Measured:
        """The counts of all kinds together."""
        counts = self.measured.values()
        return Measured(
            sum(one.positives for one in counts),
            sum(one.hits for one in counts),
            sum(one.negatives for one in counts),
            sum(one.false_positives for one in counts),
        )

    @property
    def false_positive_upper(self) -> float:
        """95 % upper bound of the rate of false positives, one-sided.

        Copies of one picture are not independent, so pictures are counted, and one with any false
        positive counts whole: no less than the rate among queries, and the same where each picture
        gave one query.
        """
        return upper_bound(self.pictures_with_false_positives, self.pictures)


@dataclass(frozen=True)
class LeftOut:
    """An operating point that could not be claimed, and why."""

    name: str
    target_false_positive_rate: float
    reason: str


@dataclass(frozen=True)
class Calibration:
    """The operating points of one version, and what they rest on.

    Attributes:
        statistic: "margin".
        k: of the search whose margin is meant; see `model.certificate.match`.
        pairs: "synthetic" (edited copies) or "labelled" (a list somebody made).
        source: the collection or list as it was named to the command.
        seed: of edits and halves.
        pictures: distinct pictures the queries were made from.
        queries: all queries, of both halves.
        chosen_on: negatives in the half that the thresholds were chosen on.
        operating_points: the strictest first.
        left_out: those that could not be claimed.
    """

    statistic: str
    k: int
    pairs: str
    source: str
    seed: int
    pictures: int
    queries: int
    chosen_on: int
    operating_points: tuple[OperatingPoint, ...]
    left_out: tuple[LeftOut, ...]

    def point(self, name: str) -> OperatingPoint | None:
        """The operating point of that name."""
        return next((one for one in self.operating_points if one.name == name), None)

    @property
    def names(self) -> list[str]:
        """Names of the operating points."""
        return [one.name for one in self.operating_points]

    def rule(self, point: OperatingPoint) -> MatchRule:
        """When a result matches at this operating point."""
        return MatchRule(self.k, point.threshold)


def describe(calibration: Calibration) -> list[str]:
    """The calibration as lines for a person."""
    lines = [
        f"operating points on {calibration.statistic} (k = {calibration.k}), from"
        f" {calibration.queries} {calibration.pairs} queries of {calibration.pictures} pictures:"
    ]
    for point in calibration.operating_points:
        total = point.total
        lines.append(
            f"  {point.name}: {STATISTIC} >= {point.threshold:g}: recall {_share(total.recall)} "
            f"({total.hits} of {total.positives}), false positives "
            f"{_share(total.false_positive_rate)} ({total.false_positives} of {total.negatives}, "
            f"from {point.pictures_with_false_positives} of {point.pictures} pictures: at most "
            f"{_share(point.false_positive_upper)} with 95 % confidence); target "
            f"{_share(point.target_false_positive_rate)}"
        )
        kinds = [
            f"{kind} {_share(one.recall)}" for kind, one in point.measured.items() if one.positives
        ]
        if len(kinds) > 1:
            lines.append(f"    recall: {', '.join(kinds)}")
    lines += [f"  {one.name}: left out: {one.reason}" for one in calibration.left_out]
    return lines


def _share(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.3g} %"


def calibration_fields(calibration: Calibration) -> dict[str, Any]:
    """The calibration as JSON, with the rates beside the counts."""
    fields = asdict(calibration)
    for shown, point in zip(fields["operating_points"], calibration.operating_points, strict=True):
        shown.update(_rates(point.total), false_positive_upper=point.false_positive_upper)
        for kind, one in point.measured.items():
            shown["measured"][kind] |= _rates(one)
    return fields


def _rates(measured: Measured) -> dict[str, float | None]:
    return {
        "recall": measured.recall,
        "false_positive_rate": measured.false_positive_rate,
    }


def calibration_from(fields: object) -> Calibration:
    """Read a calibration back from a manifest's JSON.

    Raises:
        ValueError: a member is missing, surplus, of another type or out of range; it is named.
    """
    kinds: dict[str, type] = {
        **{"statistic": str, "k": int, "pairs": str, "source": str, "seed": int, "pictures": int},
        **{"queries": int, "chosen_on": int, "operating_points": list, "left_out": list},
    }
    found = _members(fields, "calibration", kinds)
    points = tuple(_point(one) for one in found.pop("operating_points"))
    left_out = tuple(_left_out(one) for one in found.pop("left_out"))
    calibration = Calibration(**found, operating_points=points, left_out=left_out)
    names = [one.name for one in (*points, *left_out)]
    is_sane = (
        calibration.statistic == STATISTIC
        and calibration.pairs in (SYNTHETIC, LABELLED)
        and 1 <= calibration.k <= LARGEST_K
        and len(points) > 0
        and len(set(names)) == len(names)
    )
    if not is_sane:
        raise ValueError("calibration states values that `calibrate` does not write")
    return calibration


def _point(fields: object) -> OperatingPoint:
    kinds: dict[str, type] = {
        **{"name": str, "threshold": float, "target_false_positive_rate": float},
        **{"pictures": int, "pictures_with_false_positives": int, "measured": dict},
    }
    found = _members(fields, "operating point", kinds)
    counts: dict[str, object] = found.pop("measured")
    measured = {kind: _measured(kind, one) for kind, one in counts.items()}
    point = OperatingPoint(**found, measured=measured)
    _check_name_and_rate(point)
    # Written so that NaN, which JSON as we read it does not hold anyway, is refused too.
    if not 0.0 < point.threshold < 1.0:
        raise ValueError(f"threshold of {point.name!r} must be in (0, 1), got {point.threshold}")
    if not point.pictures_with_false_positives <= point.pictures <= point.total.negatives:
        raise ValueError(f"{point.name!r} counts more pictures than it can have")
    return point


def _left_out(fields: object) -> LeftOut:
    kinds = {"name": str, "target_false_positive_rate": float, "reason": str}
    point = LeftOut(**_members(fields, "left_out", kinds))
    _check_name_and_rate(point)
    return point


def _check_name_and_rate(point: OperatingPoint | LeftOut) -> None:
    if not _NAME.fullmatch(point.name):
        raise ValueError(f"no name of an operating point: {point.name[:80]!r}")
    if not 0.0 < point.target_false_positive_rate < 1.0:
        raise ValueError(f"target of {point.name!r} must be in (0, 1)")


def _measured(kind: str, fields: object) -> Measured:
    if not is_kind(kind):
        raise ValueError(f"no kind of query: {kind[:80]!r}")
    counts = ("positives", "hits", "negatives", "false_positives")
    found = Measured(**_members(fields, "measured", dict.fromkeys(counts, int)))
    if not (found.hits <= found.positives and found.false_positives <= found.negatives):
        raise ValueError(f"more hits than queries of kind {kind!r}")
    return found


def is_kind(kind: str) -> bool:
    """Whether this can be the name of a kind of queries."""
    return _KIND.fullmatch(kind) is not None


def _members(value: object, what: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """An object's members, once each is there, of its type, and a count where it is a number."""
    if not isinstance(value, dict) or set(value) != set(kinds):  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(f"{what}: wanted an object of {', '.join(kinds)}")
    members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON: keys are str
    for name, kind in kinds.items():
        # `type`, as a bool is an int to Python.
        if type(members[name]) is not kind:
            raise ValueError(f"{what}: {name} must be {kind.__name__}")
        most = MOST_SEED if name == "seed" else MOST_QUERIES
        if kind is int and not 0 <= members[name] <= most:
            raise ValueError(f"{what}: {name} must be a count, got {str(members[name])[:40]}")
    return members
