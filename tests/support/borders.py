"""Certified trimming a second time: the rule as it reads, real-valued, and steps aimed at it."""

from dataclasses import dataclass

import numpy as np

SHORT_OF = 1.0 - 1e-9
"""Steps go so far of the way to a radius: float64 then has no say in what they find."""


@dataclass(frozen=True)
class Decision:
    """One line that must stay on its side of the edge for the box to stay.

    Attributes:
        why: "border": before an end; "first": an end itself; "all": on a side without ends.
        axis: 0 a row, 1 a column.
        line: its number.
        is_undone: the side was not trimmed in the end, as too little would be left.
        room: l2 of values in [0, 1] between it and the edge.
        towards: unit direction of the picture, (H, W, 3), that takes it there soonest.
    """

    why: str
    axis: int
    line: int
    is_undone: bool
    room: float
    towards: np.ndarray


def deviations(pictures, axis):
    """l2 of each row's (axis 0) or column's (1) deviation from its mean colour: (B, lines)."""
    apart = pictures - pictures.mean(axis=2 - axis, keepdims=True)
    return np.sqrt(np.square(apart).sum(axis=(2 - axis, 3)))


def edge(pictures, axis):
    return 12.0 * np.sqrt(pictures.shape[2 - axis])


def kept(is_border):
    """First line kept and first one beyond, of lines (B, N)."""
    count = is_border.shape[1]
    first = is_border.argmin(axis=1)
    end = count - is_border[:, ::-1].argmin(axis=1)
    whole = is_border.all(axis=1) | (4 * (end - first) < count) | (count < 16)
    return np.where(whole, 0, first), np.where(whole, count, end)


def boxes(pictures):
    """(left, top, right, bottom) of real-valued pictures (B, H, W, 3) in 8-bit levels: (B, 4)."""
    tops, bottoms = kept(deviations(pictures, 0) < edge(pictures, 0))
    lefts, rights = np.empty_like(tops), np.empty_like(tops)
    for top, bottom in {*zip(tops.tolist(), bottoms.tolist(), strict=True)}:
        same = (tops == top) & (bottoms == bottom)
        inside = pictures[same, top:bottom]
        lefts[same], rights[same] = kept(deviations(inside, 1) < edge(inside, 1))
    return np.stack([lefts, tops, rights, bottoms], axis=1)


def decisions(picture, rng):
    """All that the box of a picture (H, W, 3) rests on."""
    _, top, _, bottom = boxes(picture[None].astype(float))[0]
    return [
        *_side(picture, 0, (0, picture.shape[0]), rng),
        *_side(picture, 1, (int(top), int(bottom)), rng),
    ]


def _side(picture, axis, rows, rng):
    """The decisions about the rows (axis 0) or columns (1) of these rows of a picture."""
    inside = picture[None, rows[0] : rows[1]].astype(float)
    lines, limit = deviations(inside, axis)[0], edge(inside, axis)
    count = len(lines)
    if count < 16:
        return
    ends = np.flatnonzero(lines >= limit)[[0, -1]] if (lines >= limit).any() else None
    for line, deviation in enumerate(lines):
        if ends is None:
            why, is_undone = "all", False
        elif ends[0] < line < ends[1]:
            continue
        else:
            why = "first" if line in ends else "border"
            is_undone = bool(4 * (ends[1] + 1 - ends[0]) < count)
        towards = np.zeros(picture.shape)
        view = towards[rows[0] : rows[1]]
        view = view[line] if axis == 0 else view[:, line]
        values = inside[0, line] if axis == 0 else inside[0][:, line]
        apart = values - values.mean(axis=0)
        if not apart.any():  # No direction is steeper than another.
            apart = rng.standard_normal(values.shape)
            apart -= apart.mean(axis=0)
        if apart.any():  # One pixel deviates from itself in none.
            view[...] = apart / np.linalg.norm(apart) * (1.0 if deviation < limit else -1.0)
        yield Decision(why, axis, line, is_undone, abs(deviation - limit) / 255.0, towards)


def steps(picture, radius, aims, count, rng):
    """Real-valued pictures (B, H, W, 3) in levels, just inside a radius, each aimed at a line.

    A third goes straight, a third strays, a third aims at two lines at once.
    """
    towards = np.stack([decision.towards for decision in aims])
    weights = np.zeros((count, len(aims)))
    weights[np.arange(count), np.arange(count) % len(aims)] = 1.0
    weights[2::3] += rng.uniform(0, 1, (len(weights[2::3]), 1)) * weights[2::3, ::-1]
    directions = np.einsum("bd,dhwc->bhwc", weights, towards)
    noise = rng.standard_normal((len(directions[1::3]), *picture.shape))
    directions[1::3] += 0.3 * noise / _lengths(noise)
    lengths = _lengths(directions)
    return picture + directions * (SHORT_OF * 255.0 * radius / np.maximum(lengths, 1e-300))


def _lengths(changes):
    return np.sqrt(np.square(changes).sum(axis=(1, 2, 3), keepdims=True))


def rounded(pictures, picture, radius):
    """8-bit pictures as near to these as lie at l2 below the radius: (b, H, W, 3), b <= B."""
    limit = (255.0 * radius * SHORT_OF) ** 2
    found = []
    for scale in (1.3, 1.1, 1.0, 0.9, 0.7):
        moved = np.clip(np.rint(picture + scale * (pictures - picture)), 0, 255)
        is_inside = np.square(moved - picture).sum(axis=(1, 2, 3)) < limit
        found.append(moved[is_inside])
        pictures = pictures[~is_inside]
    return np.concatenate(found)
