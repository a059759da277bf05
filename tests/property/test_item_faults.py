"""Each fault that a certificate over items or scales could have is put into it, and caught."""

from dataclasses import replace

import numpy as np
import pytest
from bruteforce import World
from checker import violations
from galleries import KINDS, everything, retrieve
from test_certificate_items import SCALE, certify, executed_answer, items_of, scales_of

from model.certificate import scan, search
from model.certificate.items import ItemRows
from model.certificate.match import MatchRule, judge, measure_margins
from model.certificate.pairs import Slack
from model.certificate.scan import PairScan

pytestmark = pytest.mark.without_shape_checks


def found_violations() -> list[str]:
    """What the checker says of certificates of items, of seen rows and of rows unseen."""
    rng = np.random.default_rng(21)
    found: list[str] = []
    for kind in ("clustered", "isotropic"):
        gallery, asked = KINDS[kind](rng, 500, 32)
        items = items_of(rng, 500, 5)
        world = World(gallery, items, scales_of(rng, 32, 20.0))
        for query in asked[:4]:
            for k, seen in ((5, 500), (5, 120), (2, 30), (1, 12)):
                candidates = retrieve(query, gallery, seen, items)
                certificate, numbers = certify(
                    query, candidates, k, world, scales=world.scales, error=0.0
                )
                if certificate.is_proved:
                    found += violations(
                        certificate, query, world, numbers=numbers, k=k, scale=SCALE
                    )
    return found + unseen_violations(rng)


def unseen_violations(rng) -> list[str]:
    """The same where rows that the search did not bring back are the first to come in.

    Rows seen differ along the query, which makes their radii large; those unseen lie aside.
    """
    found: list[str] = []
    for _ in range(5):
        basis, _ = np.linalg.qr(rng.normal(size=(16, 16)))
        cosines = np.concatenate([np.cos(np.radians([70, 72, 73])), rng.uniform(-0.5, 0.26, 200)])
        aside = np.concatenate([np.tile(basis[1], (3, 1)), rng.normal(size=(200, 14)) @ basis[2:]])
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        rows = cosines[:, None] * basis[0] + np.sqrt(1.0 - cosines**2)[:, None] * aside
        gallery = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        world = World(gallery, np.arange(203))
        for k in (1, 2):
            certificate, numbers = certify(
                basis[0], retrieve(basis[0], gallery, 3, world.items), k, world, error=0.0
            )
            found += violations(certificate, basis[0], world, numbers=numbers, k=k, scale=SCALE)
    return found


def worst_row_of_another(self: ItemRows, values: np.ndarray) -> np.ndarray:
    return values if self.starts is None else np.maximum.reduceat(values, self.starts, axis=-1)


def worst_own_row(self: ItemRows, values: np.ndarray) -> np.ndarray:
    return values if self.starts is None else np.minimum.reduceat(values, self.starts, axis=0)


def rest_of_the_first(self: PairScan) -> np.ndarray:
    rest = self.kept.largest(self._rest)
    rest[1:] = np.inf
    return rest


honest_scales = search.relative_scales


def squared_scales(*arguments):
    scales = honest_scales(*arguments)
    return None if scales is None else scales**2


FAULTS = {
    "the metric is forgotten": (search, "relative_scales", lambda *_: None),
    "scales count twice": (search, "relative_scales", squared_scales),
    "the farthest row of another decides": (ItemRows, "smallest", worst_row_of_another),
    "the worst own row decides": (ItemRows, "largest", worst_own_row),
    "unseen rows are forgotten": (
        PairScan,
        "rest",
        property(lambda self: np.full(self.kept.count, np.inf)),
    ),
    "set and order know the first one's unseen rows": (
        PairScan,
        "rest",
        property(rest_of_the_first),
    ),
    "the neighbour behind is not looked at": (
        PairScan,
        "to_next",
        property(lambda self: np.full(self.kept.count - 1, np.inf)),
    ),
    "the other way round": (
        scan,
        "compare",
        lambda first, second, gap, honest=scan.compare: honest(first, second, -gap),
    ),
}


def test_an_honest_certificate_has_no_violation():
    assert found_violations() == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_caught(fault, monkeypatch: pytest.MonkeyPatch):
    owner, name, faulty = fault
    monkeypatch.setattr(owner, name, faulty)
    assert found_violations() != []


def test_rows_that_are_taken_for_items_are_caught():
    rng = np.random.default_rng(22)
    gallery, asked = KINDS["clustered"](rng, 300, 32)
    items = np.repeat(np.arange(100), 3)
    world = World(gallery, items)
    caught = 0
    for query in asked[:6]:
        certificate, _ = certify(query, everything(gallery), 5, error=0.0)
        caught += bool(violations(certificate, query, world, numbers=items, k=5, scale=SCALE))
    assert caught > 0


def executed_violations() -> int:
    """Orders of rows a rounding apart that change below a radius, in the program's arithmetic."""
    rng = np.random.default_rng(23)
    broken = 0
    for _ in range(300):
        dimension = int(rng.integers(8, 65))
        pair = np.repeat(rng.normal(size=(1, dimension)), 2, axis=0)
        pair[1] += rng.normal(size=dimension) * 1e-7
        pair = (pair / np.linalg.norm(pair, axis=1, keepdims=True)).astype(np.float32)
        world = World(pair, scales=scales_of(rng, dimension, 1e3))
        query = rng.normal(size=dimension) / np.sqrt(dimension)
        certificate, _ = certify(query, everything(pair), 1, scales=world.scales, error=0.0)
        radius, first = certificate.certified_radii[0], certificate.positions[0]
        difference = world.scales * (pair[first].astype(float) - pair[1 - first])
        if not 0.0 < radius < np.inf:
            continue
        step = -world.scales * difference / np.linalg.norm(difference)
        for down in (1e-12, 1e-9, 1e-7):
            moved = query + step * (radius * SCALE * (1.0 - down))
            broken += executed_answer(moved, world, 1)[0] != first
    return broken


def test_a_slack_without_the_rounding_of_scores_is_caught(monkeypatch: pytest.MonkeyPatch):
    assert executed_violations() == 0
    honest = Slack.of

    def exact(*arguments, **options):
        return honest(*arguments, **options)._replace(absolute=0.0, divisor=0.0, per_distance=0.0)

    monkeypatch.setattr(Slack, "of", exact)
    assert executed_violations() > 0


# --- verdicts -----------------------------------------------------------------------------------


def true_margin(query, world, item, k):
    """The k-th smallest, over other items, of the least over their rows of the largest sine."""
    sines = np.full(world.count, np.inf)
    for other in set(range(world.count)) - {item}:
        differences = (
            world.rows[world.views(item)].astype(float)[:, None]
            - world.rows[world.views(other)].astype(float)[None]
        )
        apart = np.linalg.norm(differences, axis=2)
        products = differences @ query / np.linalg.norm(query)
        # Rows of two items that are equal have margin 0.
        own = np.where(apart > 0.0, products / np.where(apart > 0.0, apart, 1.0), 0.0)
        sines[other] = own.max(axis=0).min()
    return float(np.sort(sines)[k - 1])


def small_world(rng, kind="clustered"):
    gallery, asked = KINDS[kind](rng, 90, 24)
    items = items_of(rng, 90, 4)
    # An equal row in two items.
    gallery[np.flatnonzero(items == 3)[0]] = gallery[np.flatnonzero(items == 1)[0]]
    return World(gallery, items), asked


def test_the_margin_of_an_item_is_that_of_all_its_rows():
    rng = np.random.default_rng(24)
    world, asked = small_world(rng)
    whole = everything(world.rows, world.items)
    for query in asked[:6]:
        for k in (1, 3):
            first = executed_answer(query, world, 3)
            positions = np.array([world.views(item)[0] for item in first])
            margins = measure_margins(query, whole, positions, k).value
            wanted = [true_margin(query, world, item, k) for item in first]
            np.testing.assert_allclose(margins, wanted, atol=1e-9)


def verdict_steps(rng, world, query, item, k):
    """Unit directions that lower or raise the margin of an item, and some others."""
    own = world.rows[world.views(item)].astype(float)
    rivals = executed_answer(query, world, k + 4)
    for other in rivals[rivals != item]:
        for b in world.rows[world.views(other)].astype(float):
            for a in own:
                if (length := np.linalg.norm(a - b)) > 0.0:
                    yield from ((a - b) / length, (b - a) / length)
    for _ in range(4):
        u = rng.normal(size=query.size)
        yield u / np.linalg.norm(u)


ASKED = {"lipschitz_bound": 1.0 + 3e-8, "gain": 2.47, "forward_error": 0.0}


@pytest.mark.parametrize("kind", ["clustered", "isotropic", "near_duplicates"])
def test_no_step_below_a_verdicts_radius_turns_it(kind):
    rng = np.random.default_rng(25)
    world, asked = small_world(rng, kind)
    whole = everything(world.rows, world.items)
    tried = 0
    for number, query in enumerate(asked[:4]):
        k = 1 + 2 * (number % 2)
        item = int(executed_answer(query, world, 1)[0])
        place = world.views(item)[:1]
        margin = true_margin(query, world, item, k)
        for threshold in np.clip([margin - 0.03, margin - 0.2, margin + 0.02], 0.01, 0.99):
            rule = MatchRule(k=k, threshold=float(threshold))
            before = judge(query, whole, place, rule, **ASKED)
            radius = float(before.radii[0]) * SCALE
            if not 0.0 < radius < np.inf:
                continue
            for step in verdict_steps(rng, world, query, item, k):
                tried += 1
                moved = query + (1.0 - 1e-9) * radius * step
                assert judge(moved, whole, place, rule, **ASKED).matches == before.matches
    assert tried > 200


def test_margins_by_the_winning_view_alone_are_caught():
    rng = np.random.default_rng(26)
    pictures = np.repeat(rng.normal(size=(30, 12)), 3, axis=0)
    rows = pictures + 0.8 * rng.normal(size=(90, 12))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    world = World(rows, np.repeat(np.arange(30), 3))
    whole = everything(world.rows, world.items)
    caught = 0
    for query in rng.normal(size=(20, 12)) + pictures[:20]:
        item = int(executed_answer(query, world, 1)[0])
        own = world.views(item)
        winner = own[np.argmax(world.rows[own].astype(float) @ query)]
        keep = np.flatnonzero((world.items != item) | (np.arange(90) == winner))
        alone = replace(
            whole, rows=keep, items=whole.items[keep], vectors=whole.vectors[keep], size=keep.size
        )
        margins = measure_margins(query, alone, np.flatnonzero(keep == winner), 1).value
        caught += abs(margins[0] - true_margin(query, world, item, 1)) > 1e-6
    assert caught > 0
