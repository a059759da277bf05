import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.evaluate.radii import Proof
from model.evaluate.standing import Gallery, LeftOut
from model.metrics.metric import unit_rows

KS = (1, 3, 7)


def gallery_of(rng, count=40, dimension=6, duplicates=6):
    """Raw embeddings of many sizes, the last few equal to some of the first."""
    raw = rng.normal(size=(count, dimension)) * rng.uniform(0.1, 9.0, (count, 1))
    raw[count - duplicates :] = raw[:duplicates]
    return raw


def truth(query, rows, chosen, k):
    """Rank and radius of one entry, from the definition, in extended precision."""
    wide = rows.astype(np.longdouble)
    scores = [float((row * query.astype(np.longdouble)).sum()) for row in wide]
    ahead, radii = 0, []
    for other in range(len(rows)):
        if other == chosen:
            continue
        apart = np.sqrt(float(((wide[chosen] - wide[other]) ** 2).sum()))
        if apart == 0.0:
            ahead += other < chosen
            radii.append(-np.inf if other < chosen else np.inf)
        else:
            gap = scores[chosen] - scores[other]
            ahead += gap < 0.0
            radii.append(gap / apart)
    return ahead, sorted(radii)[k - 1] if k <= len(radii) else np.inf


def test_ranks_and_radii_are_those_of_the_definition_and_never_above(rng):
    raw = gallery_of(rng)
    queries = rng.normal(size=(50, 6)) * rng.uniform(0.01, 100.0, (50, 1))
    chosen = rng.integers(0, 40, 50)
    standing = Gallery(raw).stand(queries, chosen, KS)
    for number, query in enumerate(queries):
        for place, k in enumerate(KS):
            rank, radius = truth(query, unit_rows(raw), chosen[number], k)
            assert standing.ranks[number] == rank
            assert standing.radii[number, place] <= max(radius, 0.0)
            assert standing.radii[number, place] == pytest.approx(radius, rel=1e-9, abs=1e-9)


def test_a_step_below_the_radius_changes_nothing_and_one_above_it_does(rng):
    raw = gallery_of(rng, duplicates=0)
    gallery, rows = Gallery(raw), unit_rows(raw).astype(np.float64)
    queries = rng.normal(size=(60, 6)) * rng.uniform(0.1, 10.0, (60, 1))
    first = gallery.nearest(queries)
    radii = gallery.stand(queries, first).radii[:, 0]
    assert (radii > 0.0).all()
    for query, entry, radius in zip(queries, first, radii, strict=True):
        steps = rng.normal(size=(200, 6))
        steps *= 0.999 * radius / np.linalg.norm(steps, axis=1)[:, None]
        assert (gallery.nearest(query + steps) == entry).all()
        apart = np.delete(rows, entry, axis=0) - rows[entry]
        apart /= np.linalg.norm(apart, axis=1)[:, None]
        moved = gallery.nearest(query + 1.001 * radius * apart)
        assert (moved != entry).any()


@given(seed=st.integers(0, 10**6), k=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_a_result_with_a_radius_is_in_the_answer(seed, k):
    rng = np.random.default_rng(seed)
    # Few numbers, so that scores tie.
    raw = rng.integers(-1, 2, (10, 3)).astype(np.float64)
    queries = rng.integers(-2, 3, (12, 3)).astype(np.float64)
    standing = Gallery(raw).stand(queries, rng.integers(0, 10, 12), (k,))
    held = standing.radii[:, 0] > 0.0
    assert (standing.ranks[held] < k).all()


def test_ties_give_no_radius_and_go_to_the_lower_number():
    gallery = Gallery(np.array([[1.0, 1.0], [1.0, -1.0]]))
    query = np.array([[3.0, 0.0]])
    assert gallery.nearest(query)[0] == 0
    for entry in (0, 1):
        standing = gallery.stand(query, np.array([entry]))
        assert standing.ranks[0] == entry
        assert standing.radii[0, 0] <= 0.0


def test_of_equal_entries_the_first_is_never_overtaken_and_the_second_never_ahead(rng):
    raw = np.tile(rng.normal(size=(1, 33)), (5, 1)) * np.arange(1, 6)[:, None]
    # Powers of two give the same unit row to the last bit.
    raw = raw[[0, 0, 0]] * np.array([[1.0], [2.0], [4.0]])
    gallery = Gallery(raw)
    queries = rng.normal(size=(40, 33))
    assert (gallery.nearest(queries) == 0).all()
    first = gallery.stand(queries, np.zeros(40, np.int64))
    assert (first.radii == np.inf).all()
    assert (first.margins == 0.0).all()
    second = gallery.stand(queries, np.ones(40, np.int64), (1, 2))
    assert (second.ranks == 1).all()
    assert (second.radii[:, 0] == -np.inf).all()
    assert (second.radii[:, 1] == np.inf).all()


def test_nothing_is_proved_of_a_zero_query():
    standing = Gallery(np.eye(3)).stand(np.zeros((1, 3)), np.array([0]), (1, 3))
    assert standing.ranks.tolist() == [0]
    assert standing.similarities.tolist() == [0.0]
    assert (standing.radii == 0.0).all()
    assert (standing.margins == 0.0).all()


def test_with_as_many_results_as_entries_nothing_can_be_displaced(rng):
    standing = Gallery(np.eye(3)).stand(rng.normal(size=(4, 3)), np.arange(4) % 3, (2, 3, 9))
    assert np.isfinite(standing.radii[:, 0]).all()
    assert (standing.radii[:, 1:] == np.inf).all()


def test_what_is_left_out_is_as_if_it_were_not_there(rng):
    raw = gallery_of(rng)
    queries = rng.normal(size=(30, 6))
    groups, of = rng.integers(0, 4, 40), rng.integers(0, 4, 30)
    itself = LeftOut(np.arange(40), rng.integers(0, 40, 30))
    without = [LeftOut(groups, of), itself]
    nearest = Gallery(raw).nearest(queries, without)
    mine = Gallery(raw).stand(queries, nearest, (1, 2), without)
    for number in range(30):
        kept = np.flatnonzero((groups != of[number]) & (np.arange(40) != itself.of[number]))
        alone, query = Gallery(raw[kept]), queries[number : number + 1]
        place = alone.nearest(query)
        assert nearest[number] == kept[place[0]]
        theirs = alone.stand(query, place, (1, 2))
        assert mine.ranks[number] == theirs.ranks[0] == 0
        assert mine.radii[number] == pytest.approx(theirs.radii[0], rel=1e-12)


def test_the_least_over_groups_is_that_over_all(rng):
    raw, queries = gallery_of(rng), rng.normal(size=(30, 6))
    queries[3] = 0.0
    chosen, groups = rng.integers(0, 40, 30), rng.integers(0, 5, 40)
    whole = Gallery(raw).stand(queries, chosen)
    parts = Gallery(raw).stand_by_group(queries, chosen, groups, 6)
    assert (parts.radii.min(axis=1) == whole.radii[:, 0]).all()
    assert (parts.margins.min(axis=1) == whole.margins[:, 0]).all()
    assert (parts.ranks == whole.ranks).all()
    assert (parts.similarities == whole.similarities).all()
    others = parts.radii[np.arange(30) != 3]
    assert (others[:, 5] == np.inf).all()
    without = Gallery(raw).stand(queries, chosen, without=[LeftOut(groups, np.full(30, 2))])
    assert (np.delete(parts.radii, 2, axis=1).min(axis=1) == without.radii[:, 0]).all()


def test_rows_that_are_all_near_each_other_are_not_all_subtracted_at_once(rng):
    """As an untrained network has them: 400,000 pairs, whose differences would be 400 MB."""
    raw = rng.normal(size=128) + 1e-3 * rng.normal(size=(2000, 128))
    gallery, queries = Gallery(raw), rng.normal(size=(200, 128))
    chosen = rng.integers(0, 2000, 200)
    tracemalloc.start()
    standing = gallery.stand(queries, chosen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
    for number in (0, 99, 199):
        rank, radius = truth(queries[number], gallery.vectors, chosen[number], 1)
        assert standing.ranks[number] == rank
        assert standing.radii[number, 0] <= radius
        assert standing.radii[number, 0] == pytest.approx(radius, rel=1e-6)


def test_blocks_of_queries_change_nothing(rng, monkeypatch):
    raw, queries = gallery_of(rng), rng.normal(size=(37, 6))
    chosen = rng.integers(0, 40, 37)
    own = LeftOut(np.arange(40), rng.integers(0, 40, 37))

    def measured():
        gallery = Gallery(raw)
        return (
            gallery.stand(queries, chosen, KS, [own]),
            gallery.stand_by_group(queries, chosen, np.arange(40) % 3, 3),
            gallery.nearest(queries, [own]),
        )

    once = measured()
    monkeypatch.setattr("model.evaluate.standing._BLOCK_NUMBERS", 100)
    again = measured()
    for mine, theirs in zip(once[:2], again[:2], strict=True):
        assert (mine.ranks == theirs.ranks).all()
        assert mine.radii == pytest.approx(theirs.radii, rel=1e-12)
    assert (once[2] == again[2]).all()
    assert (once[2] != own.of).all()


def test_an_entry_has_the_best_of_its_views_and_any_may_be_ahead():
    """Two pictures of two views each; ours are along x and y, theirs on either side of them."""
    ours, theirs = np.eye(2), np.array([[0.6, 0.8], [0.8, -0.6]])
    gallery = Gallery(np.concatenate((theirs, ours)), views=2)
    assert len(gallery) == 2
    queries = np.array([[2.0, 0.2], [0.1, 2.0], [2.0, 2.0]])
    assert gallery.nearest(queries).tolist() == [1, 1, 0]
    standing = gallery.stand(queries, np.ones(3, np.int64))
    assert standing.ranks.tolist() == [0, 0, 1]
    assert standing.similarities == pytest.approx([2.0, 2.0, 2.0] / np.linalg.norm(queries, axis=1))
    # Of each of their views the better of our two, and the worse of what is left.
    for query, radius in zip(queries, standing.radii[:, 0], strict=True):
        leads = [
            max((own - other) @ query / np.linalg.norm(own - other) for own in ours)
            for other in theirs
        ]
        assert radius == pytest.approx(min(leads))


def test_views_that_are_all_equal_are_one_view(rng):
    raw, queries = gallery_of(rng), rng.normal(size=(30, 6))
    chosen = rng.integers(0, 40, 30)
    once = Gallery(raw).stand(queries, chosen, KS)
    again = Gallery(np.repeat(raw, 3, axis=0), views=3).stand(queries, chosen, KS)
    assert (once.ranks == again.ranks).all()
    for mine, theirs in ((once.radii, again.radii), (once.margins, again.margins)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spread", [1.0, 0.2, 1e-3])
def test_looking_at_the_best_others_first_changes_nothing(rng, monkeypatch, spread):
    """Random rows, clusters and near rows; a metric with scales; copies, and queries of others."""
    raw = rng.normal(size=(8, 12))[rng.integers(0, 8, 240)] + spread * rng.normal(size=(240, 12))
    scales = np.geomspace(0.02, 1.0, 12)
    views, count = 3, 80
    chosen = rng.integers(0, count, 60)
    queries = raw[chosen * views] + 0.3 * spread * rng.normal(size=(60, 12))
    chosen[::4] = rng.integers(0, count, 15)
    without = [LeftOut(rng.integers(0, 5, count), rng.integers(0, 5, 60))]
    gallery = Gallery(raw, views, Proof(1.0, 1e-9, scales))

    def measured():
        return (
            gallery.stand(queries, chosen, (1, 3), without, (0.5, 2.0)),
            gallery.stand_by_group(queries, chosen, np.arange(count) % 4, 4, (0.5,)),
        )

    monkeypatch.setattr("model.evaluate.standing._FIRST_LOOK", count)
    whole = measured()
    monkeypatch.setattr("model.evaluate.standing._FIRST_LOOK", 8)
    for mine, theirs in zip(measured(), whole, strict=True):
        for name in ("ranks", "radii", "margins", "statistics"):
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=1e-9)
