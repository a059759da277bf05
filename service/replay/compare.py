"""A recorded answer against the recomputed one, each member by the rule that a table gives it.

What rests on the embedding may differ by what 2 E makes of it; all else must be the same. Which
entries there are rests on similarities, which may move by a rounding: an entry with a radius is in
every honest answer, one without may have given its place to another that lies as near.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter

from service.replay.comparison import Comparison, Json, ResultComparison, Rule
from service.replay.recomputation import ROUNDING, Recomputation, Tolerances
from service.schemas.search import OLD_RECORDS, SearchAnswer, SearchResult, TrimmedAnswer
from service.work.answers import rms_8bit

_CLEAR = 1e3
"""Times the tolerance: from there on, rounding does not decide whether a radius is `exact`."""


def compare_answers(answer: SearchAnswer, record: Json, recomputation: Recomputation) -> Comparison:
    """What of a recorded answer does not hold.

    Args:
        answer: as it was recorded.
        record: the same as JSON has it, so that members which nobody asked for are seen.
        recomputation: the same question, asked now.
    """
    record_of = answer.audit.record if answer.audit is not None else ""
    later = OLD_RECORDS.get(record_of, frozenset[str]())
    comparison = Comparison(answer.results, recomputation, later)
    comparison.members("", record, recomputation.answer, ANSWER_RULES)
    return comparison


def _by(rules: Mapping[str, Rule]) -> Rule:
    return lambda c, path, recorded, recomputed: c.members(path, recorded, recomputed, rules)


def _unchecked(_c: Comparison, _path: str, _recorded: Any, _recomputed: Any) -> None:
    """Nothing can be held against it, or another rule or the whole list does."""


def _unless_null(rule: Rule) -> Rule:
    """The rule where both have the member, which is null in both or in none."""

    def compare(c: Any, path: str, recorded: Any, recomputed: Any) -> None:
        if recorded is None or recomputed is None:
            c.exact(path, recorded, recomputed)
        else:
            rule(c, path, recorded, recomputed)

    return compare


def _near(tolerance: Callable[[Tolerances], float]) -> Rule:
    return lambda c, path, recorded, recomputed: c.near(
        path, recorded, recomputed, tolerance(c.tolerances)
    )


def _rounded(c: Comparison, path: str, recorded: float, recomputed: float) -> None:
    """A library of linear algebra has rounded it."""
    c.near(path, recorded, recomputed, ROUNDING * recomputed)


def _radius(c: Comparison, path: str, recorded: float | None, recomputed: float | None) -> None:
    if c.is_whole:
        c.same_radius(path, recorded, recomputed)
    else:
        c.proved(path, recorded, recomputed, c.tolerances.radius)


def _vector(c: Comparison, path: str, recorded: list[float] | None, now: list[float]) -> None:
    if recorded is None or len(recorded) != len(now):
        c.say(f"{path} has another length")
    elif not math.dist(recorded, now) <= c.tolerances.embedding:
        c.say(f"{path} is another, by more than twice the forward error")


def _query(c: Comparison, path: str, recorded: Json, recomputed: Json) -> None:
    # Answers from before there was `truncated`, or `stale`, say by leaving it out that it is not.
    c.members(path, {"truncated": False, **recorded}, recomputed, QUERY_RULES)


def _certificate(c: Comparison, path: str, recorded: Json, recomputed: Json) -> None:
    _RADII(c, path, recorded, recomputed)
    order = recorded.get("order_radius")
    for name in ("set_radius", "top1_radius"):
        whole = recorded.get(name)
        if whole is not None and (order is None or order > whole):
            c.say(f"{path}.order_radius is above {name}: the order holds only while that does")


def _operating_point(c: Comparison, path: str, recorded: Json | None, recomputed: Any) -> None:
    c.exact(path, recorded and {"stale": False, **recorded}, recomputed)


def _trimmed(c: Comparison, path: str, recorded: Json, recomputed: Json) -> None:
    """The second answer, by the rules of the first and what its crop may differ by."""
    listed = TypeAdapter(list[SearchResult]).validate_python(recorded["results"] or [])
    crop = c.recomputation.trimmed or c.recomputation
    inside = Comparison(listed, crop, c.later, c.words, c.changes)
    inside.members(path, recorded, recomputed, TRIMMED_RULES)


def _results(c: Comparison, path: str, record: Sequence[Json], _recomputed: Any) -> None:
    recomputed = {result.id: result for result in c.recomputation.results}
    _check_list(c, path)
    for place, (recorded, members) in enumerate(zip(c.listed, record, strict=True)):
        name = f"{path}[{place}]"
        found = recomputed.get(recorded.id) or _outsider(c, name, recorded)
        if found is not None:
            pair = ResultComparison(**vars(c), recorded=recorded, recomputed=found)
            dump = found.model_dump(exclude_unset=True)
            pair.members(f"{name} ({recorded.id!r:.80})", members, dump, RESULT_RULES)
    listed = {recorded.id for recorded in c.listed}
    for item_id, result in recomputed.items():
        if item_id not in listed and not _may_be_missing(c, result):
            c.say(f"{item_id!r:.80} belongs in the answer and was not in it")


def _check_list(c: Comparison, path: str) -> None:
    """What must hold of the list as it stands, whatever is recomputed."""
    results, options, say = c.listed, c.recomputation.options, c.say
    if len({result.id for result in results}) != len(results):
        say("an entry is in the answer twice")
    if len(results) > options.k:
        say(f"there are {len(results)} results, and k was {options.k}")
    for place, result in enumerate(results):
        name = f"{path}[{place}]"
        c.exact(f"{name}.rank", result.rank, place + 1)
        c.near(f"{name}.distance", result.distance, 1 - result.similarity, ROUNDING)
        if options.max_distance is not None and not result.distance <= options.max_distance:
            say(f"{name}.distance is above max_distance")
    for place, (a, b) in enumerate(pairwise(results)):
        if not a.similarity >= b.similarity:
            say(f"{path}[{place + 1}] is nearer than the one before")


def _outsider(c: Comparison, name: str, recorded: SearchResult) -> SearchResult | None:
    """The entry of a result that is not in the recomputed answer, if it may be in another."""
    options, results, say = c.recomputation.options, c.recomputation.results, c.say
    found, item_id = c.recomputation.outsider(recorded.id), f"{recorded.id!r:.80}"
    if found is None:
        say(f"{name}.id: {item_id} is not in the answer, nor in the index")
        return None
    if recorded.certified_radius != 0.0:
        say(f"{name}: {item_id} had a radius and is not in the answer any more")
        return None
    is_beyond = options.max_distance is not None and found.distance > options.max_distance
    is_tie = len(results) >= options.k and _reaches(c, found, results[-1])
    if not is_beyond and not is_tie:
        say(f"{name}: {item_id} is farther than what belongs in the answer")
        return None
    return found


def _may_be_missing(c: Comparison, result: SearchResult) -> bool:
    """Whether an honest answer may lack this one: it was promised nothing, and lies at the edge."""
    options, recorded = c.recomputation.options, c.listed
    if result.certified_radius != 0.0:
        return False
    limit, cosine = options.max_distance, c.tolerances.cosine
    is_at_limit = limit is not None and result.distance > limit - cosine
    return is_at_limit or (len(recorded) == options.k and _reaches(c, recorded[-1], result))


def _reaches(c: Comparison, a: SearchResult, b: SearchResult) -> bool:
    return a.similarity >= b.similarity - 2.0 * c.tolerances.cosine


def _certified(c: ResultComparison, path: str, recorded: bool, _recomputed: Any) -> None:
    radius, epsilon = c.recorded.certified_radius, c.recomputation.options.epsilon or 0.0
    c.exact(path, recorded, radius is None or epsilon < radius)


def _view(c: ResultComparison, path: str, recorded: str, recomputed: str) -> None:
    """A view that lies as near as the nearest, but for what 2 E makes of it."""
    nearest = c.recomputed.similarity - 2.0 * c.tolerances.cosine
    if (
        recorded != recomputed
        and not c.recomputation.similarity(c.recorded.id, recorded) >= nearest
    ):
        c.differ(path, recorded, recomputed)


def _exactness(c: ResultComparison, path: str, recorded: bool, recomputed: bool) -> None:
    clear = _CLEAR * c.tolerances.radius
    radii = c.recorded.certified_radius, c.recomputed.certified_radius
    is_clear = all(radius is None or radius > clear for radius in radii)
    if is_clear and recorded != recomputed and c.is_whole:
        c.differ(path, recorded, recomputed)


def _rms_8bit(c: ResultComparison, path: str, recorded: float | None, _recomputed: Any) -> None:
    """It says the recorded radius in another unit."""
    embedding, radius = c.recomputation.query.embedded, c.recorded.certified_radius
    if recorded is None or radius is None:
        c.exact(path, recorded, radius)
        return
    implied = float(rms_8bit(radius, 3 * embedding.height * embedding.width))
    c.near(path, recorded, implied, ROUNDING * implied)


def _margin(
    c: ResultComparison, path: str, recorded: float | None, recomputed: float | None
) -> None:
    """What the recomputed one proves, or is; as a radius, no more than the recorded one.

    In a metric without scales it is the recorded radius in another unit.
    """
    radius = c.recorded.certified_radius
    if recorded is not None and recomputed is not None:
        check = c.near if c.recomputation.saw_everything else c.proved
        check(path, recorded, recomputed, c.tolerances.margin(recomputed))
    if (recorded is None) != (radius is None):
        c.differ(path, recorded, recomputed)
    elif recorded is not None and radius is not None:
        norm, error, scale = c.tolerances.norm, c.tolerances.forward_error, c.tolerances.scale
        implied = max(0.0, min(recorded * norm, norm - 2.0 * error)) / scale
        slack = c.tolerances.radius + 2.0 * ROUNDING * (norm / scale + implied)
        is_isotropic = c.tolerances.least_scale == scale
        if implied > c.recomputation.trim_radius:  # The box limits the radius, and no margin.
            is_whole = c.is_whole if is_isotropic else c.recomputation.saw_everything
            if is_whole and recomputed is not None:
                c.near(path, recorded, recomputed, c.tolerances.margin(recomputed))
        elif is_isotropic:
            c.near(f"{path}, as a radius,", implied, radius, slack)
        elif implied > radius + slack:
            c.say(f"{path} would be a radius of {implied}, above the recorded {radius}")


def _match(c: ResultComparison, path: str, recorded: bool | None, recomputed: bool | None) -> None:
    """The verdict; null where no operating point was asked for."""
    point, weight = c.recomputation.answer["operating_point"], c.recomputation.cosine_weight
    tolerance, value = c.tolerances.match_radius(weight), c.recorded.match_statistic
    if "match_statistic" in c.later:  # It was the margin.
        value = c.recorded.match_margin
    elif value is not None and weight == 0.0 and value != c.recorded.match_margin:
        c.say(f"{path} rests on a match_statistic that is not match_margin, without a cosine in it")
    if recorded is not None and value is not None and point is not None:
        is_in = weight == 0.0 or c.recorded.rank <= point["k"]
        follows = is_in and value >= point["threshold"]
        # With a filter the rank is that among what matches, and the verdict's may be a worse one.
        by_rank = weight > 0.0 and c.recomputation.part is not None
        if recorded != follows and not (by_rank and follows):
            c.say(f"{path} does not follow from match_statistic, the threshold and the rank")
        radii = c.recorded.match_radius, c.recomputed.match_radius
        if all(radius is not None and radius <= tolerance for radius in radii):
            return  # Nothing was promised about it.
    if recorded != recomputed:
        c.differ(path, recorded, recomputed)


def _judged(
    tolerance: Callable[[Tolerances, float], float],
    weight_of: Callable[[Recomputation], float] = lambda recomputation: recomputation.cosine_weight,
    *,
    is_signed: bool = False,
) -> Rule:
    """Of a number that `match` rests on.

    `tolerance` takes the weight of the cosine in it, which `weight_of` gives; with a cosine in it
    a number that `is_signed` may be negative.
    """

    def compare(
        c: ResultComparison, path: str, recorded: float | None, recomputed: float | None
    ) -> None:
        weight = weight_of(c.recomputation)
        allowed = tolerance(c.tolerances, weight)
        if (recorded is None) != (recomputed is None):
            c.differ(path, recorded, recomputed)
        elif not c.recomputation.judged_everything:
            least = -4.0 * weight if is_signed else 0.0
            c.proved(path, recorded, recomputed, allowed, least=least)
        elif recorded is not None and recomputed is not None:
            c.near(path, recorded, recomputed, allowed + ROUNDING * abs(recomputed))

    return compare


QUERY_RULES: Mapping[str, Rule] = {
    "gain": _rounded,
    "embedding_norm": _near(lambda t: t.embedding),
    "vector": _vector,
}
_RADII = _by(dict.fromkeys(("top1_radius", "set_radius", "order_radius"), _radius))
ANSWER_RULES: Mapping[str, Rule] = {
    "query": _query,
    "index": Comparison.exact,
    "model": _by({"forward_error": _rounded}),
    "operating_point": _operating_point,
    "results": _results,
    "certificate": _certificate,
    "trimmed": _unless_null(_trimmed),
    "timings_ms": _unchecked,
    # Other versions that decode to the very same pixels are as good.
    "audit": _by({"decoders": _unchecked, "record": _unchecked}),
}
TRIMMED_RULES: Mapping[str, Rule] = {
    "box": Comparison.exact,
    "trim_radius": Comparison.exact,
    "results": _unless_null(_results),
    "certificate": _unless_null(_certificate),
}
RESULT_RULES: Mapping[str, Rule] = {
    "rank": _unchecked,  # Its place in the list is.
    "id": Comparison.exact,
    "view": _view,
    "distance": _near(lambda t: t.cosine),
    "similarity": _near(lambda t: t.cosine),
    "certified_radius": _radius,
    "certified_rms_8bit": _rms_8bit,
    "margin": _margin,
    "match": _match,
    "match_margin": _judged(Tolerances.statistic, lambda _: 0.0),
    "match_statistic": _judged(Tolerances.statistic, is_signed=True),
    "match_radius": _judged(Tolerances.match_radius),
    "exact": _exactness,
    "duplicates": Comparison.exact,
    "thumbnail": Comparison.exact,
    "certified": _certified,
    "metadata": Comparison.exact,
}
for _rules, _model in (
    (ANSWER_RULES, SearchAnswer),
    (TRIMMED_RULES, TrimmedAnswer),
    (RESULT_RULES, SearchResult),
):
    if _odd := _rules.keys() ^ _model.model_fields.keys():
        raise TypeError(
            f"each member of {_model.__name__} needs a rule, and nothing else: {', '.join(_odd)}"
        )
