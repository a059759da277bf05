import numpy as np
import pytest

from model.evaluate.embedding import Embedded
from model.evaluate.radii import NORMALISED, PROVED, UPLOAD, Proof
from model.evaluate.rows import chosen, values
from model.evaluate.triplets import agreement, decide, measure_triplets, natural_scores

EPSILONS = (0.05, 0.1, 0.5, 1.0, 2.0)
PROOF = Proof(1.0, 1e-9)


def sides(rng, count=200, dimension=5, scale=1.0):
    return [scale * rng.normal(size=(count, dimension)) for _ in range(3)]


def papers_formula(reference, left, right):
    """The public code's radius, row by row; inf on a tie there, 0 here."""
    out = []
    for row in zip(reference, left, right, strict=True):
        unit = [side / np.linalg.norm(side) for side in row]
        margin = abs((1 - unit[0] @ unit[1]) - (1 - unit[0] @ unit[2]))
        bound = np.linalg.norm(unit[1] - unit[2])
        out.append(margin / bound if bound else 0.0)
    return np.array(out)


def measured(reference, left, right, votes, *, proof=PROOF, groups=None, gains=None):
    pictures = np.stack((left, right), axis=1).reshape(-1, left.shape[1])
    embedded = Embedded(pictures, reference, proof, gains)
    return measure_triplets("m", embedded, votes, groups or {}, EPSILONS)


def value(rows, **fields):
    (row,) = chosen(rows, task="2afc", metric="m", by="all", **fields)
    return row["value"]


def test_our_radius_is_that_of_the_papers_formula_times_the_norm(rng):
    reference, left, right = sides(rng)
    decisions = decide(reference, left, right)
    wanted = papers_formula(reference, left, right) * np.linalg.norm(reference, axis=1)
    assert decisions.radii == pytest.approx(wanted, rel=1e-6, abs=1e-12)
    assert (decisions.radii <= wanted * (1.0 + 1e-12)).all()


def test_a_reference_moved_by_less_than_the_radius_decides_alike_and_by_more_may_not(rng):
    reference, left, right = sides(rng, count=60)
    decisions = decide(reference, left, right)
    units = [side / np.linalg.norm(side, axis=1)[:, None] for side in (left, right)]
    worst = units[1] - units[0]
    worst *= (np.sign(decisions.left_closer - 0.5) / np.linalg.norm(worst, axis=1))[:, None]
    for _ in range(50):
        step = rng.normal(size=reference.shape)
        step /= np.linalg.norm(step, axis=1)[:, None]
        for direction in (step, worst):
            moved = decide(reference + 0.999 * decisions.radii[:, None] * direction, left, right)
            assert (moved.left_closer == decisions.left_closer).all()
    flipped = decide(reference + 1.001 * decisions.radii[:, None] * worst, left, right)
    assert (flipped.left_closer != decisions.left_closer).all()


def test_the_papers_formula_overclaims_where_the_norm_is_below_1():
    """A counter-example: it claims 0.141 for a reference that flips at 0.071."""
    reference = np.array([[0.4, 0.3]])
    left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    claimed = papers_formula(reference, left, right)[0]
    radius = decide(reference, left, right).radii[0]
    assert np.linalg.norm(reference) == pytest.approx(0.5)
    assert claimed == pytest.approx(2.0 * radius)
    worst = np.array([[-1.0, 1.0]]) / np.sqrt(2.0)
    assert decide(reference + 0.99 * claimed * worst, left, right).right_closer[0]
    assert decide(reference, left, right).left_closer[0]
    rows, _ = measured(reference, left, right, np.zeros(1))
    assert value(rows, figure="certified_score", epsilon=0.1, **NORMALISED) == 1.0
    assert value(rows, figure="certified_score", epsilon=0.1, **PROVED) == 0.0
    assert value(rows, figure="certified_score", epsilon=0.05, **PROVED) == 1.0
    assert value(rows, figure="norm_below_1") == 1.0


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_equal_pictures_tie_at_radius_0_and_score_a_half(rng, scale):
    reference, left, _ = sides(rng, count=64, dimension=512, scale=scale)
    decisions = decide(reference, left, left.copy())
    assert not decisions.left_closer.any()
    assert not decisions.right_closer.any()
    assert (decisions.radii == 0.0).all()
    votes = rng.random(64)
    assert (natural_scores(decisions, votes) == 0.5).all()
    assert (agreement(decisions, votes) == 0.0).all()


def test_a_zero_reference_ties():
    decisions = decide(np.zeros((1, 2)), np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert (decisions.radii[0], decisions.left_closer[0], decisions.right_closer[0]) == (0, 0, 0)
    rows, curve = measured(
        np.zeros((1, 2)), np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.ones(1)
    )
    assert value(rows, figure="score") == 0.5
    assert curve.radii.tolist() == [0.0]


def test_scores_are_those_of_a_plain_loop(rng):
    reference, left, right = sides(rng, scale=3.0)
    votes = rng.choice([0.0, 0.25, 0.5, 1.0], 200)
    left[:9] = right[:9]
    rows, curve = measured(reference, left, right, votes)
    norms = np.linalg.norm(reference, axis=1)
    radii = papers_formula(reference, left, right) * norms
    natural, certified = 0.0, dict.fromkeys(EPSILONS, 0.0)
    for number, vote in enumerate(votes):
        unit = [side[number] / np.linalg.norm(side[number]) for side in (left, right)]
        gap = reference[number] @ unit[0] - reference[number] @ unit[1]
        if number < 9:
            natural += 0.5
            continue
        credit = 1.0 - vote if gap > 0 else vote
        natural += credit
        for epsilon in EPSILONS:
            certified[epsilon] += credit * (radii[number] > epsilon)
    assert value(rows, figure="score") == pytest.approx(natural / 200)
    for epsilon in EPSILONS:
        found = value(rows, figure="certified_score", epsilon=epsilon, **PROVED)
        assert found == pytest.approx(certified[epsilon] / 200)
    assert curve.shares(np.array(EPSILONS)) == pytest.approx(
        [certified[epsilon] / 200 for epsilon in EPSILONS]
    )


def test_certified_scores_fall_with_the_budget_and_stay_below_the_natural_one(rng):
    rows, _ = measured(*sides(rng, scale=4.0), rng.random(200))
    natural = value(rows, figure="score")
    for claim in (PROVED, NORMALISED):
        found = [row["value"] for row in chosen(rows, **claim)]
        assert len(found) == len(EPSILONS)
        assert found == sorted(found, reverse=True)
        assert found[0] <= natural


def test_groups_weighted_by_their_size_make_the_whole(rng):
    groups = {"split": ["test_imagenet"] * 50 + ["test_no_imagenet"] * 149 + [""]}
    rows, _ = measured(*sides(rng), np.ones(200), groups=groups)
    score = chosen(rows, figure="score")
    assert values(score, "group") == [None, "test_imagenet", "test_no_imagenet"]
    assert values(score, "count") == [200, 50, 149]


def test_a_metric_without_a_bound_has_no_certified_score(rng):
    rows, curve = measured(*sides(rng), np.ones(200), proof=None)
    assert curve is None
    assert {row["figure"] for row in rows} == {"score"}


def test_uploads_count_by_their_gain(rng):
    reference, left, right = sides(rng, count=300)
    gains = rng.uniform(0.1, 0.3, 300)
    rows, _ = measured(reference, left, right, np.ones(300), gains=gains)
    decisions = decide(reference, left, right)
    for epsilon in EPSILONS:
        found = value(rows, figure="certified_score", epsilon=epsilon, **UPLOAD)
        wanted = decisions.right_closer & (decisions.radii / gains > epsilon)
        assert found == pytest.approx(wanted.mean(), abs=1e-9)


def test_a_heads_scales_make_radii_larger_and_the_worst_move_that_it_allows_flips(rng):
    """h moves by s o x for a change x of the input, so <h, u> by <x, s o u>: all of it is paid."""
    reference, left, right = sides(rng, count=80)
    scales = rng.uniform(0.05, 1.0, 5)
    plain, aware = (decide(reference, left, right, Proof(1.0, 0.0, one)) for one in (None, scales))
    assert (aware.radii > plain.radii).all()
    assert (aware.margins == plain.margins).all()
    units = [side / np.linalg.norm(side, axis=1)[:, None] for side in (left, right)]
    worst = scales * (units[1] - units[0])
    worst *= (np.sign(aware.left_closer - 0.5) / np.linalg.norm(worst, axis=1))[:, None]
    moves = scales * worst * aware.radii[:, None]
    kept = decide(reference + (1.0 - 1e-9) * moves, left, right)
    assert (kept.left_closer == aware.left_closer).all()
    flipped = decide(reference + (1.0 + 1e-6) * moves, left, right)
    assert (flipped.left_closer != aware.left_closer).all()


def test_the_forward_error_counts_twice_at_the_reference(rng):
    reference, left, right = sides(rng)
    exact, computed = (decide(reference, left, right, Proof(1.0, e)) for e in (0.0, 0.01))
    assert computed.radii == pytest.approx(np.maximum(0.0, exact.radii - 0.02), abs=1e-9)
