"""Items of several rows, and metrics with scales: no radius above brute force, no tolerance."""

from dataclasses import replace

import numpy as np
import pytest
from bruteforce import World
from checker import violations
from galleries import KINDS, everything, retrieve

from model.certificate.pairs import score
from model.certificate.ranking import complete_items, rank_candidates
from model.certificate.search import certify_ranking

pytestmark = pytest.mark.without_shape_checks

LIPSCHITZ, GAIN, ERROR = 1.0 + 3e-8, 2.47, 1e-7
SCALE = LIPSCHITZ * GAIN

# Condition of a head: the largest over the smallest of its scales.
CONDITIONS = (1.0, 10.0, 1e4, 1e8)


def scales_of(rng, dimension, condition):
    return rng.permutation(np.geomspace(1.0 / condition, 1.0, dimension))


def items_of(rng, count, views):
    """Rows of 1 to `views` an item, all of one item side by side."""
    lengths = rng.integers(1, views + 1, size=count)
    return np.repeat(np.arange(count), lengths)[:count]


def own_rows(gallery, items, answer):
    whole = everything(gallery, items)
    rows = np.flatnonzero(np.isin(items, answer))
    return replace(whole, rows=rows, vectors=whole.vectors[rows], items=whole.items[rows])


def certify(query, candidates, k, gallery=None, *, scales=None, error=ERROR, max_distance=None):
    ranking = rank_candidates(query, candidates, k)
    if candidates.items is not None and not candidates.are_all:
        answer = candidates.items[ranking.top]
        ranking = complete_items(ranking, own_rows(gallery.rows, gallery.items, answer))
    certificate = certify_ranking(
        ranking,
        lipschitz_bound=LIPSCHITZ,
        output_scales=None if scales is None else scales * LIPSCHITZ,
        gain=GAIN,
        forward_error=error,
        max_distance=max_distance,
    )
    return certificate, ranking.candidates.numbers


def check(query, world, candidates, k, max_distance=None):
    certificate, numbers = certify(
        query, candidates, k, world, scales=world.scales, max_distance=max_distance
    )
    assert certificate.is_proved or not candidates.are_all
    if certificate.is_proved:
        found = violations(
            certificate, query, world, numbers=numbers, k=k, scale=SCALE, max_distance=max_distance
        )
        assert not found, (k, candidates.rows.size)
    return certificate


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_radius_of_a_metric_with_scales_is_above_brute_force(kind, condition):
    rng = np.random.default_rng(7)
    gallery, asked = KINDS[kind](rng, 900, 64)
    world = World(gallery, scales=scales_of(rng, 64, condition), error=ERROR)
    for query in asked[:3]:
        for k in (1, 3, 40):
            for candidates in (everything(gallery), retrieve(query, gallery, 128)):
                check(query, world, candidates, k)


@pytest.mark.parametrize("condition", [1.0, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_no_radius_of_items_of_several_rows_is_above_brute_force(kind, condition):
    rng = np.random.default_rng(8)
    gallery, asked = KINDS[kind](rng, 900, 48)
    items = items_of(rng, 900, 6)
    world = World(gallery, items, scales_of(rng, 48, condition), ERROR)
    for query in asked[:3]:
        for k in (1, 3, 20):
            for candidates in (
                everything(gallery, items),
                retrieve(query, gallery, 160, items),
                retrieve(query, gallery, 30, items),
            ):
                check(query, world, candidates, k)


@pytest.mark.parametrize("kind", ["clustered", "near_duplicates"])
def test_a_threshold_never_makes_a_radius_of_items_unsound(kind):
    rng = np.random.default_rng(9)
    gallery, asked = KINDS[kind](rng, 600, 48)
    items = items_of(rng, 600, 5)
    world = World(gallery, items, scales_of(rng, 48, 30.0), ERROR)
    for query in asked[:4]:
        near = np.sort(certify(query, everything(gallery, items), 30)[0].distances)
        midway = (near[:-1] + near[1:]) / 2
        for limit in (*midway[[0, 4, 12, 25]].tolist(), -0.5, 0.0, 1.0, 2.0, 7.0):
            for candidates in (everything(gallery, items), retrieve(query, gallery, 128, items)):
                check(query, world, candidates, 10, limit)


def test_scales_never_make_a_radius_smaller_and_equal_ones_change_nothing():
    rng = np.random.default_rng(10)
    gallery, asked = KINDS["clustered"](rng, 500, 64)
    for query in asked[:6]:
        plain, _ = certify(query, everything(gallery), 5)
        scaled, _ = certify(query, everything(gallery), 5, scales=scales_of(rng, 64, 20.0))
        same, _ = certify(query, everything(gallery), 5, scales=np.ones(64))
        assert (scaled.certified_radii > plain.certified_radii).all()
        assert (same.certified_radii == plain.certified_radii).all()
        np.testing.assert_allclose(scaled.margins, plain.margins, rtol=1e-9)


def test_rows_alone_are_items_of_one_row_each():
    """The general path, asked of items of one row, gives what the short one gives."""
    rng = np.random.default_rng(11)
    gallery, asked = KINDS["near_duplicates"](rng, 700, 48)
    for query in asked[:6]:
        for m in (700, 100):
            short, _ = certify(query, retrieve(query, gallery, m), 8)
            items = np.arange(len(gallery))
            world = World(gallery, items)
            general, _ = certify(query, retrieve(query, gallery, m, items), 8, world)
            assert (short.positions == general.positions).all()
            np.testing.assert_allclose(
                short.certified_radii, general.certified_radii, rtol=1e-9, atol=1e-12
            )
            assert (short.exact == general.exact).all()


# --- attacks as the program runs ---------------------------------------------------------------


def executed_answer(query, world, k):
    """What the program answers, by its own scores: items, best first."""
    values = score(world.rows, query, 1e-6).values
    best = np.full(world.count, -np.inf)
    np.maximum.at(best, world.items, values)
    return np.lexsort((np.arange(best.size), -best))[:k]


def feature_steps(rng, world, scales, item, others):
    """Moves W u of an embedding whose head is diag(scales), for unit u: those that lose most.

    Against row b of another item from row a of this one, the move is -(s o s o D) / |s o D|.
    """
    own = world.rows[world.views(item)].astype(np.float64)
    for other in others:
        for b in world.rows[world.views(other)].astype(np.float64):
            for a in own:
                difference = scales * (a - b)
                length = np.linalg.norm(difference)
                if length > 0.0:
                    yield -scales * difference / length
            # Against all own rows at once, the nearest point of a convex hull, roughly.
            together = scales * (own.mean(axis=0) - b)
            if np.linalg.norm(together) > 0.0:
                yield -scales * together / np.linalg.norm(together)
    for _ in range(3):
        u = rng.normal(size=scales.size)
        yield scales * u / np.linalg.norm(u)


@pytest.mark.parametrize("error", [0.0, 1e-5])
@pytest.mark.parametrize("kind", KINDS)
def test_no_move_of_the_features_below_a_radius_changes_what_it_promises(kind, error):
    rng = np.random.default_rng(12)
    gallery, asked = KINDS[kind](rng, 240, 32)
    attacked = 0
    for views, condition in ((1, 50.0), (5, 1.0), (5, 50.0), (3, 1e4)):
        items = items_of(rng, 240, views)
        world = World(gallery, items, scales_of(rng, 32, condition), error)
        scales = world.scales
        for query in asked[:2]:
            for k in (1, 4):
                certificate, numbers = certify(
                    query, everything(gallery, items), k, scales=scales, error=error
                )
                answer = numbers[certificate.positions]
                assert executed_answer(query, world, k).tolist() == answer.tolist()
                rivals = executed_answer(query, world, k + 6)
                for place in {0, k - 1}:
                    item = answer[place]
                    others = rivals[rivals != item]
                    promised = promises(certificate, place)
                    for step in feature_steps(rng, world, scales, item, others):
                        for radius, names in promised.items():
                            attacked += len(names)
                            # The error moves the query before and after, in any direction.
                            moved = query + step * (radius * SCALE * (1.0 - 1e-9))
                            moved = moved + 2.0 * error * step / np.linalg.norm(step) * (1 - 1e-9)
                            after = executed_answer(moved, world, k)
                            for name in names:
                                assert is_kept(name, answer, after, item), (name, place, condition)
    assert attacked > 200


def promises(certificate, place):
    """What is promised within each radius that can be attacked: many are the same."""
    promised = {}
    for name, radius in (
        ("result", certificate.certified_radii[place]),
        ("top1", certificate.top1_radius),
        ("set", certificate.set_radius),
        ("order", certificate.order_radius),
    ):
        if 0.0 < radius < np.inf:
            promised.setdefault(float(radius), []).append(name)
    return promised


def is_kept(name, before, after, item):
    return {
        "result": item in after,
        "top1": after[0] == before[0],
        "set": set(after.tolist()) == set(before.tolist()),
        "order": after.tolist() == before.tolist(),
    }[name]


@pytest.mark.parametrize("condition", [1.0, 50.0])
def test_the_attacks_of_features_are_strong_enough_to_mean_something(condition):
    """For k = 1 and items of one row the radius is the distance to the change itself."""
    rng = np.random.default_rng(13)
    gallery, asked = KINDS["clustered"](rng, 240, 32)
    world = World(gallery, np.arange(240), scales_of(rng, 32, condition))
    for query in asked[:6]:
        certificate, _ = certify(query, everything(gallery), 1, scales=world.scales, error=0.0)
        first = certificate.positions[0]
        beyond = certificate.certified_radii[0] * SCALE * (1.0 + 1e-6)
        others = np.delete(np.arange(240), first)
        assert any(
            executed_answer(query + step * beyond, world, 1)[0] != first
            for step in feature_steps(rng, world, world.scales, first, others)
        )


@pytest.mark.parametrize("apart", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e3])
def test_rows_a_rounding_apart_keep_their_executed_order_in_any_metric(apart, norm):
    rng = np.random.default_rng(14)
    certified = 0
    for _ in range(150):
        dimension = int(rng.integers(8, 65))
        pair = np.repeat(rng.normal(size=(1, dimension)), 2, axis=0)
        pair[1] += rng.normal(size=dimension) * apart
        pair = (pair / np.linalg.norm(pair, axis=1, keepdims=True)).astype(np.float32)
        condition = 10.0 ** rng.uniform(0, 8)
        world = World(pair, scales=scales_of(rng, dimension, condition))
        query = norm * rng.normal(size=dimension) / np.sqrt(dimension)
        certificate, _ = certify(query, everything(pair), 1, scales=world.scales, error=0.0)
        radius, first = certificate.certified_radii[0], certificate.positions[0]
        if not 0.0 < radius < np.inf:
            continue
        certified += 1
        for step in feature_steps(rng, world, world.scales, first, [1 - first]):
            for down in (1e-8, 1e-5, 1e-2):
                moved = query + step * (radius * SCALE * (1.0 - down))
                assert executed_answer(moved, world, 1)[0] == first
    assert certified > (20 if apart > 1e-8 else -1)
