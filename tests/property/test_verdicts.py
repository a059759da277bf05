"""Match or no match by the margin: against brute force, and no step below a radius flips it."""

from functools import cache, partial

import numpy as np
import pytest
from attacks import move
from bruteforce import kth_smallest
from galleries import KINDS, everything, norm_deviation, retrieve, unit_rows
from hypothesis import given
from hypothesis import strategies as st

from index_builder.search.certified import certified_search
from model.certificate.match import MatchRule, judge, measure_margins
from model.certificate.pairs import Candidates, rank, score
from model.certificate.search import certify_search
from model.embedder import ImageEmbedding
from model.errors import CertificateError

pytestmark = pytest.mark.without_shape_checks

SCALE = 2.0


def sines(query, gallery, entry):
    """<g, u> / |g| for each plane between an entry and another, in extended precision, (N,).

    inf at itself; 0 for another that is equal, from which it stands clear in no direction.
    """
    wide = query.astype(np.longdouble)
    difference = gallery[entry].astype(np.longdouble) - gallery.astype(np.longdouble)
    apart = np.sqrt((difference * difference).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (difference @ wide / apart / np.sqrt((wide * wide).sum())).astype(np.float64)
    equal = (gallery == gallery[entry]).all(axis=1)
    found[equal] = 0.0
    found[entry] = np.inf
    return found


def answer(query, gallery, k):
    """What the program answers, scored and ranked by its own code."""
    scores = score(gallery, query, 1e-6).values
    return rank(scores, np.arange(scores.size), k)


def true_margin(query, gallery, entry, k):
    return kth_smallest(sines(query, gallery, entry), k)


def true_radius(query, margin, rule):
    """Distance to where the verdict can first flip, in embedding space, from the formula."""
    left = abs(np.arcsin(np.clip(margin, -1, 1)) - np.arcsin(rule.threshold))
    return float(np.linalg.norm(query) * np.sin(min(left, np.pi / 2)))


def decide(query, candidates, positions, rule, error=0.0):
    return judge(
        query, candidates, positions, rule, lipschitz_bound=1.0, gain=SCALE, forward_error=error
    )


def best(query, candidates, count):
    scores = candidates.vectors.astype(np.float64) @ query
    return np.argsort(-scores, kind="stable")[:count]


def rules_around(margins):
    """Thresholds that split these margins: between them, and a hair beside each."""
    values = np.unique(np.clip(margins[np.isfinite(margins)], 1e-6, 0.999))
    middle = (values[:-1] + values[1:]) / 2
    return np.clip(np.concatenate((middle, values * 1.001, values * 0.999, [1e-9])), 1e-12, 0.9999)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_margins_and_radii_are_those_of_brute_force(kind, k):
    gallery, asked = KINDS[kind](np.random.default_rng(k), 400, 48)
    judged = 0
    for query in asked[:3]:
        whole = everything(gallery)
        top = best(query, whole, 6)
        margin = cache(partial(true_margin, query, gallery, k=k))
        for threshold in rules_around(np.array([margin(entry) for entry in top.tolist()]))[:8]:
            rule = MatchRule(k, float(threshold))
            for candidates in (whole, retrieve(query, gallery, 60), retrieve(query, gallery, 9)):
                positions = best(query, candidates, 6)
                found = decide(query, candidates, positions, rule)
                for place, entry in enumerate(candidates.rows[positions].tolist()):
                    real = margin(entry)
                    if found.radii[place] > 0.0:
                        judged += 1
                        assert found.matches[place] == (real >= threshold)
                        limit = true_radius(query, real, rule)
                        assert found.radii[place] * SCALE <= limit
                        if candidates.are_all and abs(real) < 0.999:
                            assert found.radii[place] * SCALE >= limit * (1 - 1e-5) - 1e-5
    assert judged > 30


@pytest.mark.parametrize("kind", ["isotropic", "clustered", "near_duplicates"])
def test_a_margin_of_candidates_brackets_the_margin_of_the_whole_gallery(kind):
    gallery, asked = KINDS[kind](np.random.default_rng(5), 600, 48)
    narrowed = 0
    for query in asked[:6]:
        for k in (1, 3):
            for m in (8, 64, 600):
                candidates = retrieve(query, gallery, m)
                positions = best(query, candidates, 3)
                margins = measure_margins(query, candidates, positions, k)
                for place, entry in enumerate(candidates.rows[positions]):
                    real = true_margin(query, gallery, entry, k)
                    # Of distances that are rounded up; what is negative is none.
                    assert margins.value[place] <= max(real, 0.0) + 1e-12
                    assert margins.seen[place] >= real - 1e-8
                    narrowed += margins.unseen[place] < margins.seen[place]
    assert narrowed, "the tail never mattered: the test says nothing about it"


def flipping_steps(rng, query, gallery, entry, rule):
    """Unit steps across the surface of each cone by the shortest way, and some others."""
    along = query / np.linalg.norm(query)
    values = sines(query, gallery, entry)
    for other in np.argsort(values)[: rule.k + 4]:
        normal = gallery[entry].astype(np.float64) - gallery[other].astype(np.float64)
        if not normal.any():
            continue
        normal /= np.linalg.norm(normal)
        side = normal - (normal @ along) * along
        length = np.linalg.norm(side)
        if length == 0.0:
            continue
        turn = abs(np.arcsin(np.clip(values[other], -1, 1)) - np.arcsin(rule.threshold))
        turn = min(turn, np.pi / 2)
        sign = -1.0 if values[other] >= rule.threshold else 1.0
        yield sign * np.cos(turn) * side / length - np.sin(turn) * along
        yield sign * side / length
        yield -sign * normal
    yield -along
    random = rng.normal(size=query.size)
    yield random / np.linalg.norm(random)


@pytest.mark.parametrize(("k", "error"), [(1, 0.0), (3, 1e-4)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_step_below_its_radius_flips_a_verdict(kind, k, error):
    rng = np.random.default_rng(9)
    gallery, asked = KINDS[kind](np.random.default_rng(17), 240, 40)
    seen = set()
    for query in asked[:2]:
        whole = everything(gallery)
        top = best(query, whole, 3)
        margins = np.array([true_margin(query, gallery, entry, k) for entry in top])
        for threshold in rules_around(margins)[:5]:
            rule = MatchRule(k, float(threshold))
            candidates = retrieve(query, gallery, 100)
            verdicts = decide(query, candidates, best(query, candidates, 3), rule, error)
            for place, position in enumerate(best(query, candidates, 3)):
                radius, entry = verdicts.radii[place], candidates.rows[position]
                if radius == 0.0:
                    continue
                seen.add(bool(verdicts.matches[place]))
                length = radius * SCALE + 2.0 * error
                for step in flipping_steps(rng, query, gallery, entry, rule):
                    moved = move(query, step, length)
                    after = decide(moved, whole, np.array([entry]), rule)
                    assert after.is_decided
                    assert after.matches[0] == verdicts.matches[place]
                    if after.matches[0]:
                        assert entry in answer(moved, gallery, k)
    # Rows this near to each other have no margin to speak of; copies have it against others only.
    assert seen == {True, False} or kind in (
        "neighbouring_floats",
        "copies_only",
        "near_equal",
        "tight_clusters",
    )


@pytest.mark.parametrize("is_match", [True, False])
def test_a_hair_beyond_its_radius_a_verdict_flips(is_match):
    """One competitor decides: the radius is exact in embedding space, not only sound."""
    rng = np.random.default_rng(2)
    gallery, asked = KINDS["isotropic"](rng, 40, 24)
    flipped = 0
    for query in asked:
        entry = int(best(query, everything(gallery), 1)[0])
        values = np.sort(sines(query, gallery, entry))
        # Between the smallest and the second smallest only one competitor stands too near.
        threshold = values[0] * 0.6 if is_match else (values[0] + values[1]) / 2
        rule = MatchRule(1, float(threshold))
        found = decide(query, everything(gallery), np.array([entry]), rule)
        assert found.matches[0] == is_match
        step = next(flipping_steps(rng, query, gallery, entry, rule))
        for factor, wanted in ((1 - 1e-6, is_match), (1 + 1e-4, not is_match)):
            moved = query + step * found.radii[0] * SCALE * factor
            after = decide(moved, everything(gallery), np.array([entry]), rule)
            flipped += after.matches[0] == (not is_match)
            assert wanted == after.matches[0] or (not is_match and values[1] < threshold * 1.05)
    assert flipped >= 12


@pytest.mark.parametrize("step_down", [1e-8, 1e-5, 1e-3])
def test_rows_a_rounding_apart_keep_their_executed_verdict(step_down):
    """Without the slack on both sides, computed margins of such rows flip on the way."""
    rng = np.random.default_rng(8)
    certified = 0
    for _ in range(60):
        dimension = int(rng.integers(8, 65))
        pair = np.repeat(rng.normal(size=(1, dimension)), 2, axis=0)
        pair[1] += rng.normal(size=dimension) * 10.0 ** rng.uniform(-7, -1)
        pair = unit_rows(pair)
        query = rng.normal(size=dimension)
        first = int(best(query, everything(pair), 1)[0])
        values = sines(query, pair, first)
        rule = MatchRule(1, float(np.clip(values[1 - first] * rng.uniform(0.9, 1.1), 1e-9, 0.99)))
        found = decide(query, everything(pair), np.array([first]), rule)
        if found.radii[0] == 0.0:
            continue
        certified += 1
        for step in flipping_steps(rng, query, pair, first, rule):
            for wobble in (0.0, 1e-10):
                direction = step + wobble * rng.normal(size=dimension)
                direction /= np.linalg.norm(direction)
                moved = move(query, direction, found.radii[0] * SCALE * (1 - step_down))
                after = decide(moved, everything(pair), np.array([first]), rule)
                assert after.matches[0] == found.matches[0]
    assert certified > 30


class Flat:
    """A gallery behind the interface of an index: float32 retrieval, and everything."""

    def __init__(self, gallery):
        self._gallery = gallery
        self.size = self.vector_count = gallery.shape[0]
        self.most_views = 1
        self.depths = []

    def search(self, queries, m):
        self.depths.append(m)
        return [retrieve(query, self._gallery, m) for query in queries]

    def of_items(self, items):
        raise AssertionError(f"every row is an item, got {items}")

    def everything(self) -> Candidates:
        self.depths.append(self.vector_count)
        return everything(self._gallery)


def one_sided(rng, count, dimension):
    """All competitors lie on the first row's side, far nearer to it than the tail bound fears."""
    others = rng.normal(size=(count - 1, dimension)) * 0.02
    turn = np.radians(80.0 + rng.uniform(0.0, 0.5, count - 1))
    others[:, 0] = np.cos(turn)
    others[:, 1] = np.sin(turn)
    first = np.zeros((1, dimension))
    first[0, :2] = np.cos(np.radians(20.0)), np.sin(np.radians(20.0))
    asked = np.eye(dimension)[:1] + 0.01 * rng.normal(size=(8, dimension))
    return unit_rows(np.concatenate((first, others))), asked


@pytest.mark.parametrize("gallery_of", [*map(KINDS.get, ("isotropic", "clustered")), one_sided])
def test_a_search_goes_deeper_until_its_verdicts_are_those_of_a_full_scan(gallery_of):
    gallery, asked = gallery_of(np.random.default_rng(11), 3000, 32)
    depths = set()
    for query in asked[:4]:
        top = best(query, everything(gallery), 5)
        for k in (1, 3):
            margins = [true_margin(query, gallery, entry, k) for entry in top]
            for threshold in (0.02, 0.3, float(np.clip(max(margins) * 0.9999, 0.01, 0.9))):
                rule, index = MatchRule(k, threshold), Flat(gallery)
                embedding = ImageEmbedding(query, SCALE, 0.0, 8, 8)
                answer = certified_search(index, [embedding], lipschitz_bound=1.0, k=5, rule=rule)
                verdicts = answer[0].certificate.verdicts
                depths.add(index.depths[-1])
                assert verdicts.is_decided
                rows = answer[0].candidates.rows[answer[0].certificate.positions]
                for entry, match, margin in zip(
                    rows, verdicts.matches, verdicts.margins, strict=True
                ):
                    real = true_margin(query, gallery, entry, k)
                    assert match == (real >= threshold)
                    assert (margin >= threshold) == match
    assert (depths == {128}) == (gallery_of is not one_sided)


@given(
    seed=st.integers(0, 1 << 30),
    k=st.integers(1, 4),
    thresholds=st.tuples(st.floats(1e-6, 0.99), st.floats(1e-6, 0.99)),
)
def test_a_stricter_rule_matches_less_and_is_farther_from_matching(seed, k, thresholds):
    gallery, asked = KINDS["clustered"](np.random.default_rng(seed), 30, 12)
    low, high = sorted(thresholds)
    candidates = everything(gallery)
    positions = best(asked[0], candidates, 3)
    loose = decide(asked[0], candidates, positions, MatchRule(k, low))
    tight = decide(asked[0], candidates, positions, MatchRule(k, high))
    assert not (tight.matches & ~loose.matches).any()
    both = tight.matches & loose.matches
    assert (tight.radii[both] <= loose.radii[both]).all()
    neither = ~tight.matches & ~loose.matches
    assert (tight.radii[neither] >= loose.radii[neither]).all()


@given(seed=st.integers(0, 1 << 30), power=st.floats(-30, 30), k=st.integers(1, 3))
def test_the_verdict_and_the_margin_do_not_depend_on_the_length_of_the_query(seed, power, k):
    gallery, asked = KINDS["clustered"](np.random.default_rng(seed), 30, 12)
    candidates = everything(gallery)
    positions = best(asked[0], candidates, 3)
    one = decide(asked[0], candidates, positions, MatchRule(k, 0.1))
    other = decide(asked[0] * 10.0**power, candidates, positions, MatchRule(k, 0.1))
    # Not bit for bit: the length is rounded.
    assert (one.matches == other.matches)[one.radii > 0].all()
    np.testing.assert_allclose(one.margins, other.margins, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.radii, other.radii / 10.0**power, rtol=1e-5, atol=1e-9)


def test_a_margin_is_the_one_that_a_search_with_that_k_answers():
    gallery, asked = KINDS["clustered"](np.random.default_rng(1), 200, 32)
    for query in asked[:6]:
        for k in (1, 4):
            certificate = certify_search(
                query, everything(gallery), k=k, lipschitz_bound=1.0, gain=1.0, forward_error=0.0
            )
            margins = measure_margins(query, everything(gallery), certificate.positions, k).value
            np.testing.assert_allclose(np.maximum(margins, 0), certificate.margins, atol=1e-7)


def test_a_zero_query_matches_nothing_and_proves_nothing():
    gallery, _ = KINDS["isotropic"](np.random.default_rng(0), 20, 8)
    found = decide(np.zeros(8), everything(gallery), np.arange(3), MatchRule(1, 0.1))
    assert not found.matches.any()
    assert found.margins.tolist() == found.radii.tolist() == [0.0] * 3
    with pytest.raises(CertificateError, match="a zero embedding has no margins"):
        measure_margins(np.zeros(8), everything(gallery), np.arange(3), 1)


def test_no_results_have_no_verdicts():
    gallery, asked = KINDS["isotropic"](np.random.default_rng(0), 20, 8)
    for candidates in (everything(gallery), retrieve(asked[0], gallery, 5)):
        found = decide(asked[0], candidates, np.zeros(0, dtype=np.int64), MatchRule(1, 0.1))
        assert found.matches.size == found.margins.size == found.radii.size == 0
        assert found.is_decided


def test_where_the_unseen_could_decide_nothing_is_claimed():
    """Candidates alone would say "match"; the one row left out says no."""
    gallery = unit_rows(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.01, 0.0]]))
    query = np.array([1.0, 0.0, 0.0])
    seen = Candidates(np.array([0, 1]), gallery[:2], 0.99996, 3, norm_deviation(gallery))
    rule = MatchRule(1, 0.3)
    found = decide(query, seen, np.array([0]), rule)
    assert not found.is_decided
    assert found.radii.tolist() == [0.0]
    assert not decide(query, everything(gallery), np.array([0]), rule).matches[0]


def test_a_verdict_ends_where_an_unseen_entry_may_end_it():
    gallery = unit_rows(np.array([[1.0, 0.0], [0.0, 1.0], [0.9, np.sqrt(0.19)]]))
    query = np.array([1.0, 0.0])
    seen = Candidates(np.array([0, 1]), gallery[:2], 0.9, 3, norm_deviation(gallery))
    rule = MatchRule(1, 0.1)
    found = decide(query, seen, np.array([0]), rule)
    assert found.is_decided
    assert found.matches[0]
    limit = true_radius(query, true_margin(query, gallery, 0, rule.k), rule)
    assert limit * (1 - 1e-4) <= found.radii[0] * SCALE <= limit


@pytest.mark.parametrize(
    ("k", "threshold"), [(0, 0.1), (1, 0.0), (1, 1.0), (1, float("nan")), (1, -0.5)]
)
def test_a_rule_that_could_decide_nothing_is_refused(k, threshold):
    with pytest.raises(CertificateError, match="a match rule needs k >= 1 and a threshold"):
        MatchRule(k, threshold)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_is_refused(poison):
    gallery, asked = KINDS["isotropic"](np.random.default_rng(0), 20, 8)
    query = asked[0].copy()
    query[3] = poison
    with pytest.raises(CertificateError, match="finite"):
        decide(query, everything(gallery), np.arange(2), MatchRule(1, 0.1))
