"""An answer then and now: what may differ, by how much, and what does."""

import math
from collections.abc import Mapping, Sequence
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
            norm: of the embedding as repeated.
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


class Changes:
    """What of an answer does not agree, in words, and the largest change of a radius."""

    def __init__(self, tolerances: Tolerances) -> None:
        """With what may differ."""
        self.words: list[str] = []
        self.largest = 0.0
        self.tolerances = tolerances

    def say(self, words: str) -> None:
        """Note what does not hold."""
        self.words.append(words)

    def differ(self, name: str, then: object, now: object) -> None:
        """Note a member that is another."""
        self.say(f"{name} was {then!r:.200} and is {now!r:.200}")

    def exact(self, name: str, then: object, now: object) -> None:
        """The two must be the same, JSON for JSON; the member that is not is named."""
        if _is_object(then) and _is_object(now):
            for member in self.members(name, then, now):
                self.exact(f"{name}.{member}", then[member], now[member])
        elif not _is_same(then, now):
            self.differ(name, then, now)

    def members(self, name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
        """Both must have the same members; gives those that both have."""
        for member in sorted(now.keys() - then.keys()):
            self.say(f"{name} has no {member!r:.80}")
        for member in sorted(then.keys() - now.keys()):
            self.say(f"{name} has {member!r:.80}, which nobody asked for")
        return [member for member in now if member in then]

    def near(self, name: str, then: float, now: float, tolerance: float) -> None:
        """The two must agree to a tolerance; NaN never does."""
        if not abs(then - now) <= tolerance:
            self.differ(name, then, now)

    def same_radius(self, name: str, then: float | None, now: float | None) -> None:
        """The two must agree to what a radius may differ by."""
        if then is None or now is None:
            if then is not now:
                self.differ(name, then, now)
            return
        self.largest = max(self.largest, abs(then - now))
        self.near(name, then, now, self.tolerances.radius + ROUNDING * abs(now))

    def proved(self, name: str, then: float | None, now: float | None, tolerance: float) -> None:
        """What was claimed must be proved now too; more may be, since now all was looked at."""
        if then is not None and not then >= 0.0:
            self.differ(name, then, now)
        elif now is not None and (then is None or not then - now <= tolerance + ROUNDING * now):
            self.say(f"{name} was {then!r}, and {now!r} is all that is proved")


def _is_same(then: object, now: object) -> bool:
    """Whether two values are the same in JSON, where true is not 1, but 1 is 1.0."""
    if _is_object(then) and _is_object(now):
        return then.keys() == now.keys() and all(_is_same(then[name], now[name]) for name in now)
    if _is_list(then) and _is_list(now):
        return len(then) == len(now) and all(map(_is_same, then, now))
    return isinstance(then, bool) == isinstance(now, bool) and then == now


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
