"""From a radius to tolerances: how far each family of edits provably leaves a statement alone.

A statement is anything that comes with a strict radius: an entry is in the answer, the first result
stays, a verdict stands. The picture itself is the first *center*: the statement holds for every
picture whose l2 distance from a center is below the radius it has there. With a `chain` further
centers are embedded: members of the family, each made from the picture itself, for which the same
statement came out with a radius of its own.

Of a family by tables, two neighbouring members must be within one and the same center's radius for
the range to go on from one to the other. Every table between theirs is then within it too, so the
claim holds for every parameter of the range, not for those alone that were looked at.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from model.pixels.tolerances.pictures import PICTURE_FAMILIES, PictureFamily, is_measurable
from model.pixels.tolerances.tables import (
    TABLE_FAMILIES,
    Table,
    TableFamily,
    count_values,
    largest_square,
    squared_distance,
    squared_pixel_distance,
)

FAMILIES = (*TABLE_FAMILIES, *PICTURE_FAMILIES)

RadiusOf = Callable[[UInt8[np.ndarray, "H W 3"], Table | None], float]
"""A picture, and a table to look its values up in first, to the strict radius with which the same
statement holds for it; 0 where it does not, or nothing is proved."""

How = Literal["exact", "every member", "chain"]

# How near the edge of a radius the next center is looked for, as a share of that radius; what it
# has of its own there must reach back.
_FAR = 0.9
_DECIMALS = 1e4
# More than two programs' powers may differ by.
_SAFETY = 1.0 - 1e-9


@dataclass(frozen=True)
class Tolerance:
    """The members of a family for which the statement provably holds: a range of its parameter.

    Attributes:
        low: its smallest parameter, rounded inwards; None: there is none.
        high: its largest; None with `low`.
        unit: what the parameter is.
        how: "exact": all that the radius proves; "every member": so many were looked at one by one;
            "chain": with the radii of further centers.
        is_complete: false where the time was up, or the picture too large to be looked at.
        passes: centers that were embedded for it.
        reason: why it was not looked at, "too_large"; None: it was.
    """

    low: int | float | None
    high: int | float | None
    unit: str
    how: How
    is_complete: bool
    passes: int = 0
    reason: Literal["too_large"] | None = None


@dataclass
class End:
    """How far one side of a family has been proved.

    Attributes:
        at: the last member: its place among the parameters of a family by tables, its parameter in
            one of pictures; None: no member.
        center: the last center's place or parameter; None: the picture itself.
        limit: squared distance within which a member belongs to that center.
        passes: centers that were embedded.
        is_complete: nothing was left to look at, or to pass.
    """

    at: int | None = None
    center: int | None = None
    limit: float = -1.0
    passes: int = 0
    is_complete: bool = False


class Measurement:
    """The tolerances of one picture, measured bit by bit.

    Args:
        pixels: the decoded picture, (H, W, 3), uint8.
        radius: strict radius of the statement for it, l2 in [0, 1] units; inf: nothing can
            change it.
        families: names, of FAMILIES.
        chain: passes of the network that may be spent on further centers, shared out evenly among
            the families: tables would have used all before the first picture is outside.
        radius_of: embeds and asks.
        cpu_s: CPU seconds of the calling thread that may be spent, looked at between members.

    Attributes:
        spent_s: CPU seconds that were.
        ends: of each side looked at, by family and direction (1 or -1).
    """

    def __init__(
        self,
        pixels: UInt8[np.ndarray, "H W 3"],
        radius: float,
        families: Sequence[str],
        *,
        chain: int,
        radius_of: RadiusOf,
        cpu_s: float,
    ) -> None:
        self.spent_s = 0.0
        self.ends: dict[tuple[str, int], End] = {}
        self._pixels, self._limit = pixels, largest_square(radius)
        self._families, self._radius_of = families, radius_of
        self._cpu_s = cpu_s
        each, more = divmod(chain, max(1, len(families)))
        self._passes = {name: each + (place < more) for place, name in enumerate(families)}
        self._walks: deque[Iterator[None]] = deque()
        begun = time.thread_time()
        self._counts = count_values(pixels)
        for name in families if self._limit >= 0 else ():
            self._begin(name)
        self.spent_s += time.thread_time() - begun

    def go_on(self, seconds: float) -> bool:
        """Measure for about so many seconds more; gives whether all is done."""
        end = time.perf_counter() + seconds
        while self._walks and time.perf_counter() < end:
            if self.spent_s >= self._cpu_s:
                self._walks.clear()
                break
            begun = time.thread_time()
            walk = self._walks.popleft()  # In turns, so that no family takes all the time.
            if next(walk, self) is not self:
                self._walks.append(walk)
            self.spent_s += time.thread_time() - begun
        return not self._walks

    @property
    def passes(self) -> int:
        """Centers that were embedded so far."""
        return sum(end.passes for end in self.ends.values())

    def tolerances(self) -> dict[str, Tolerance]:
        """What is proved by now, by family."""
        return {name: self._tolerance(name) for name in self._families}

    def _begin(self, name: str) -> None:
        if name in TABLE_FAMILIES:
            for step in (-1, 1):
                end = self.ends[name, step] = End(limit=self._limit)
                self._walks.append(self._walk_tables(name, step, end))
        elif is_measurable(self._pixels):
            end = self.ends[name, -1] = End(limit=self._limit)
            self._walks.append(self._walk_pictures(name, end))

    def _walk_tables(self, name: str, step: int, end: End) -> Iterator[None]:
        """Prove one side of a family, one center a step."""
        family = TABLE_FAMILIES[name]
        last = family.parameters.size - 1 if step > 0 else 0
        at = end.at = family.reach(self._counts, family.identity, step, end.limit)
        share = _FAR
        yield
        while at != last and self._take_pass(name, end):
            center = family.reach(self._counts, at, step, share * share * end.limit)
            center = at + step if center == at else center
            table = family.table_at(center)
            limit = largest_square(self._radius_of(self._pixels, table))
            if squared_distance(self._counts, table, family.table_at(at)) <= limit:
                end.center, end.limit, share = center, limit, _FAR
                at = end.at = family.reach(self._counts, center, step, limit)
            elif center == at + step:
                break
            else:
                share /= 2.0
            yield
        end.is_complete = True

    def _walk_pictures(self, name: str, end: End) -> Iterator[None]:
        """Prove a family member by member."""
        family = PICTURE_FAMILIES[name]
        center = self._pixels
        end.at = family.identity(self._pixels.shape[1])
        for parameter, picture in family.members(self._pixels):
            is_within = squared_pixel_distance(self._pixels, picture) <= self._limit
            if not is_within and center is not self._pixels:
                is_within = squared_pixel_distance(center, picture) <= end.limit
            if not is_within:
                if not self._take_pass(name, end):
                    break
                limit = largest_square(self._radius_of(picture, None))
                if limit < 0:
                    break
                center, end.center, end.limit = picture, parameter, limit
            end.at = parameter
            yield
        end.is_complete = True

    def _take_pass(self, name: str, end: End) -> bool:
        if self._passes[name] == 0:
            return False
        self._passes[name] -= 1
        end.passes += 1
        return True

    def _tolerance(self, name: str) -> Tolerance:
        family = TABLE_FAMILIES.get(name) or PICTURE_FAMILIES[name]
        ends = [self.ends[side] for side in ((name, -1), (name, 1)) if side in self.ends]
        how: How = "exact" if isinstance(family, TableFamily) else "every member"
        if isinstance(family, PictureFamily) and not is_measurable(self._pixels):
            return Tolerance(None, None, family.unit, how, False, reason="too_large")
        low, high = self._range(family, ends)
        return Tolerance(
            low,
            high,
            family.unit,
            "chain" if any(end.center is not None for end in ends) else how,
            all(end.is_complete for end in ends),
            sum(end.passes for end in ends),
        )

    def _range(
        self, family: TableFamily | PictureFamily, ends: Sequence[End]
    ) -> tuple[int | float | None, int | float | None]:
        places = [end.at for end in ends]
        if isinstance(family, PictureFamily):
            width = self._pixels.shape[1]
            low = places[0] if places else None
            mild = family.identity(width) or family.mildest(width)
            return low, None if low is None else mild
        if None in places or not places:  # Nothing is proved, or there was no time to look.
            return (None, None) if self._limit < 0 else (1.0, 1.0)
        lowest, highest = (float(family.parameters[place]) for place in places if place is not None)
        low = family.lowest if lowest == family.lowest else min(1.0, _up(lowest))
        return low, family.highest if highest == family.highest else max(1.0, _down(highest))


def _up(parameter: float) -> float:
    return math.ceil(parameter / _SAFETY * _DECIMALS) / _DECIMALS


def _down(parameter: float) -> float:
    return math.floor(parameter * _SAFETY * _DECIMALS) / _DECIMALS
