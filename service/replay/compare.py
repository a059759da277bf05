"""Everything of an answer that can be computed again, each member by the rule that is right for it.

What rests on the embedding may differ by what 2 E makes of it; all else must be the same.
"""

import math
from collections.abc import Mapping
from typing import Any

from service.replay.changes import ROUNDING, Changes
from service.replay.repeated import Repeated
from service.replay.results import compare_results

_RADII = ("top1_radius", "set_radius", "order_radius")


def compare_answers(then: Mapping[str, Any], again: Repeated) -> Changes:
    """What of a recorded answer does not hold.

    Args:
        then: the answer, of the right shape: `read_answer` has looked at it.
        again: the same question, asked now.
    """
    changes, now = Changes(again.tolerances), again.answer
    changes.members("the answer", then, now)
    # Answers from before there was `truncated`, or `stale`, say by leaving it out that it is not.
    _compare_query({"truncated": False, **then["query"]}, now["query"], changes)
    changes.exact("index", then["index"], now["index"])
    _compare_numbers("model", then["model"], now["model"], ("forward_error",), changes)
    point = then["operating_point"] and {"stale": False, **then["operating_point"]}
    changes.exact("operating_point", point, now["operating_point"])
    compare_results(then["results"], again, changes)
    _compare_certificate(then["certificate"], again, changes)
    # Other versions that decode to the very same pixels are as good; the caller names them.
    same = {"decoders": then["audit"]["decoders"]}
    changes.exact("audit", then["audit"], {**now["audit"], **same})
    return changes


def _compare_query(then: Mapping[str, Any], now: Mapping[str, Any], changes: Changes) -> None:
    rest = {name: value for name, value in now.items() if name not in ("vector", "embedding_norm")}
    resting = {name: value for name, value in then.items() if name in rest}
    changes.members("query", then, now)
    _compare_numbers("query", resting, rest, ("gain",), changes)
    apart = changes.tolerances.embedding
    changes.near("query.embedding_norm", then["embedding_norm"], now["embedding_norm"], apart)
    if "vector" not in then or "vector" not in now:
        return
    if then["vector"] is None:
        changes.differ("query.vector", None, now["vector"])
    elif len(then["vector"]) != len(now["vector"]):
        changes.differ("query.vector: its length", len(then["vector"]), len(now["vector"]))
    elif not math.dist(then["vector"], now["vector"]) <= apart:
        changes.say("query.vector is another, by more than twice the forward error")


def _compare_numbers(
    name: str,
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    rounded: tuple[str, ...],
    changes: Changes,
) -> None:
    """All members exactly, but for those that a library of linear algebra has rounded."""
    for member in changes.members(name, then, now):
        path, old, new = f"{name}.{member}", then[member], now[member]
        if member in rounded:
            changes.near(path, old, new, ROUNDING * new)
        else:
            changes.exact(path, old, new)


def _compare_certificate(then: Mapping[str, Any], again: Repeated, changes: Changes) -> None:
    now = again.answer["certificate"]
    for member in changes.members("certificate", then, now):
        path, old, new = f"certificate.{member}", then[member], now[member]
        if member not in _RADII:
            changes.exact(path, old, new)
        elif again.saw_everything:
            changes.same_radius(path, old, new)
        else:
            changes.proved(path, old, new, changes.tolerances.radius)
