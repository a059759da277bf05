"""The truth about verdicts by margin + weight x cosine, and steps that would turn one soonest.

From the formulas in extended precision, over items and all their rows; no code of `model` but the
verdict that is attacked.
"""

from dataclasses import dataclass, replace

import numpy as np
from attacks import move
from bruteforce import World, kth_smallest, ranking
from galleries import everything, retrieve

from model.certificate.match import judge
from model.certificate.pairs import Candidates

LIPSCHITZ, GAIN = 1.0 + 3e-8, 2.47
SCALE = LIPSCHITZ * GAIN


@dataclass
class Truth:
    """Of one item: its statistic, its place in the top k, and how far its verdict is from a flip.

    `statistic` and `room` (the angle left, by exact |w|) say what the formulas say; `axes` has
    (w, |w|, value) of each pair of rows; `closest` is the distance of the closest that differ.
    """

    statistic: float
    is_in: bool
    room: float
    axes: list
    closest: float

    def matches(self, rule):
        return self.is_in and self.statistic >= rule.threshold


def truth_of(query, world, item, rule):
    wide = query.astype(np.longdouble)
    norm = np.sqrt((wide * wide).sum())
    rows, weight = world.rows.astype(np.longdouble), rule.cosine_weight
    own = rows[world.views(item)]
    values, angles = np.full(world.count, np.inf), np.full(world.count, np.inf)
    axes, closest = [], np.inf
    for other in set(range(world.count)) - {item}:
        worst, least_angle = np.inf, np.inf
        for b in rows[world.views(other)]:
            apart = np.sqrt(((own - b) ** 2).sum(axis=1))
            closest = min(closest, float(apart[apart > 0].min(initial=np.inf)))
            units = (own - b) / np.where(apart > 0, apart, 1)[:, None]
            w = units + weight * own
            lengths = np.sqrt((w * w).sum(axis=1))
            value = w @ wide / norm
            if weight == 0:  # Equal rows have no plane: their margin is 0 at every query.
                lengths = np.where(apart > 0, lengths, 1)
            ratio = np.clip(value / lengths, -1, 1)
            # An empty cone is never entered.
            limit = np.arccos(np.clip(rule.threshold / lengths, -1, 1))
            angle = limit - np.arccos(ratio)
            angle = np.where(rule.threshold > lengths, -np.inf, angle)
            worst = min(worst, float(value.max()))
            least_angle = min(least_angle, float(angle.max()))
            axes += [(v, n, x) for v, n, x in zip(w, lengths, value, strict=True) if n > 0]
        values[other], angles[other] = worst, least_angle
    statistic = min(kth_smallest(values, rule.k), 1.0 + weight)
    is_in = item in ranking(query, world, rule.k)
    return Truth(statistic, is_in, kth_smallest(angles, rule.k), axes, closest)


def aimed_steps(rng, query, truth, rule, count=6):
    """Unit steps over the surface of the cones that are nearest to it, by the shortest way."""
    along = query / np.linalg.norm(query)
    turns = []
    for _, length, value in truth.axes:
        cosines = np.clip(np.array([rule.threshold, value], dtype=float) / float(length), -1, 1)
        limit, now = np.arccos(cosines)
        turns.append(limit - now)
    for place in np.argsort(np.abs(turns))[:count]:
        w = truth.axes[place][0].astype(np.float64)
        side = w - (w @ along) * along
        if (length := np.linalg.norm(side)) == 0.0:
            continue
        turn = min(abs(turns[place]), np.pi / 2)
        sign = -1.0 if turns[place] >= 0 else 1.0
        yield sign * np.cos(turn) * side / length - np.sin(turn) * along
        yield sign * side / length
    random = rng.normal(size=query.size)
    yield random / np.linalg.norm(random)


def rank_steps(query, world, item, k):
    """Unit steps across the planes between an item's rows and those of its nearest rivals."""
    own = world.rows[world.views(item)].astype(float)
    for other in ranking(query, world, k + 2):
        if other != item:
            for b in world.rows[world.views(other)].astype(float):
                for a in own:
                    if (length := np.linalg.norm(a - b)) > 0.0:
                        yield from ((a - b) / length, (b - a) / length)


def seen_by(query, world, item, seen):
    """What a search of so many rows brings back, and every row of the item."""
    candidates = retrieve(query, world.rows, seen, world.items)
    if candidates.are_all:
        return candidates
    missing = np.setdiff1d(world.views(item), candidates.rows)
    return replace(
        candidates,
        rows=np.concatenate((candidates.rows, missing)),
        vectors=np.concatenate((candidates.vectors, world.rows[missing])),
        items=np.concatenate((candidates.items, world.items[missing])),
    )


def decide(query, candidates, world, item, rule, *, error=0.0):
    position = np.flatnonzero(candidates.numbers == item)[:1]
    scales = None if world.scales is None else world.scales * LIPSCHITZ
    return judge(
        query,
        candidates,
        position,
        rule,
        lipschitz_bound=LIPSCHITZ,
        gain=GAIN,
        forward_error=error,
        output_scales=scales,
    )


def violations(rng, query, world, item, rule, *, seen, share=0.999):
    """What is false of one verdict: against brute force, and after steps below its radius.

    A step moves the embedding as far as the metric says that a change of the input may. `seen` is
    what a search brought back, or how many rows.

    Returns:
        The sentences, the verdict, and how many steps were tried.
    """
    whole, candidates = everything(world.rows, world.items), seen
    if not isinstance(seen, Candidates):
        candidates = seen_by(query, world, item, seen)
    found, truth = decide(query, candidates, world, item, rule), truth_of(query, world, item, rule)
    radius, said = float(found.radii[0]), []
    # A margin between rows so close has the rounding of their scores, over their distance.
    allowed = 1e-6 + 1e-13 / truth.closest
    if candidates.are_all and abs(found.statistics[0] - truth.statistic) > allowed:
        said.append(f"the statistic is {found.statistics[0]} instead of {truth.statistic}")
    is_clear = candidates.are_all and abs(truth.statistic - rule.threshold) > allowed
    if (radius > 0.0 or is_clear) and found.matches[0] != truth.matches(rule):
        said.append(f"match is {found.matches[0]}: {truth.statistic} and top {truth.is_in}")
    if radius == 0.0:
        return said, found, 0
    if found.matches[0]:
        limit = float(np.linalg.norm(query) * np.sin(np.clip(truth.room, 0, np.pi / 2)))
        if radius * SCALE > limit:
            said.append(f"radius {radius * SCALE} of a match is above {limit}")
    scales = np.ones(query.size) if world.scales is None else world.scales
    tried = 0
    steps = [*aimed_steps(rng, query, truth, rule), *rank_steps(query, world, item, rule.k)]
    for step in steps[:18]:
        moves = scales * step
        moves /= np.linalg.norm(moves)
        tried += 1
        # In the metric an input of length 1 moves the embedding along s o s o step at most.
        moved = move(query, scales * moves, radius * SCALE * share)
        after = decide(moved, whole, world, item, rule)
        if after.matches[0] != found.matches[0]:
            said.append(f"a step of {share} of {radius * SCALE} turned {found.matches[0]}")
    return said, found, tried


def world_of(rng, gallery, views):
    """The gallery as items of 1 to `views` rows, two of which share an equal row."""
    count = len(gallery)
    items = np.repeat(np.arange(count), rng.integers(1, views + 1, size=count))[:count]
    if views > 1:
        gallery[np.flatnonzero(items == 3)[0]] = gallery[np.flatnonzero(items == 1)[0]]
    return World(gallery, items)
