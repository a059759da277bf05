"""The results of an answer, then and now.

Which entries there are rests on similarities, which may move by a rounding: an entry with a radius
is in every honest answer, one without may have given its place to another that lies as near.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from service.replay.changes import ROUNDING, Changes
from service.replay.repeated import Repeated
from service.work.answers import rms_8bit

_CLEAR = 1e3
"""Times the tolerance: from there on, rounding does not decide whether a radius is `exact`."""

Result = Mapping[str, Any]


def compare_results(then: Sequence[Result], again: Repeated, changes: Changes) -> None:
    """Note every result that is not the one of a repeated answer, missing and surplus ones too."""
    now = {result["id"]: result for result in again.answer["results"]}
    _check_list(then, again, changes)
    for place, result in enumerate(then):
        name = f"results[{place}]"
        changes.exact(f"{name}.rank", result["rank"], place + 1)
        other = now.get(result["id"]) or _outsider(name, result, again, changes)
        if other is not None:
            _compare(f"{name} ({result['id']!r:.80})", result, other, again, changes)
    listed = {result["id"] for result in then}
    for item_id, result in now.items():
        if item_id not in listed and not _may_be_missing(result, then, again, changes):
            changes.say(f"{item_id!r:.80} belongs in the answer and was not in it")


def _check_list(then: Sequence[Result], again: Repeated, changes: Changes) -> None:
    """What must hold of the list as it stands, whatever the numbers are."""
    ids = [result["id"] for result in then]
    if len(set(ids)) != len(ids):
        changes.say("an entry is in the answer twice")
    if len(ids) > again.options.k:
        changes.say(f"there are {len(ids)} results, and k was {again.options.k}")
    for place, (a, b) in enumerate(pairwise(then)):
        if not a["similarity"] >= b["similarity"]:
            changes.say(f"results[{place + 1}] is nearer than the one before")
    limit = again.options.max_distance
    for place, result in enumerate(then):
        if limit is not None and not result["distance"] <= limit:
            changes.say(f"results[{place}].distance is above max_distance")


def _outsider(name: str, then: Result, again: Repeated, changes: Changes) -> Result | None:
    """The entry of a result that is not in the repeated answer, if it may be in another."""
    item_id = then["id"]
    other = again.outsider(item_id)
    if other is None:
        changes.say(f"{name}.id: {item_id!r:.80} is not in the answer, nor in the index")
        return None
    if then["certified_radius"] != 0.0:
        changes.say(f"{name}: {item_id!r:.80} had a radius and is not in the answer any more")
        return None
    limit, now = again.options.max_distance, again.answer["results"]
    is_beyond = limit is not None and other["distance"] > limit
    is_tie = len(now) >= again.options.k and _reaches(other, now[-1], changes)
    if not is_beyond and not is_tie:
        changes.say(f"{name}: {item_id!r:.80} is farther than what belongs in the answer")
        return None
    return other


def _may_be_missing(now: Result, then: Sequence[Result], again: Repeated, changes: Changes) -> bool:
    """Whether an honest answer may lack this one: it was promised nothing, and lies at the edge."""
    if now["certified_radius"] != 0.0:
        return False
    limit = again.options.max_distance
    is_at_limit = limit is not None and now["distance"] > limit - changes.tolerances.cosine
    return is_at_limit or (len(then) == again.options.k and _reaches(then[-1], now, changes))


def _reaches(a: Result, b: Result, changes: Changes) -> bool:
    return a["similarity"] >= b["similarity"] - 2.0 * changes.tolerances.cosine


def _compare(name: str, then: Result, now: Result, again: Repeated, changes: Changes) -> None:
    """One result against the same entry's."""
    cosine = changes.tolerances.cosine
    for member in changes.members(name, then, now):
        path, old, new = f"{name}.{member}", then[member], now[member]
        match member:
            case "id" | "duplicates" | "metadata":
                changes.exact(path, old, new)
            case "similarity" | "distance":
                changes.near(path, old, new, cosine)
            case "certified":
                radius, epsilon = then["certified_radius"], again.options.epsilon
                changes.exact(path, old, radius is None or (epsilon or 0.0) < radius)
            case _:  # The rank was checked; the others hang together.
                pass
    changes.near(f"{name}.distance", then["distance"], 1.0 - then["similarity"], ROUNDING)
    _compare_radius(name, then, now, again, changes)
    _compare_verdict(name, then, now, again, changes)


def _compare_radius(
    name: str, then: Result, now: Result, again: Repeated, changes: Changes
) -> None:
    """The radius, and what says the same in other units."""
    path, old, new = f"{name}.certified_radius", then["certified_radius"], now["certified_radius"]
    # Of so small a gallery, or for `require_exact`, all entries were looked at unless it is exact.
    is_whole = again.saw_everything or again.options.require_exact
    if then["exact"] or is_whole:
        changes.same_radius(path, old, new)
    else:
        changes.proved(path, old, new, changes.tolerances.radius)
    clear = _CLEAR * changes.tolerances.radius
    is_clear = (old is None or old > clear) and (new is None or new > clear)
    if is_clear and then["exact"] != now["exact"] and (then["exact"] or is_whole):
        changes.differ(f"{name}.exact", then["exact"], now["exact"])
    values = 3 * again.query.embedding.height * again.query.embedding.width
    _follows(
        f"{name}.certified_rms_8bit",
        then["certified_rms_8bit"],
        None if old is None else rms_8bit(old, values),
        changes,
    )
    _compare_margin(name, then, now, again, changes)


def _compare_margin(
    name: str, then: Result, now: Result, again: Repeated, changes: Changes
) -> None:
    """The margin: what the repeated one proves, and the recorded radius in another unit."""
    path, old, new = f"{name}.margin", then["margin"], now["margin"]
    if old is not None and new is not None:
        changes.proved(path, old, new, changes.tolerances.margin(new))
    norm, error = again.query.norm, again.query.embedding.forward_error
    told = None
    if old is not None:
        told = max(0.0, min(old * norm, norm - 2.0 * error)) / again.scale
    radius = then["certified_radius"]
    if (told is None) != (radius is None):
        changes.differ(path, old, new)
    elif told is not None:
        slack = changes.tolerances.radius + 2.0 * ROUNDING * (norm / again.scale + told)
        changes.near(f"{path}, as a radius,", told, radius, slack)


def _compare_verdict(
    name: str, then: Result, now: Result, again: Repeated, changes: Changes
) -> None:
    """`match` and what it rests on; all null where no operating point was asked for."""
    for member in ("match", "match_margin", "match_radius"):
        if (then[member] is None) != (now[member] is None):
            changes.differ(f"{name}.{member}", then[member], now[member])
            return
    point = again.answer["operating_point"]
    if point is None:
        return
    if then["match"] != (then["match_margin"] >= point["threshold"]):
        changes.say(f"{name}.match does not follow from match_margin and the threshold")
    sine, radius = changes.tolerances.sine, changes.tolerances.match_radius
    may_flip = all(result["match_radius"] is not None for result in (then, now)) and (
        max(then["match_radius"], now["match_radius"]) <= radius
    )
    if then["match"] != now["match"] and not may_flip:
        changes.differ(f"{name}.match", then["match"], now["match"])
        return
    for member, tolerance in (("match_margin", sine), ("match_radius", radius)):
        path, old, new = f"{name}.{member}", then[member], now[member]
        if not again.saw_everything:
            changes.proved(path, old, new, tolerance)
        elif old is not None:
            changes.near(path, old, new, tolerance + ROUNDING * new)


def _follows(name: str, then: float | None, told: float | None, changes: Changes) -> None:
    """A number must be the one that follows from another of the same answer."""
    if then is None or told is None:
        changes.exact(name, then, told)
    else:
        changes.near(name, then, told, ROUNDING * told)
