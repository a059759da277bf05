"""Verdicts by margin + weight x cosine: against brute force, attacked, and with faults put in."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from bruteforce import kth_smallest
from galleries import KINDS, everything, norm_deviation, unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verdicts import Flat, best, one_sided, sines
from verdict_truth import SCALE, World, decide, seen_by, truth_of, violations, world_of

from index_builder.search.certified import certified_search
from model.certificate import match, statistic
from model.certificate.geometry import embedding_norm
from model.certificate.items import ItemRows
from model.certificate.match import Judging, MatchRule, judge, measure_statistics
from model.certificate.pairs import Candidates, Slack, score
from model.certificate.scan import PairScan
from model.certificate.statistic import Cones, cone_lengths
from model.embedder import ImageEmbedding
from model.errors import CertificateError

pytestmark = pytest.mark.without_shape_checks

WEIGHTS = (0.5, 2.0, 8.0)


def rules_around(value, k, weight):
    """Thresholds near a statistic and far from it, on both sides."""
    wanted = np.array([value * 0.97, value * 1.03, value - 0.3, value + 0.3])
    for threshold in np.unique(np.clip(wanted, 1e-3, 1.0 + weight - 1e-3)):
        yield MatchRule(k, float(threshold), weight)


def nearest(query, world, count):
    scores = np.full(world.count, -np.inf)
    np.maximum.at(scores, world.items, world.rows.astype(float) @ query)
    return np.argsort(-scores, kind="stable")[:count]


@pytest.mark.parametrize(
    ("kind", "views", "seen", "weight"),
    [
        ("isotropic", 1, 70, 0.5),
        ("isotropic", 1, 12, 2.0),
        ("clustered", 3, 70, 0.5),
        ("clustered", 3, 70, 2.0),
        ("clustered", 3, 25, 1.0),
        ("near_duplicates", 3, 70, 1.0),
        ("near_equal", 1, 70, 2.0),
        ("tight_clusters", 2, 70, 0.5),
    ],
)
def test_no_verdict_is_false_and_no_step_below_its_radius_turns_it(kind, views, seen, weight):
    rng = np.random.default_rng([len(kind), views, seen])
    gallery, asked = KINDS[kind](rng, 70, 12)
    world = world_of(rng, gallery, views)
    tried, verdicts = 0, set()
    lengths = 10.0 ** rng.uniform(-4, 4, size=(2, 1))
    for number, query in enumerate(asked[:2] * lengths):
        k = 1 + 2 * number
        for item in nearest(query, world, 2):
            value = truth_of(query, world, item, MatchRule(k, 0.5, weight)).statistic
            for rule in rules_around(value, k, weight):
                said, found, steps = violations(rng, query, world, item, rule, seen=seen)
                assert said == []
                tried += steps
                verdicts |= {bool(found.matches[0])} if steps else set()
    assert tried > 40
    assert False in verdicts


@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_verdict_in_a_metric_with_scales_stands_below_its_radius(weight):
    """Membership, and staying outside, are half-spaces: there the metric counts."""
    rng = np.random.default_rng(4)
    gallery, asked = KINDS["clustered"](rng, 60, 12)
    world = world_of(rng, gallery, 2)
    world = replace(world, scales=rng.permutation(np.geomspace(0.02, 1.0, 12)))
    outside = 0
    for query in asked[:3]:
        for item in nearest(query, world, 4)[[0, 3]]:
            value = truth_of(query, world, item, MatchRule(2, 0.5, weight)).statistic
            for rule in rules_around(value, 2, weight):
                said, found, steps = violations(rng, query, world, item, rule, seen=60)
                assert said == []
                outside += steps > 0 and found.statistics[0] >= rule.threshold > 0
    assert outside > 0


def test_of_one_rival_the_radius_is_the_distance_to_the_flip():
    """Not only sound: a hair beyond, in the plane of the query and the cone's axis, it flips."""
    rng = np.random.default_rng(5)
    flipped = 0
    for _ in range(20):
        rows = unit_rows(rng.normal(size=(2, 8)))
        world, query = World(rows), 3.0 * rng.normal(size=8)
        item = int(nearest(query, world, 1)[0])
        weight = float(rng.choice(WEIGHTS))
        value = truth_of(query, world, item, MatchRule(1, 0.5, weight)).statistic
        rule = MatchRule(
            1, float(np.clip(value * rng.uniform(0.8, 1.2), 0.01, 0.9 + weight)), weight
        )
        found, truth = (
            decide(query, everything(rows), world, item, rule),
            truth_of(query, world, item, rule),
        )
        limit = float(np.linalg.norm(query) * np.sin(min(abs(truth.room), np.pi / 2)))
        if not np.isfinite(truth.room) or (not found.matches[0] and not truth.is_in):
            continue
        plane = float(np.abs((rows[0].astype(float) - rows[1]) @ query))
        plane /= np.linalg.norm(rows[0].astype(float) - rows[1])
        wanted = min(limit, plane) if found.matches[0] else limit
        assert wanted * (1 - 1e-5) <= found.radii[0] * SCALE <= wanted
        flipped += 1
    assert flipped > 10


def test_a_statistic_above_its_threshold_does_not_put_a_result_in_the_top():
    """Weight 2, the rival at the query itself, the result at 0.3 rad: 1.761, and second."""
    query = np.array([5.0, 0.0])
    rows = unit_rows(np.array([[1.0, 0.0], [np.cos(0.3), np.sin(0.3)]]))
    found = decide(query, everything(rows), World(rows), 1, MatchRule(1, 0.5, 2.0))
    assert found.statistics[0] == pytest.approx(1.761, abs=1e-3)
    assert found.margins[0] == 0.0  # of -0.149
    assert not found.matches[0]
    # "No match" stands while the rival is ahead: up to the plane between the two.
    assert found.radii[0] * SCALE == pytest.approx(5.0 * 0.149, rel=3e-3)
    # Both embeddings are computed: two forward errors come off this radius as off any.
    less = decide(query, everything(rows), World(rows), 1, MatchRule(1, 0.5, 2.0), error=0.01)
    assert less.radii[0] * SCALE <= found.radii[0] * SCALE - 0.02 + 1e-9
    two = decide(query, everything(rows), World(rows), 1, MatchRule(2, 0.5, 2.0))
    assert two.matches[0]
    assert two.statistics[0] == 3.0  # no second rival


def test_weight_0_is_the_rule_of_margins():
    rng = np.random.default_rng(6)
    gallery, asked = KINDS["clustered"](rng, 60, 12)
    whole, positions = everything(gallery), np.arange(4)
    asked_of = {"lipschitz_bound": 1.0, "gain": 1.0, "forward_error": 0.0}
    for query in asked[:3]:
        old = judge(query, whole, positions, MatchRule(1, 0.05), **asked_of)
        new = judge(query, whole, positions, MatchRule(1, 0.05, 0.0), **asked_of)
        assert (old.statistics == old.margins).all()
        for name in ("matches", "margins", "statistics", "radii"):
            assert (getattr(old, name) == getattr(new, name)).all()


@pytest.mark.parametrize("views", [1, 4])
def test_a_statistic_of_candidates_brackets_that_of_the_whole_gallery(views):
    rng = np.random.default_rng(7)
    gallery, asked = KINDS["clustered"](rng, 90, 16)
    world = world_of(rng, gallery, views)
    narrowed = 0
    for query in asked[:2]:
        item = int(nearest(query, world, 1)[0])
        for seen in (90, 6):
            candidates = seen_by(query, world, item, seen)
            own = np.flatnonzero(candidates.items == item)
            weights = (0.0, *WEIGHTS)
            for weight, found in zip(
                weights, measure_statistics(query, candidates, own[:1], 2, weights), strict=True
            ):
                real = truth_of(query, world, item, MatchRule(2, 0.5, weight)).statistic
                assert found.value[0] <= max(real, 0.0 if weight == 0.0 else real) + 1e-9
                assert found.seen[0] >= real - 1e-9
                narrowed += found.unseen[0] < found.seen[0]
    assert narrowed > 0


def test_a_block_is_left_out_only_where_the_statistic_can_do_without_it_too():
    """Of two askers the stricter decides."""
    rng = np.random.default_rng(12)
    gallery, asked = KINDS["clustered"](rng, 900, 24)
    query, whole = asked[0], everything(gallery)
    norm = embedding_norm(query)
    scores = score(gallery, query, whole.norm_deviation)
    top = nearest(query, World(gallery), 2)

    def compared(where):
        slack = Slack.of(norm.high, dimension=24)
        scan = PairScan(whole, scores, top, k=1, norm=norm, slack=slack)
        if where is not None:
            scan.leave_out_only(where)
        return sum(lower.shape[1] for _, lower in scan)

    assert compared(None) < 900
    assert compared(lambda rest, _: np.ones(rest.size, dtype=bool)) == compared(None)
    assert compared(lambda rest, _: np.zeros(rest.size, dtype=bool)) == 900


@pytest.mark.parametrize("gallery_of", [KINDS["clustered"], one_sided])
def test_a_search_goes_deeper_until_its_verdicts_are_those_of_a_full_scan(gallery_of):
    gallery, asked = gallery_of(np.random.default_rng(11), 3000, 32)
    depths, matched = set(), set()
    for number, query in enumerate(asked[:3]):
        k, weight = 1 + number, WEIGHTS[number]
        top = best(query, everything(gallery), 5)
        values = [
            kth_smallest(sines(query, gallery, entry), k)
            + weight * float(gallery[entry].astype(float) @ query) / np.linalg.norm(query)
            for entry in top
        ]
        for threshold in (values[0] * 0.9999, values[0] * 1.0001, np.mean(values[:2])):
            index = Flat(gallery)
            (answer,) = certified_search(
                index,
                [ImageEmbedding(query, SCALE, 0.0, 8, 8)],
                lipschitz_bound=1.0,
                k=5,
                rule=MatchRule(k, float(threshold), weight),
            )
            depths.add(index.depths[-1])
            verdicts = answer.certificate.verdicts
            assert verdicts.is_decided
            for rank, (found, value) in enumerate(zip(verdicts.matches, values, strict=True)):
                assert found == (value >= threshold and rank < k)
                matched.add(bool(found))
    assert matched == {True, False}
    assert (depths == {128}) == (gallery_of is not one_sided)


@given(
    seed=st.integers(0, 1 << 30),
    distance=st.floats(-9.0, 0.5),
    weight=st.sampled_from(WEIGHTS),
    stretch=st.floats(-0.09, 0.09),
)
@settings(max_examples=60)
def test_the_length_of_an_axis_is_bounded_from_above_and_closely(seed, distance, weight, stretch):
    """In exact arithmetic, of rows a rounding to a diameter apart and of norms off 1."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=6)
    rows = np.stack([a / np.linalg.norm(a)] * 2)
    rows[1] += 10.0**distance * rng.normal(size=6) / np.sqrt(6)
    rows[1] *= (1.0 + stretch * min(1.0, 10.0**distance)) / np.linalg.norm(rows[1])
    a, b = ([Fraction(float(x)) for x in row.astype(np.float32)] for row in rows)
    apart = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    if apart == 0:
        return
    squares = [float(sum(x * x for x in row)) for row in (a, b)]
    # |u + weight a|^2 = 1 + 2 weight <a, a - b> / |a - b| + weight^2 |a|^2
    along = float(sum(x * (x - y) for x, y in zip(a, b, strict=True)))
    length = np.sqrt(np.longdouble(1) + weight * (2 * along / np.sqrt(np.longdouble(float(apart)))
             + weight * np.longdouble(squares[0])))  # fmt: skip
    unit = 14 * 2.0**-53
    wide = np.sqrt(float(apart)) * (1 + 1e-15)
    bound = cone_lengths(
        np.array([[wide]]), np.array(squares[:1]), np.array(squares[1:]), weight, unit
    )[0, 0]
    assert length <= bound * (1 + 1e-16) <= 1 + weight * 1.1
    if wide > 1e-3 and squares[0] >= squares[1]:
        assert bound <= length * (1 + 1e-6)


@given(
    share=st.floats(-1, 1),
    threshold=st.floats(0.01, 2.9),
    lengths=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
)
def test_a_longer_axis_never_leaves_more_room(share, threshold, lengths):
    """Whichever side the value is on; beyond |w| there is no query."""
    short, long = sorted(lengths)
    value = np.array([share * short])
    less, more = (Cones(value, length, np.array([1e-9])) for length in (long, short))
    assert max(0.0, less.staying(threshold)[0]) <= max(0.0, more.staying(threshold)[0]) + 1e-12
    if threshold <= short:  # an empty cone is never entered
        entering = -less.entering(threshold)[0], -more.entering(threshold)[0]
        assert max(0.0, entering[0]) <= max(0.0, entering[1]) + 1e-12


def test_where_the_unseen_could_decide_nothing_is_claimed():
    """Candidates alone would say "match"; the one row left out says no, or is ahead."""
    rows = unit_rows(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.01, 0.0]]))
    query = np.array([1.0, 0.002, 0.0])
    partial = Candidates(np.array([0, 1]), rows[:2], 0.99999, 3, norm_deviation(rows))
    rule, world = MatchRule(1, 1.1, 1.0), World(rows)
    found = decide(query, partial, world, 0, rule)
    assert not found.is_decided
    assert not found.matches[0]
    assert found.radii.tolist() == [0.0]
    assert not decide(query, everything(rows), world, 0, rule).matches[0]
    # That its statistic is high enough does not say that it is first.
    unknown = Candidates(np.array([0, 1]), rows[:2], 1.1, 3, norm_deviation(rows))
    assert not decide(query, unknown, world, 0, MatchRule(1, 0.05, 1.0)).is_decided


@pytest.mark.parametrize(
    ("threshold", "weight"),
    [(1.5, 0.5), (3.0, 2.0), (0.0, 1.0), (0.5, -0.1), (0.5, 8.5), (9.0, 8.0), (0.5, float("nan"))],
)
def test_a_rule_that_could_decide_nothing_is_refused(threshold, weight):
    with pytest.raises(CertificateError, match=r"needs k >= 1 and a threshold|weight must be"):
        MatchRule(1, threshold, weight)


def test_a_zero_query_matches_nothing():
    rows = unit_rows(np.eye(3))
    found = decide(np.zeros(3), everything(rows), World(rows), 0, MatchRule(1, 0.1, 1.0))
    assert (found.matches[0], found.statistics[0], found.radii[0]) == (False, 0.0, 0.0)


# --- faults -------------------------------------------------------------------------------------


def found_violations(scenes):
    rng, found = np.random.default_rng(8), []
    for query, world, item, rule, seen in scenes:
        found += violations(rng, query, world, item, rule, seen=seen, share=0.9999)[0]
    return found


def near_rows():
    """A query that sees two rows a few millionths apart, of norms that differ by their rounding."""
    rng = np.random.default_rng(9)
    for _ in range(6):
        base = rng.normal(size=12)
        rows = unit_rows(base + 1e-6 * rng.normal(size=(2, 12)))
        world, query = World(rows), base + rng.normal(size=12)
        for item in (0, 1):
            for rule in rules_around(
                truth_of(query, world, item, MatchRule(1, 0.5, 1.0)).statistic, 1, 1.0
            ):
                yield query, world, item, rule, 2


def some_items(weight):
    rng = np.random.default_rng(10)
    pictures = np.repeat(rng.normal(size=(12, 8)), 3, axis=0)
    rows = unit_rows(pictures + 0.8 * rng.normal(size=(36, 8)))
    world = World(rows, np.repeat(np.arange(12), 3))
    for query in pictures[:12:6] + rng.normal(size=(2, 8)):
        for item in nearest(query, world, 2):
            value = truth_of(query, world, item, MatchRule(1, 0.5, weight)).statistic
            for rule in rules_around(value, 1, weight):
                yield query, world, int(item), rule, 36


def unseen_rivals():
    """One row seen, and rivals beyond it: what was not looked at is the first to decide."""
    for turn in np.linspace(0.7, 0.9, 5):
        others = np.array([[np.cos(turn), np.sin(turn)], [np.cos(turn), -np.sin(turn)]])
        rows, query = unit_rows(np.concatenate(([[1.0, 0.0]], others))), np.array([1.0, 0.0])
        world = World(rows)
        seen = replace(
            everything(rows, world.items),
            rows=np.arange(1),
            vectors=rows[:1],
            items=np.arange(1),
            unseen_score=float(np.cos(turn)) + 1e-6,
        )
        value = truth_of(query, world, 0, MatchRule(1, 0.5, 0.5)).statistic
        for share in (0.8, 0.9, 0.95):
            yield query, world, 0, MatchRule(1, float(share * value), 0.5), seen


def counter_example():
    rows = unit_rows(np.array([[1.0, 0.0], [np.cos(0.3), np.sin(0.3)]]))
    yield np.array([5.0, 0.0]), World(rows), 1, MatchRule(1, 0.5, 2.0), 2


def lower_end(distance, own_squares, other_squares, weight, rounding):
    apart = np.abs(own_squares[:, None] - other_squares) + 4.0 * rounding
    squared = 1.0 + weight * (distance - apart / distance) + weight**2 * own_squares[:, None]
    return np.sqrt(np.maximum(squared, (1.0 - weight) ** 2 + 1e-9))


def length_of(number):
    return lambda distance, _own, _other, weight, _rounding: np.full_like(distance, number(weight))


FAULTS = {
    "the lower end of |w|": (match, "cone_lengths", lower_end, near_rows),
    "|1 - weight| for |w|": (
        match,
        "cone_lengths",
        length_of(lambda weight: abs(1.0 - weight)),
        lambda: some_items(0.5),
    ),
    "1 for |w|": (match, "cone_lengths", length_of(lambda _: 1.0), lambda: some_items(1.0)),
    "the top k forgotten": (
        Judging,
        "_in_the_top",
        lambda self: (np.ones(self._scan.kept.count, dtype=bool),) * 2,
        counter_example,
    ),
    "membership of a match forgotten": (
        match,
        "radii_in_pixels",
        lambda radii, **_: np.where(radii > 0.0, np.inf, 0.0),
        lambda: some_items(2.0),
    ),
    "the weight forgotten for the unseen": (
        match,
        "cone_angles",
        lambda values, _lengths: statistic.cone_angles(values, 1.0),
        unseen_rivals,
    ),
    "the worst of the own rows": (
        ItemRows,
        "largest",
        lambda self, values: (
            values if self.starts is None else np.minimum.reduceat(values, self.starts, axis=0)
        ),
        lambda: some_items(1.0),
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_caught_where_honesty_is_not(fault, monkeypatch: pytest.MonkeyPatch):
    owner, name, faulty, scenes = fault
    assert found_violations(scenes()) == []
    monkeypatch.setattr(owner, name, faulty)
    assert found_violations(scenes()) != []


def test_statistics_by_the_winning_view_alone_are_caught():
    rng = np.random.default_rng(26)
    pictures = np.repeat(rng.normal(size=(30, 12)), 3, axis=0)
    world = World(
        unit_rows(pictures + 0.8 * rng.normal(size=(90, 12))), np.repeat(np.arange(30), 3)
    )
    whole, rule, caught = everything(world.rows, world.items), MatchRule(1, 0.5, 0.5), 0
    for query in rng.normal(size=(20, 12)) + pictures[:20]:
        item = int(nearest(query, world, 1)[0])
        own = world.views(item)
        winner = own[np.argmax(world.rows[own].astype(float) @ query)]
        keep = np.flatnonzero((world.items != item) | (np.arange(90) == winner))
        alone = replace(
            whole, rows=keep, items=whole.items[keep], vectors=whole.vectors[keep], size=keep.size
        )
        wanted = truth_of(query, world, item, rule).statistic
        assert decide(query, whole, world, item, rule).statistics[0] == pytest.approx(wanted)
        caught += abs(decide(query, alone, world, item, rule).statistics[0] - wanted) > 1e-6
    assert caught > 0
