"""Operating points as a manifest keeps them: named thresholds on a statistic, and what they scored.

The manifest keeps counts; rates are computed from them wherever they are shown, so that no two
numbers can contradict each other. A manifest may come from anywhere: every type and range is
checked when one of these is made.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from index_builder.store.rates import upper_bound
from model.certificate.match import MatchRule
from model.certificate.statistic import LARGEST_COSINE_WEIGHT

Statistic = Literal["margin", "margin + cosine"]
PairsKind = Literal["synthetic", "labelled"]
# A search brings back at least 128 candidates; beyond that a margin would often need a full scan.
LARGEST_K = 100
# Rates of so many queries are still computed in no time.
MOST_QUERIES = 10_000_000
MOST_SEED = (1 << 53) - 1

# Members are strict one by one: as a whole it would refuse JSON's lists and objects.
_CLOSED = ConfigDict(extra="forbid")
_Count = Annotated[int, Field(strict=True, ge=0, le=MOST_QUERIES)]
_Name = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
_KIND = r"^[^\x00-\x1f\x7f]{1,64}$"
_Kind = Annotated[str, Field(strict=True, pattern=_KIND)]
_Share = Annotated[float, Field(strict=True, gt=0.0, lt=1.0)]


@dataclass(frozen=True, config=_CLOSED)
class Measured:
    """Counts over the queries that the thresholds were not chosen on.

    Attributes:
        positives: queries whose original was in the gallery.
        hits: those whose original matched.
        negatives: queries searched without their original, or that have none.
        false_positives: those with any match.
    """

    positives: _Count
    hits: _Count
    negatives: _Count
    false_positives: _Count

    @model_validator(mode="after")
    def _no_more_hits_than_queries(self) -> "Measured":
        if not (self.hits <= self.positives and self.false_positives <= self.negatives):
            raise ValueError("more hits than queries")
        return self

    @property
    def recall(self) -> float | None:
        """Share of the positives that matched; None of none."""
        return self.hits / self.positives if self.positives else None

    @property
    def false_positive_rate(self) -> float | None:
        """Share of the negatives that matched; None of none."""
        return self.false_positives / self.negatives if self.negatives else None


@dataclass(frozen=True, config=_CLOSED)
class OperatingPoint:
    """A named threshold: a result whose statistic reaches it is called a match.

    Attributes:
        name: like "strict".
        threshold: in (0, 1 + weight of the cosine).
        target_false_positive_rate: what it was chosen for.
        pictures: how many pictures the negatives were made from.
        pictures_with_false_positives: those of which any query matched.
        measured: counts by kind of query.
    """

    name: _Name
    threshold: Annotated[float, Field(strict=True, gt=0.0, lt=1.0 + LARGEST_COSINE_WEIGHT)]
    target_false_positive_rate: _Share
    pictures: _Count
    pictures_with_false_positives: _Count
    measured: dict[_Kind, Measured]

    @model_validator(mode="after")
    def _no_more_pictures_than_queries(self) -> "OperatingPoint":
        if not self.pictures_with_false_positives <= self.pictures <= self.total.negatives:
            raise ValueError("more pictures than it can have")
        return self

    @property
    def total(self) -> Measured:
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


@dataclass(frozen=True, config=_CLOSED)
class LeftOut:
    """An operating point that could not be claimed, and why."""

    name: _Name
    target_false_positive_rate: _Share
    reason: Annotated[str, Field(strict=True)]


@dataclass(frozen=True, config=_CLOSED)
class Calibration:
    """The operating points of one version, and what they rest on.

    Attributes:
        statistic: "margin", or "margin + cosine" where the cosine has a weight.
        k: of the search whose margin is meant; see `model.certificate.match`.
        pairs: "synthetic" (edited copies) or "labelled" (a list somebody made).
        source: the collection or list as it was named to the command.
        seed: of edits and halves.
        pictures: distinct pictures the queries were made from.
        queries: all queries, of both halves.
        chosen_on: negatives in the half that the thresholds were chosen on.
        operating_points: the strictest first.
        left_out: those that could not be claimed.
        stale: whether the gallery was another one when this was measured.
        cosine_weight: what the cosine is multiplied with before it is added to the margin.
    """

    statistic: Statistic
    k: Annotated[int, Field(strict=True, ge=1, le=LARGEST_K)]
    pairs: PairsKind
    source: InstanceOf[str]  # a path's bytes may be no Unicode, which `str` would refuse
    seed: Annotated[int, Field(strict=True, ge=0, le=MOST_SEED)]
    pictures: _Count
    queries: _Count
    chosen_on: _Count
    operating_points: Annotated[tuple[OperatingPoint, ...], Field(min_length=1)]
    left_out: tuple[LeftOut, ...]
    stale: Annotated[bool, Field(strict=True)] = False
    cosine_weight: Annotated[float, Field(strict=True, ge=0.0, le=LARGEST_COSINE_WEIGHT)] = 0.0

    @model_validator(mode="after")
    def _names_come_once(self) -> "Calibration":
        names = [one.name for one in (*self.operating_points, *self.left_out)]
        if len(set(names)) != len(names):
            raise ValueError("an operating point comes twice")
        return self

    @model_validator(mode="after")
    def _statistic_has_its_weight_and_range(self) -> "Calibration":
        if self.statistic != statistic_with(self.cosine_weight):
            raise ValueError("the statistic and the weight of the cosine contradict each other")
        if not all(one.threshold < 1.0 + self.cosine_weight for one in self.operating_points):
            raise ValueError("a threshold is not below 1 + cosine_weight")
        return self

    def point(self, name: str) -> OperatingPoint | None:
        return next((one for one in self.operating_points if one.name == name), None)

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.operating_points]

    def rule(self, point: OperatingPoint) -> MatchRule:
        """When a result matches at this operating point."""
        return MatchRule(self.k, point.threshold, self.cosine_weight)


def statistic_with(cosine_weight: float) -> Statistic:
    """The name of margin + weight x cosine."""
    return "margin" if cosine_weight == 0.0 else "margin + cosine"


def statistic_in_words(cosine_weight: float) -> str:
    """Like "margin + 0.5 cosine", or "margin"."""
    return "margin" if cosine_weight == 0.0 else f"margin + {cosine_weight:g} cosine"


def describe(calibration: Calibration) -> list[str]:
    """The calibration as lines for a person."""
    statistic = statistic_in_words(calibration.cosine_weight)
    lines = [
        f"operating points on {statistic} (k = {calibration.k}), from"
        f" {calibration.queries} {calibration.pairs} queries of {calibration.pictures} pictures"
        f" ({calibration.source}):"
    ]
    if calibration.stale:
        lines.append("  stale: measured on another gallery; `calibrate` measures them anew")
    for point in calibration.operating_points:
        total = point.total
        lines.append(
            f"  {point.name}: {statistic} >= {point.threshold:g}: recall {share(total.recall)} "
            f"({total.hits} of {total.positives}), false positives "
            f"{share(total.false_positive_rate)} ({total.false_positives} of {total.negatives}, "
            f"from {point.pictures_with_false_positives} of {point.pictures} pictures: at most "
            f"{share(point.false_positive_upper)} with 95 % confidence); target "
            f"{share(point.target_false_positive_rate)}"
        )
        kinds = point.measured.items()
        for what, shares in (
            ("recall", {kind: one.recall for kind, one in kinds}),
            ("false positives", {kind: one.false_positive_rate for kind, one in kinds}),
        ):
            told = [f"{kind} {share(one)}" for kind, one in shares.items() if one is not None]
            if len(told) > 1:
                lines.append(f"    {what}: {', '.join(told)}")
    lines += [f"  {one.name}: left out: {one.reason}" for one in calibration.left_out]
    return lines


def share(rate: float | None) -> str:
    """In percent, for a person."""
    return "-" if rate is None else f"{100 * rate:.3g} %"


def calibration_fields(calibration: Calibration) -> dict[str, Any]:
    """The calibration as JSON, with the rates beside the counts."""
    points = points_fields(calibration.operating_points)
    return {**asdict(calibration), "operating_points": points}


def points_fields(points: Iterable[OperatingPoint]) -> list[dict[str, Any]]:
    """Operating points as JSON, with the rates beside the counts."""
    shown: list[dict[str, Any]] = []
    for point in points:
        fields = asdict(point)
        fields.update(_rates(point.total), false_positive_upper=point.false_positive_upper)
        for kind, one in point.measured.items():
            fields["measured"][kind] |= _rates(one)
        shown.append(fields)
    return shown


def _rates(measured: Measured) -> dict[str, float | None]:
    return {"recall": measured.recall, "false_positive_rate": measured.false_positive_rate}


def stored_fields(calibration: Calibration) -> dict[str, Any]:
    """The calibration as a manifest holds it.

    `stale` is a member only where it is true, `cosine_weight` only where it is not 0.
    """
    fields = asdict(calibration)
    for name in ("stale", "cosine_weight"):
        if not fields[name]:
            del fields[name]
    return fields


def calibration_from(fields: object) -> Calibration:
    """Read a calibration back from a manifest's JSON.

    Raises:
        ValueError: a member is missing, surplus, of another type or out of range; it is named.
    """
    try:
        return _CALIBRATION.validate_python(fields)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(["calibration", *map(str, first["loc"])])
        raise ValueError(f"{where!r:.200}: {first['msg']}") from None


def is_kind(kind: str) -> bool:
    return re.fullmatch(_KIND, kind) is not None


_CALIBRATION = TypeAdapter(Calibration)
