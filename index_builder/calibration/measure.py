"""Measure on a gallery which margin means "copy", and seal what was found into a new version.

Each query is searched twice: with its original in the gallery, where that should match, and with
its original left out, where any match is a false alarm. Thresholds, and how much the cosine counts
beside the margin, are chosen on one half of the queries and measured on the other.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index_builder.build.embedding import EmbedderLike
from index_builder.build.writer import seal_calibration, writing
from index_builder.calibration.outcomes import Outcome, Question, outcomes_of
from index_builder.calibration.queries import Pairs, embedded_queries, is_held_out
from index_builder.calibration.query_groups import merged_groups
from index_builder.calibration.self_match import SelfMatches, self_matches
from index_builder.errors import SourceError
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.manifest import Manifest
from index_builder.store.operating_points import (
    LARGEST_K,
    MOST_QUERIES,
    Calibration,
    LeftOut,
    Measured,
    OperatingPoint,
    statistic_with,
)
from index_builder.store.rates import (
    CONFIDENCE,
    at_most,
    choose_threshold,
    pictures_wanted,
    trials_needed,
)
from model.certificate.statistic import COSINE_WEIGHTS, LARGEST_COSINE_WEIGHT
from model.cli.progress import Progress
from model.pixels.decode import DecodeLimits

# The share of pictures without an original that may match, by name; the strictest first.
TARGETS = {"strict": 0.001, "balanced": 0.01}
# The one at which recalls are compared to choose the weight of the cosine: the other takes ten
# times as many pictures to say anything.
_DECIDING = "balanced"

_SHOWN_ALARMS = 5


@dataclass(frozen=True)
class Alarm:
    """An entry that came near to being called a match of a query it is no original of."""

    query: str
    id: str
    margin: float
    statistic: float


@dataclass(frozen=True)
class WeightTried:
    """What a calibration would be with one weight of the cosine.

    Attributes:
        cosine_weight: of the statistic margin + weight x cosine.
        recall: share of the positives that match at the deciding target, in the half that
            thresholds are chosen on; 0 where there is no threshold.
        operating_points: thresholds, and what they scored in the other half.
        left_out: those that could not be claimed.
    """

    cosine_weight: float
    recall: float
    operating_points: tuple[OperatingPoint, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class CalibrationReport:
    """The version now served, and what a calibration measured in so many seconds of wall time.

    `found` says in words which pictures of the index its queries were made of. Alarms are the
    worst wrong entries of all queries: a near-duplicate in the gallery shows there.
    """

    manifest: Manifest
    calibration: Calibration
    found: str
    cosine_weights: list[WeightTried]
    alarms: list[Alarm]
    self_matches: SelfMatches
    seconds: float


def calibrate_index(
    data_dir: Path,
    name: str,
    pairs: Pairs,
    embedder: EmbedderLike,
    *,
    k: int = 1,
    cosine_weight: float | None = None,
    seed: int = 0,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> CalibrationReport:
    """Make a version of the same gallery with operating points, and serve it.

    `k` is of the search whose margin is thresholded; with k = 1 a result must stand clear of every
    other entry, so a picture that is in the gallery twice matches neither. `cosine_weight` is what
    the cosine counts beside the margin, 0 to 8; None chooses the one with the best recall. The seed
    is of edits, choice and halves.

    Raises:
        SourceError: the queries cannot be had, or are too few to claim any operating point.
    """
    started = time.monotonic()
    progress = progress or Progress()
    paths = layout.index_paths(data_dir, name)
    layout.read_current(paths)  # before a lock file is made for an index that is not there
    with (
        writing(paths),
        GalleryIndex.open(
            data_dir,
            name,
            embedder_fingerprint=embedder.fingerprint,
            decode_policy=embedder.decode_policy,
        ) as index,
    ):
        _check_size(index, k)
        weights = _weights(cosine_weight)
        jobs, total, groups, found = pairs.jobs(index, seed, limits, progress)
        _check_pictures(groups, seed, found)
        measured: list[list[Outcome]] = []
        with progress.counter("measuring", total, "queries") as advance:
            for queries in embedded_queries(jobs, embedder, limits):
                for outcomes in outcomes_of(index, queries, Question(k, weights)):
                    measured.append(outcomes)
                    advance()
        of_weights = dict(zip(weights, _grouped(measured), strict=True))
        tried = [
            _try(weight, outcomes, seed)
            for weight, outcomes in of_weights.items()
            if cosine_weight is None or weight == cosine_weight
        ]
        best = max(
            tried, key=lambda one: one.recall
        )  # of equal ones the first: the smallest weight
        outcomes = of_weights[best.cosine_weight]
        if not best.operating_points:
            raise _nothing_claimed(best.left_out, found)
        calibration = Calibration(
            statistic=statistic_with(best.cosine_weight),
            k=k,
            pairs=pairs.kind,
            source=pairs.source,
            seed=seed,
            pictures=len(_groups(outcomes)),
            queries=len(outcomes),
            chosen_on=len(_choosing(outcomes, seed)),
            operating_points=best.operating_points,
            left_out=best.left_out,
            cosine_weight=best.cosine_weight,
        )
        alarms = _worst(index, outcomes)
        thresholds = {one.name: one.threshold for one in best.operating_points}
        own = self_matches(index.vectors, index.rows.starts, k, thresholds, best.cosine_weight)
        progress.step("writing and verifying the version")
        manifest = seal_calibration(paths, index.manifest, calibration)
    seconds = time.monotonic() - started
    return CalibrationReport(manifest, calibration, found, tried, alarms, own, seconds)


def _weights(cosine_weight: float | None) -> tuple[float, ...]:
    """What is to be measured: 0 comes first, since a place in the top k is told by the margin."""
    if cosine_weight is None:
        return COSINE_WEIGHTS
    if not 0.0 <= cosine_weight <= LARGEST_COSINE_WEIGHT:
        raise SourceError(
            f"the weight of the cosine must be 0 to {LARGEST_COSINE_WEIGHT:g}, got {cosine_weight}"
        )
    return (0.0, cosine_weight) if cosine_weight > 0.0 else (0.0,)


def _check_size(index: GalleryIndex, k: int) -> None:
    if not 1 <= k <= LARGEST_K:
        raise SourceError(f"k must be 1 to {LARGEST_K}, got {k}")
    if index.size < k + 2:
        raise SourceError(
            f"index {index.name!r} has {index.size} entries: a margin at k = {k} needs {k + 2}, "
            "so that a competitor is left when the original is not there"
        )


def _check_pictures(groups: Sequence[str], seed: int, found: str) -> None:
    """Refuse before measuring what could not be claimed without a single false alarm."""
    known = set(groups) - {""}
    held_out = sum(is_held_out(seed, group) for group in known)
    # At most: groups only become fewer when files are seen, and those not known yet may fall
    # into either half.
    pictures = min(held_out, len(known) - held_out) + list(groups).count("")
    if pictures < min(map(trials_needed, TARGETS.values())):
        raise _nothing_claimed(
            [_too_few(*target, f"at most {pictures}") for target in TARGETS.items()], found
        )


def _too_few(name: str, target: float, pictures: int | str) -> LeftOut:
    reason = (
        f"{100 * target:g} % cannot be claimed with 95 % confidence from {pictures} pictures in "
        f"the smaller half, it takes {trials_needed(target)}: give {pictures_wanted(target)} "
        "pictures or more (halves are drawn by hash)"
    )
    return LeftOut(name, target, reason)


def _nothing_claimed(left_out: Sequence[LeftOut], found: str) -> SourceError:
    reasons = "; ".join(f"{one.name}: {one.reason}" for one in reversed(left_out))
    return SourceError(
        f"no operating point can be claimed from {found} ({reasons}); nothing was changed. In a "
        "list (--pairs) queries may also be pictures that are not in the index"
    )


def _try(weight: float, outcomes: list[Outcome], seed: int) -> WeightTried:
    """Choose each threshold on one half, measure it on the other, and keep what holds there."""
    if len(outcomes) > MOST_QUERIES:
        raise SourceError(f"at most {MOST_QUERIES} queries can be counted, got {len(outcomes)}")
    choosing = _choosing(outcomes, seed)
    measuring = [one for one in outcomes if is_held_out(seed, one.label.group)]
    found = [
        _operating_point(*target, choosing, measuring, highest=1.0 + weight)
        for target in TARGETS.items()
    ]
    threshold = choose_threshold([one.alarm for one in choosing], TARGETS[_DECIDING])
    recall = None
    if threshold is not None:
        counts = _count(choosing, threshold).values()
        recall = sum(one.hits for one in counts) / max(1, sum(one.positives for one in counts))
    return WeightTried(
        weight,
        recall or 0.0,
        tuple(one for one in found if isinstance(one, OperatingPoint)),
        tuple(one for one in found if isinstance(one, LeftOut)),
    )


def _choosing(outcomes: Iterable[Outcome], seed: int) -> list[Outcome]:
    return [one for one in outcomes if not is_held_out(seed, one.label.group)]


def _operating_point(
    name: str,
    target: float,
    choosing: list[Outcome],
    measuring: list[Outcome],
    *,
    highest: float,
) -> OperatingPoint | LeftOut:
    """One operating point, or why it cannot be claimed."""
    pictures = min(len(_groups(choosing)), len(_groups(measuring)))
    threshold = choose_threshold([one.alarm for one in choosing], target)
    if threshold is None or pictures < trials_needed(target):
        return _too_few(name, target, pictures)
    if not threshold < highest:
        reason = f"wrong entries reach {highest:g}, the most there is: look for duplicates"
        return LeftOut(name, target, reason)
    point = OperatingPoint(
        name=name,
        threshold=threshold,
        target_false_positive_rate=target,
        pictures=len(_groups(measuring)),
        pictures_with_false_positives=len(_groups(o for o in measuring if o.alarm >= threshold)),
        measured=_count(measuring, threshold),
    )
    total = point.total
    # Clearly more: so many or more would be seen at the target in one case of twenty at most.
    fewer = at_most(total.false_positives - 1, total.negatives, target)
    if total.false_positives > 0 and fewer >= CONFIDENCE:
        reason = (
            f"{total.false_positives} of {total.negatives} held-out negatives matched, clearly "
            f"more than {100 * target:g} %: give more pictures"
        )
        return LeftOut(name, target, reason)
    return point


def _grouped(measured: list[list[Outcome]]) -> list[list[Outcome]]:
    """The outcomes by weight, under the pictures' groups, known once every file was seen."""
    labels = [outcomes[0].label for outcomes in measured]
    groups = merged_groups([one.group for one in labels], [one.pixels for one in labels])
    named = [replace(one, group=group) for one, group in zip(labels, groups, strict=True)]
    return [
        [replace(one, label=label) for one, label in zip(outcomes, named, strict=True)]
        for outcomes in zip(*measured, strict=True)
    ]


def _groups(outcomes: Iterable[Outcome]) -> set[str]:
    return {one.label.group for one in outcomes}


def _count(outcomes: list[Outcome], threshold: float) -> dict[str, Measured]:
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.label.kind].append(outcome)
    return {
        kind: Measured(
            positives=sum(one.hit is not None for one in same),
            hits=sum(one.hit is not None and one.hit >= threshold for one in same),
            negatives=len(same),
            false_positives=sum(one.alarm >= threshold for one in same),
        )
        for kind, same in sorted(by_kind.items())
    }


def _worst(index: GalleryIndex, outcomes: list[Outcome]) -> list[Alarm]:
    worst = sorted(outcomes, key=lambda one: -one.alarm)[:_SHOWN_ALARMS]
    entries = index.entries([one.alarm_entry for one in worst])
    return [
        Alarm(one.label.name, entry.id, one.alarm_margin, one.alarm)
        for one, entry in zip(worst, entries, strict=True)
    ]
