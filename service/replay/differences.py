"""A recorded answer and a recomputed one: how far they may lie apart, and what of them does."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

ROUNDING = 1e-12
"""Relative, of a handful of float64 operations on the way from an embedding to a number."""

_SINE_ROUNDING = 1e-9
"""Of a match margin: planes between very close rows are computed less well."""


@dataclass(frozen=True)
class Tolerances:
    """How far honest numbers may lie apart.

    Two computed embeddings of one image lie within E of the real one each, so within 2 E of one
    another; each tolerance is what that makes of a number.

    Attributes:
        embedding: l2 distance of the embeddings, and difference of their norms.
        turn: angle between them; inf where one may be zero.
        cosine: difference of a similarity or distance.
        radius: of a radius, in uploaded pixels.
        match_radius: of a verdict's radius, which is computed less well.
    """

    embedding: float
    turn: float
    cosine: float
    radius: float
    match_radius: float

    @classmethod
    def of(
        cls, *, norm: float, forward_error: float, scale: float, norm_deviation: float
    ) -> "Tolerances":
        """Those of one query.

        Args:
            norm: of the embedding as recomputed.
            forward_error: E.
            scale: Lipschitz bound times gain: how far an embedding moves per pixel change.
            norm_deviation: bound on | |f| - 1 | over the gallery.
        """
        apart = 2.0 * forward_error
        # sin(turn) <= apart / norm of either, and x / (1 - x) is above arcsin(x).
        turn = apart / (norm - apart) if norm > apart else math.inf
        cosine = min(2.0, turn * (1.0 + norm_deviation)) + ROUNDING
        return cls(
            embedding=apart + ROUNDING * norm,
            turn=turn,
            cosine=cosine,
            radius=apart / scale,
            match_radius=(apart + _SINE_ROUNDING * norm) / scale,
        )

    def margin(self, margin: float) -> float:
        """Of a margin: a radius in embedding space over the norm, both of which may move."""
        return (1.0 + margin) * self.turn + ROUNDING

    @property
    def sine(self) -> float:
        """Of a match margin, which is the sine of an angle."""
        return self.turn + _SINE_ROUNDING


class Differences:
    """What of an answer does not hold, in words, and the largest change of a radius."""

    def __init__(self, tolerances: Tolerances) -> None:
        self.words: list[str] = []
        self.largest = 0.0
        self.tolerances = tolerances

    def say(self, words: str) -> None:
        self.words.append(words)

    def differ(self, path: str, recorded: object, recomputed: object) -> None:
        self.say(f"{path} was {recorded!r:.200} and is {recomputed!r:.200}")

    def exact(self, path: str, recorded: object, recomputed: object) -> None:
        """The two must be the same, JSON for JSON; the member that is not is named."""
        if _is_object(recorded) and _is_object(recomputed):
            for member in self.members(path, recorded, recomputed):
                self.exact(f"{path}.{member}", recorded[member], recomputed[member])
        elif not _is_same(recorded, recomputed):
            self.differ(path, recorded, recomputed)

    def members(
        self, path: str, recorded: Collection[str], recomputed: Collection[str]
    ) -> list[str]:
        """Both must have the same members; gives those that both have."""
        for member in sorted(set(recomputed) - set(recorded)):
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
        self.largest = max(self.largest, abs(recorded - recomputed))
        tolerance = self.tolerances.radius + ROUNDING * abs(recomputed)
        self.near(path, recorded, recomputed, tolerance)

    def proved(
        self, path: str, recorded: float | None, recomputed: float | None, tolerance: float
    ) -> None:
        """What was claimed must be proved now too; more may be, since now all was looked at."""
        if recorded is not None and not recorded >= 0.0:
            self.differ(path, recorded, recomputed)
        elif recomputed is not None and (
            recorded is None or not recorded - recomputed <= tolerance + ROUNDING * recomputed
        ):
            self.say(f"{path} was {recorded!r}, and {recomputed!r} is all that is proved")


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
