"""Measure on a gallery which margin means "copy", and seal what was found into a new version.

Each query is searched twice: with its original in the gallery, where that should match, and with
its original left out, where any match is a false alarm. Thresholds are chosen on one half of the
queries and measured on the other.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from index_builder.build.embedding import EmbedderLike
from index_builder.build.writer import seal_calibration, writing
from index_builder.calibration.queries import Label, Pairs, Query, embedded_queries, is_held_out
from index_builder.calibration.query_groups import merged_groups
from index_builder.calibration.self_match import SelfMatches, self_matches
from index_builder.errors import SourceError
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.manifest import Manifest
from index_builder.store.operating_points import (
    LARGEST_K,
    MOST_QUERIES,
    STATISTIC,
    Calibration,
    LeftOut,
    Measured,
    OperatingPoint,
)
from index_builder.store.rates import CONFIDENCE, at_most, choose_threshold, trials_needed
from model.certificate.geometry import embedding_norm
from model.certificate.match import Margins, measure_margins
from model.certificate.pairs import Candidates
from model.certificate.ranking import rank_candidates
from model.cli.progress import Progress
from model.pixels.decode import DecodeLimits

# The share of pictures without an original that may match, by name; the strictest first.
TARGETS = {"strict": 0.001, "balanced": 0.01}

# Deeper candidates only raise the lower bound of a margin. From here on the bounds are taken as
# they are, each on the side that makes the measured rates look worse.
_DEPTHS = (128, 512, 2048)
_SHOWN_ALARMS = 5


@dataclass(frozen=True)
class Alarm:
    """An entry that came near to being called a match of a query it is no original of."""

    query: str
    id: str
    margin: float


@dataclass(frozen=True)
class CalibrationReport:
    """The version now served, and what a calibration found in so many seconds of wall time.

    Alarms are the worst wrong entries of all queries: a near-duplicate in the gallery shows there.
    """

    manifest: Manifest
    calibration: Calibration
    alarms: list[Alarm]
    self_matches: SelfMatches
    seconds: float


@dataclass(frozen=True)
class _Outcome:
    """One query's two searches.

    Attributes:
        hit: margin of its original, as far as proved; None if it has none in the gallery.
        alarm: the largest margin of any other entry with the original left out, from above.
        alarm_entry: number of that entry.
    """

    label: Label
    hit: float | None
    alarm: float
    alarm_entry: int


def calibrate_index(
    data_dir: Path,
    name: str,
    pairs: Pairs,
    embedder: EmbedderLike,
    *,
    k: int = 1,
    seed: int = 0,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> CalibrationReport:
    """Make a version of the same gallery with operating points, and serve it.

    `k` is of the search whose margin is thresholded; with k = 1 a result must stand clear of every
    other entry, so a picture that is in the gallery twice matches neither. The seed is of edits,
    choice and halves.

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
        jobs, total, groups = pairs.jobs(index, seed, limits, progress)
        _check_pictures(groups, seed)
        measured: list[_Outcome] = []
        with progress.counter("measuring", total, "queries") as advance:
            for queries in embedded_queries(jobs, embedder, limits):
                for outcome in _measure(index, queries, k):
                    measured.append(outcome)
                    advance()
        outcomes = _grouped(measured)
        points, left_out = _operating_points(outcomes, seed)
        if not points:
            raise _nothing_claimed(left_out)
        calibration = Calibration(
            statistic=STATISTIC,
            k=k,
            pairs=pairs.kind,
            source=pairs.source,
            seed=seed,
            pictures=len(_groups(outcomes)),
            queries=len(outcomes),
            chosen_on=sum(not is_held_out(seed, one.label.group) for one in outcomes),
            operating_points=tuple(points),
            left_out=tuple(left_out),
        )
        alarms = _worst(index, outcomes)
        thresholds = {one.name: one.threshold for one in points}
        own = self_matches(index.vectors, index.rows.starts, k, thresholds)
        progress.step("writing and verifying the version")
        manifest = seal_calibration(paths, index.manifest, calibration)
    return CalibrationReport(manifest, calibration, alarms, own, time.monotonic() - started)


def _check_size(index: GalleryIndex, k: int) -> None:
    if not 1 <= k <= LARGEST_K:
        raise SourceError(f"k must be 1 to {LARGEST_K}, got {k}")
    if index.size < k + 2:
        raise SourceError(
            f"index {index.name!r} has {index.size} entries: a margin at k = {k} needs {k + 2}, "
            "so that a competitor is left when the original is not there"
        )


def _check_pictures(groups: Sequence[str], seed: int) -> None:
    """Refuse before measuring what could not be claimed without a single false alarm."""
    known = set(groups) - {""}
    held_out = sum(is_held_out(seed, group) for group in known)
    # At most: groups only become fewer when files are seen, and those not known yet may fall
    # into either half.
    pictures = min(held_out, len(known) - held_out) + list(groups).count("")
    if pictures < min(map(trials_needed, TARGETS.values())):
        raise _nothing_claimed(
            [_too_few(*target, f"at most {pictures}") for target in TARGETS.items()]
        )


def _too_few(name: str, target: float, pictures: int | str) -> LeftOut:
    needed = trials_needed(target)
    reason = (
        f"{100 * target:g} % cannot be claimed with 95 % confidence from {pictures} pictures "
        f"a half, it takes {needed}: give {2 * needed + needed // 10} pictures or more"
    )
    return LeftOut(name, target, reason)


def _nothing_claimed(left_out: Sequence[LeftOut]) -> SourceError:
    reasons = "; ".join(f"{one.name}: {one.reason}" for one in left_out)
    return SourceError(f"no operating point can be claimed ({reasons}); nothing was changed")


def _operating_points(
    outcomes: list[_Outcome], seed: int
) -> tuple[list[OperatingPoint], list[LeftOut]]:
    """Choose each threshold on one half, measure it on the other, and keep what holds there."""
    if len(outcomes) > MOST_QUERIES:
        raise SourceError(f"at most {MOST_QUERIES} queries can be counted, got {len(outcomes)}")
    choosing = [one for one in outcomes if not is_held_out(seed, one.label.group)]
    measuring = [one for one in outcomes if is_held_out(seed, one.label.group)]
    found = [_operating_point(*target, choosing, measuring) for target in TARGETS.items()]
    points = [one for one in found if isinstance(one, OperatingPoint)]
    return points, [one for one in found if isinstance(one, LeftOut)]


def _operating_point(
    name: str, target: float, choosing: list[_Outcome], measuring: list[_Outcome]
) -> OperatingPoint | LeftOut:
    """One operating point, or why it cannot be claimed."""
    pictures = min(len(_groups(choosing)), len(_groups(measuring)))
    threshold = choose_threshold([one.alarm for one in choosing], target)
    if threshold is None or pictures < trials_needed(target):
        return _too_few(name, target, pictures)
    if not threshold < 1.0:
        reason = "wrong entries have margins up to 1: look for duplicates in the gallery"
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


def _grouped(outcomes: list[_Outcome]) -> list[_Outcome]:
    """The outcomes under the groups of their pictures, known once every file was seen."""
    labels = [one.label for one in outcomes]
    groups = merged_groups([one.group for one in labels], [one.pixels for one in labels])
    return [
        replace(one, label=replace(one.label, group=group))
        for one, group in zip(outcomes, groups, strict=True)
    ]


def _groups(outcomes: Iterable[_Outcome]) -> set[str]:
    return {one.label.group for one in outcomes}


def _count(outcomes: list[_Outcome], threshold: float) -> dict[str, Measured]:
    by_kind: dict[str, list[_Outcome]] = defaultdict(list)
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


def _worst(index: GalleryIndex, outcomes: list[_Outcome]) -> list[Alarm]:
    worst = sorted(outcomes, key=lambda one: -one.alarm)[:_SHOWN_ALARMS]
    entries = index.entries([one.alarm_entry for one in worst])
    return [
        Alarm(one.label.name, entry.id, one.alarm)
        for one, entry in zip(worst, entries, strict=True)
    ]


def _measure(index: GalleryIndex, queries: Sequence[Query], k: int) -> Iterator[_Outcome]:
    """The margins of a batch of queries, deeper where more candidates say more."""
    found: dict[int, _Outcome] = {}
    pending: list[int] = list(range(len(queries)))
    rows = index.vector_count
    for depth in (*(depth for depth in _DEPTHS if depth < rows), rows):
        if not pending:
            break
        vectors = np.stack([queries[i].vector for i in pending])
        for i, candidates in zip(pending, index.search(vectors, depth), strict=True):
            outcome = _outcome(index, queries[i], candidates, k, is_last=depth >= _DEPTHS[-1])
            if outcome is not None:
                found[i] = outcome
        pending = [i for i in pending if i not in found]
    yield from (found[i] for i in range(len(queries)))


def _outcome(
    index: GalleryIndex, query: Query, candidates: Candidates, k: int, *, is_last: bool
) -> _Outcome | None:
    """A query's margins, or None where more candidates are needed."""
    label = query.label
    if embedding_norm(query.vector).value == 0.0:
        return _Outcome(label, None if label.entry is None else 0.0, 0.0, 0)
    hit, is_tight = None, True
    without = candidates
    if label.entry is not None:
        is_own = candidates.numbers == label.entry
        hit = 0.0  # who is not even among the candidates has no positive margin
        if is_own.any():
            own = _margins(index, query, candidates, np.flatnonzero(is_own)[:1], k)
            hit = float(max(0.0, own.value[0]))
            is_tight = bool(own.seen[0] <= own.unseen[0])
        without = _without(index, candidates, is_own, label.entry)
    top, is_proved = _top(query.vector, without, k)
    others = _margins(index, query, without, top, k)
    is_tight &= bool((others.seen <= others.unseen).all())
    if not (is_proved and (is_tight or is_last)):
        return None
    worst = int(np.argmax(others.seen))
    alarm = float(np.clip(others.seen[worst], 0.0, 1.0))
    return _Outcome(label, hit, alarm, int(without.numbers[top[worst]]))


def _without(
    index: GalleryIndex, candidates: Candidates, is_own: np.ndarray, entry: int
) -> Candidates:
    """The same candidates of a gallery that has not this entry."""
    rows = index.rows.of_entries(np.array([entry])).size
    return replace(
        candidates,
        rows=candidates.rows[~is_own],
        vectors=np.asarray(candidates.vectors)[~is_own],
        items=None if candidates.items is None else candidates.items[~is_own],
        size=candidates.size - rows,
        item_count=candidates.items_in_gallery - 1,
    )


def _margins(
    index: GalleryIndex, query: Query, candidates: Candidates, positions: np.ndarray, k: int
) -> Margins:
    """Margins of the entries of some candidates, with every row of theirs."""
    if candidates.items is not None:
        own = index.of_items(candidates.items[positions])
        is_new = ~np.isin(own.rows, candidates.rows)
        candidates = replace(
            candidates,
            rows=np.concatenate((candidates.rows, own.rows[is_new])),
            items=np.concatenate((candidates.items, own.numbers[is_new])),
            vectors=np.concatenate((candidates.vectors, own.vectors[is_new])),
        )
    return measure_margins(query.vector, candidates, positions, k)


def _top(
    vector: Float64[np.ndarray, " D"], candidates: Candidates, k: int
) -> tuple[np.ndarray, bool]:
    """The best candidate of each of the k best entries; whether no unseen one is among the true.

    Nothing below rank k has a positive margin: k others stand before it.
    """
    ranking = rank_candidates(vector, candidates, k)
    return ranking.top, ranking.is_proved
