"""Comparing a recorded answer with the recomputed one: what with, and what was said of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from service.replay.recomputation import ROUNDING, Recomputation, Tolerances
from service.schemas.search import SearchResult

Json = Mapping[str, Any]
Rule = Callable[[Any, str, Any, Any], None]
"""Takes the comparison, the path of a member, and its values as recorded and as recomputed."""


@dataclass(frozen=True)
class Comparison:
    """An answer that is compared.

    Attributes:
        listed: its results, as they were recorded.
        recomputation: the same question, asked now.
        later: members that the record has not, as one of an earlier release.
        words: what does not hold.
        changes: of each radius that was compared, in uploaded pixels.
    """

    listed: Sequence[SearchResult]
    recomputation: Recomputation
    later: frozenset[str]
    words: list[str] = field(default_factory=list[str])
    changes: list[float] = field(default_factory=list[float])

    @property
    def tolerances(self) -> Tolerances:
        return self.recomputation.tolerances

    @property
    def is_whole(self) -> bool:
        """Whether no radius was cut short by entries that were not looked at."""
        return self.recomputation.saw_everything

    def members(
        self, path: str, recorded: Json, recomputed: Json, rules: Mapping[str, Rule]
    ) -> None:
        """Each member by its rule; exactly where the table has none."""
        for member in self.common(path or "the answer", recorded, recomputed):
            rule = rules.get(member, Comparison.exact)
            rule(self, f"{path}.{member}" if path else member, recorded[member], recomputed[member])

    def say(self, words: str) -> None:
        self.words.append(words)

    def differ(self, path: str, recorded: object, recomputed: object) -> None:
        self.say(f"{path} was {recorded!r:.200} and is {recomputed!r:.200}")

    def exact(self, path: str, recorded: object, recomputed: object) -> None:
        """The two must be the same, JSON for JSON; the member that is not is named."""
        if _is_object(recorded) and _is_object(recomputed):
            for member in self.common(path, recorded, recomputed):
                self.exact(f"{path}.{member}", recorded[member], recomputed[member])
        elif not _is_same(recorded, recomputed):
            self.differ(path, recorded, recomputed)

    def common(
        self, path: str, recorded: Collection[str], recomputed: Collection[str]
    ) -> list[str]:
        """Both must have the same members; gives those that both have."""
        for member in sorted(set(recomputed) - set(recorded) - self.later):
            self.say(f"{path} has no {member!r:.80}")
        for member in sorted(set(recorded) - set(recomputed)):
            self.say(f"{path} has {member!r:.80}, which nobody asked for")
        return [member for member in recomputed if member in recorded]

    def near(self, path: str, recorded: float, recomputed: float, tolerance: float) -> None:
        """The two must agree to a tolerance; NaN never does."""
        if not abs(recorded - recomputed) <= tolerance:
            self.differ(path, recorded, recomputed)

    def same_radius(self, path: str, recorded: float | None, recomputed: float | None) -> None:
        """The two must agree to what a radius may differ by."""
        if recorded is None or recomputed is None:
            if recorded is not recomputed:
                self.differ(path, recorded, recomputed)
            return
        self.changes.append(abs(recorded - recomputed))
        tolerance = self.tolerances.radius + ROUNDING * abs(recomputed)
        self.near(path, recorded, recomputed, tolerance)

    def proved(
        self,
        path: str,
        recorded: float | None,
        recomputed: float | None,
        tolerance: float,
        least: float = 0.0,
    ) -> None:
        """What was claimed must be proved now too; more may be, since now all was looked at."""
        if recorded is not None and not recorded >= least:
            self.differ(path, recorded, recomputed)
        elif recomputed is not None and (
            recorded is None or not recorded - recomputed <= tolerance + ROUNDING * abs(recomputed)
        ):
            self.say(f"{path} was {recorded!r}, and {recomputed!r} is all that is proved")


@dataclass(frozen=True)
class ResultComparison(Comparison):
    """One entry that is in both answers; what does not hold is noted with the answer's."""

    recorded: SearchResult = field(kw_only=True)
    recomputed: SearchResult = field(kw_only=True)

    @property
    def is_whole(self) -> bool:
        """Likewise; also for `require_exact`, and of a radius that says so."""
        asked = self.recomputation.options.require_exact
        return self.recorded.exact or asked or self.recomputation.saw_everything


def _is_same(one: object, other: object) -> bool:
    """Whether two values are the same in JSON, where true is not 1, but 1 is 1.0."""
    if _is_object(one) and _is_object(other):
        return one.keys() == other.keys() and all(_is_same(one[name], other[name]) for name in one)
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
