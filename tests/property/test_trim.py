"""No change of a picture below its trim radius changes its box, and no decision is left unpaid."""

from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import pytest
from borders import boxes, decisions, rounded, steps
from hypothesis import given
from hypothesis import strategies as st
from paths import GALLERY
from PIL import Image

from model.pixels.trim import _excess, _row_sums, find_trim

FAULTS = {
    "rows and columns where the share undid the trim": lambda d: d.is_undone,
    "the first line kept": lambda d: d.why == "first",
    "the border lines": lambda d: d.why == "border",
    "sides that are all border": lambda d: d.why == "all",
    "columns": lambda d: d.axis == 1,
    "rows": lambda d: d.axis == 0,
}


def photograph(rng, height, width):
    paths = sorted((GALLERY / "photos").glob("*.*"))
    with Image.open(paths[int(rng.integers(len(paths)))]) as image:
        small = image.convert("RGB").resize((2 * width, 2 * height))
    top, left = rng.integers(height), rng.integers(width)
    return np.asarray(small)[top : top + height, left : left + width].copy()


def framed(rng, *, top=0.0, right=0.0, bottom=0.0, left=0.0, noise=0.0):
    """A photograph whose outer lines are one colour, all but a little noise of so many levels."""
    height, width = rng.integers(16, 40, 2)
    picture = photograph(rng, height, width).astype(float)
    border = rng.integers(0, 256, 3) + noise * rng.standard_normal(picture.shape)
    inside = np.zeros((height, width, 1), bool)
    inside[int(top * height) : int((1 - bottom) * height), int(left * width) :] = True
    inside[:, int((1 - right) * width) :] = False
    return np.clip(np.where(inside, picture, border), 0, 255).astype(np.uint8)


MAKERS = {
    "photograph": lambda rng: photograph(rng, *rng.integers(16, 40, 2)),
    "letterbox": lambda rng: framed(rng, top=0.2, bottom=0.2),
    "pillars": lambda rng: framed(rng, right=0.3, left=0.3),
    "frame": lambda rng: framed(rng, top=0.2, right=0.1, bottom=0.3, left=0.15),
    "noisy frame": lambda rng: framed(
        rng, top=0.2, right=0.1, bottom=0.3, left=0.15, noise=rng.uniform(4, 7.5)
    ),
    "too little left of the rows": lambda rng: framed(rng, top=0.45, bottom=0.42, noise=3),
    "too little left of the columns": lambda rng: framed(
        rng, top=0.1, right=0.42, bottom=0.1, left=0.45, noise=3
    ),
    "all border": lambda rng: framed(rng, top=1, noise=rng.uniform(0, 7)),
    "short": lambda rng: framed(rng, top=0.3, bottom=0.2)[: rng.integers(1, 16)],
    "one column": lambda rng: framed(rng, top=0.3, bottom=0.2)[:, 9:10],
}


@cache
def pictures(each):
    rng = np.random.default_rng(18)
    return [make(rng) for make in MAKERS.values() for _ in range(each)]


def flips(picture, radius, count, rng):
    """Changes of the box among steps below a radius, and how many steps were taken.

    They are aimed at the weakest row and the weakest column that the radius has not ruled out.
    """
    box = boxes(picture[None].astype(float))
    weakest = {}
    for decision in sorted(decisions(picture, rng), key=lambda d: -d.room):
        weakest[decision.axis] = decision
    if not weakest or not radius > 0.0:
        return 0, 0
    radius = min(radius, 10.0)  # Nothing to decide is a radius of inf.
    real = steps(picture, radius, [*weakest.values()], count, rng)
    bytewise = rounded(real, picture, radius)
    both = np.concatenate([boxes(real), boxes(bytewise)])
    return int((both != box).any(axis=1).sum()), len(both)


def attack(each, count):
    rng = np.random.default_rng(3)
    taken = 0
    for picture in pictures(each):
        trim = find_trim(picture)
        assert trim.box == tuple(boxes(picture[None].astype(float))[0])
        flipped, tried = flips(picture, trim.radius, count, rng)
        assert flipped == 0
        taken += tried
    return taken


def test_no_step_below_the_trim_radius_aimed_at_the_weakest_row_and_column_changes_the_box():
    assert attack(each=10, count=90) >= 10_000


@pytest.mark.parametrize("fault", FAULTS)
def test_a_trim_radius_that_does_not_pay_for_a_decision_is_caught(fault):
    rng = np.random.default_rng(4)
    forgets, caught = FAULTS[fault], 0
    for picture in pictures(10):
        paid = [d.room for d in decisions(picture, rng) if not forgets(d)]
        caught += flips(picture, min(paid, default=np.inf), 12, rng)[0]
    assert caught > 0


def test_a_step_a_little_beyond_the_trim_radius_changes_a_box_that_bites():
    """So the radius is no smaller than it has to be."""
    rng = np.random.default_rng(5)
    trims = [(picture, find_trim(picture)) for picture in pictures(10)]
    bites = [(p, t.radius) for p, t in trims if t.box != (0, 0, *p.shape[1::-1]) and t.radius > 0]
    assert np.mean([flips(p, 1.01 * radius, 12, rng)[0] > 0 for p, radius in bites]) > 0.9


def exact_side(lines):
    """First line kept, first one beyond, and the radius to forty digits, in integers to the end."""
    rooms, inside = [], []
    for number, line in enumerate(lines):
        length = len(line)
        values = [[int(value) for value in channel] for channel in line.T]
        squares = sum(value * value for channel in values for value in channel)
        spread = length * squares - sum(sum(channel) ** 2 for channel in values)
        if spread >= 144 * length**2:
            inside.append(number)
        # sqrt(spread / L) - 12 sqrt(L)
        room = (Decimal(spread).sqrt() - 12 * length) / Decimal(length).sqrt() / 255
        rooms.append(abs(room))
    count = len(rooms)
    if count < 16:
        return 0, count, Decimal("inf")
    if not inside:
        return 0, count, min(rooms)
    first, last = inside[0], inside[-1]
    radius = min(*rooms[: first + 1], *rooms[last:], rooms[first])
    return (0, count, radius) if 4 * (last + 1 - first) < count else (first, last + 1, radius)


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.sampled_from((1, 15, 16, 33, 70)),
    width=st.sampled_from((1, 2, 16, 31, 300)),
    levels=st.sampled_from((0, 8, 11, 12, 13, 40, 200)),
)
def test_the_rule_is_exact_and_the_trim_radius_is_the_real_one_rounded_down(
    seed, height, width, levels
):
    rng = np.random.default_rng(seed)
    noise = rng.integers(-levels, levels + 1, (height, width, 3))
    noise *= rng.integers(0, 2, (height, 1, 1)) * rng.integers(0, 2, (1, width, 1))
    picture = np.clip(rng.integers(0, 256, 3) + noise, 0, 255).astype(np.uint8)
    with localcontext(prec=40):
        top, bottom, rows = exact_side(picture)
        left, right, columns = exact_side(picture[top:bottom].transpose(1, 0, 2))
        real, trim = min(rows, columns), find_trim(picture)
        assert trim.box == (left, top, right, bottom)
        if real == Decimal("inf"):
            assert trim.radius == np.inf
        else:
            assert real * (1 - Decimal(2) ** -47) <= Decimal(trim.radius) <= real


def test_the_sums_of_the_longest_line_fit_into_64_bits():
    length = 1 << 22
    line = np.zeros((1, length, 3), np.uint8)
    line[:, ::2] = 255
    (excess,) = _excess(*_row_sums(line), length).tolist()
    assert excess == 3 * (length * 255) ** 2 // 4 - 144 * length**2
    (white,) = _excess(*_row_sums(line | 255), length).tolist()
    assert white == -144 * length**2
