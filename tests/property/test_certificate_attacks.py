"""No step shorter than a published radius changes what the radius promises, as executed."""

import numpy as np
import pytest
from attacks import directions, move, normals
from galleries import KINDS, everything, retrieve

from model.certificate.geometry import embedding_norm, flip_radius
from model.certificate.pairs import rank, score
from model.certificate.search import certify_search

pytestmark = pytest.mark.without_shape_checks

SCALE = 2.0


def certify(query, candidates, k, max_distance=None, error=0.0):
    return certify_search(
        query,
        candidates,
        k=k,
        lipschitz_bound=1.0,
        gain=SCALE,
        forward_error=error,
        max_distance=max_distance,
    )


def answer(query, gallery, k, max_distance=None):
    """What the program answers, scored and ranked by its own code; the last test checks that."""
    scores = score(gallery, query, 1e-6).values
    top = rank(scores, np.arange(scores.size), k)
    if max_distance is None:
        return top
    similarities = np.clip(scores[top] / embedding_norm(query).value, -1.0, 1.0)
    return top[1.0 - similarities <= max_distance]


def reach(radius, error):
    """How far a change of pixels below the radius can move what the program computes."""
    return radius * SCALE + 2.0 * error


def cases(kind, queries=3, count=240, dimension=48):
    gallery, asked = KINDS[kind](np.random.default_rng(17), count, dimension)
    return [(query, gallery) for query in asked[:queries]]


@pytest.mark.parametrize("error", [0.0, 1e-4])
@pytest.mark.parametrize("kind", KINDS)
def test_no_step_below_its_radius_evicts_a_result(kind, error):
    rng = np.random.default_rng(3)
    for query, gallery in cases(kind):
        for k, candidates in ((1, everything(gallery)), (5, retrieve(query, gallery, 128))):
            certificate = certify(query, candidates, k, error=error)
            for place in {0, k // 2, k - 1}:
                radius = certificate.certified_radii[place]
                if radius == 0.0:
                    continue
                entry = candidates.rows[certificate.positions[place]]
                length = reach(min(radius, 10.0), error)
                for direction in directions(rng, query, gallery, entry, k):
                    assert entry in answer(move(query, direction, length), gallery, k)


@pytest.mark.parametrize("kind", ["isotropic", "clustered", "near_duplicates"])
def test_the_attacks_are_strong_enough_to_mean_something(kind):
    rng = np.random.default_rng(4)
    beyond_last, beyond_first = [], []
    for query, gallery in cases(kind):
        certificate = certify(query, everything(gallery), 5)
        for place, factor, evicted in ((4, 1 + 1e-6, beyond_last), (0, 1.6, beyond_first)):
            entry = certificate.positions[place]
            length = reach(certificate.certified_radii[place], 0.0) * factor
            evicted.append(
                any(
                    entry not in answer(query + direction * length, gallery, 5)
                    for direction in directions(rng, query, gallery, entry, 5)
                )
            )
    assert all(beyond_last), "the last result's radius is exact: a millionth more evicts it"
    assert np.mean(beyond_first) >= 0.5, "most first results' radii are within 1.6 of the truth"


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_below_them_changes_the_first_the_set_or_the_order(kind):
    k = 6
    for query, gallery in cases(kind, queries=3):
        certificate = certify(query, everything(gallery), k)
        before = certificate.positions
        outside = np.setdiff1d(np.arange(gallery.shape[0]), before)
        steps = [step for entry in before for step in normals(gallery, entry, outside[:20])]
        steps += [step for entry in before for step in normals(gallery, entry, before)]
        for step in steps:
            after = answer(move(query, step, reach(certificate.top1_radius, 0)), gallery, k)
            assert after[0] == before[0]
            after = answer(move(query, step, reach(certificate.set_radius, 0)), gallery, k)
            assert set(after) == set(before)
            after = answer(move(query, step, reach(certificate.order_radius, 0)), gallery, k)
            assert after.tolist() == before.tolist()


@pytest.mark.parametrize("step_down", [1e-8, 1e-5, 1e-3])
def test_rows_a_rounding_apart_keep_their_executed_order(step_down):
    """The number r alone, without the slack of the next comparison, fails here one time in five."""
    rng = np.random.default_rng(8)
    certified = 0
    for _ in range(300):
        dimension = int(rng.integers(8, 65))
        pair = np.repeat(rng.normal(size=(1, dimension)), 2, axis=0)
        pair[1] += rng.normal(size=dimension) * 10.0 ** rng.uniform(-7, -2)
        pair = (pair / np.linalg.norm(pair, axis=1, keepdims=True)).astype(np.float32)
        query = rng.normal(size=dimension)
        certificate = certify(query, everything(pair), 1)
        first = certificate.positions[0]
        radius = certificate.certified_radii[0]
        if not 0.0 < radius < np.inf:
            continue
        certified += 1
        across = normals(pair, first, np.array([1 - first]))[0]
        length = reach(radius, 0.0) * (1.0 - step_down)
        for wobble in (0.0, 1e-12, 1e-9):
            direction = across + wobble * rng.normal(size=dimension)
            moved = move(query, direction / np.linalg.norm(direction), length)
            assert answer(moved, pair, 1)[0] == first
    assert certified > 150


def flips(rng, query, gallery, rows):
    """Unit steps that turn the query towards and away from some rows, and at random."""
    along = query / np.linalg.norm(query)
    for row in rows:
        vector = gallery[row].astype(np.float64)
        side = vector - (vector @ along) * along
        length = np.linalg.norm(side)
        if length > 0:
            for lean in (0.0, 0.2):
                for sign in (-1.0, 1.0):
                    step = sign * side / length - lean * along
                    yield step / np.linalg.norm(step)
    yield -along
    random = rng.normal(size=query.size)
    yield random / np.linalg.norm(random)


@pytest.mark.parametrize("error", [0.0, 1e-4])
@pytest.mark.parametrize("kind", ["isotropic", "clustered", "near_duplicates", "copies_only"])
def test_no_step_below_a_radius_breaks_an_answer_with_a_threshold(kind, error):
    rng = np.random.default_rng(6)
    k = 6
    for query, gallery in cases(kind, queries=2):
        near = certify(query, everything(gallery), 30).distances
        ties = near[[2, 8]].tolist()
        between = ((near[:-1] + near[1:]) / 2)[[0, 3, 5, 6, 20]].tolist()
        for limit in (*ties, *between, -1.0, float(near[0]) / 2, 2.0):
            candidates = retrieve(query, gallery, 100)
            certificate = certify(query, candidates, k, limit, error)
            if not certificate.is_proved:
                candidates = everything(gallery)
                certificate = certify(query, candidates, k, limit, error)
            before = candidates.rows[certificate.positions]
            watched = np.argsort(-(gallery @ query))[: k + 2]
            steps = list(flips(rng, query, gallery, watched))
            if before.size:
                steps += directions(rng, query, gallery, before[-1], k)
            for step in steps:
                check_step(certificate, before, query, gallery, step, k, limit, error)


def check_step(certificate, before, query, gallery, step, k, limit, error):  # noqa: PLR0917
    def after(radius):
        length = reach(min(radius, 10.0), error)
        return answer(move(query, step, length), gallery, k, limit).tolist()

    for place in {0, before.size // 2, before.size - 1} if before.size else ():
        radius = certificate.certified_radii[place]
        if radius > 0.0:
            assert before[place] in after(radius)
    if before.size and certificate.top1_radius > 0.0:
        assert after(certificate.top1_radius)[0] == before[0]
    if certificate.set_radius > 0.0:
        assert set(after(certificate.set_radius)) == set(before.tolist())
    if certificate.order_radius > 0.0:
        assert after(certificate.order_radius) == before.tolist()


def test_the_distance_to_a_threshold_is_the_whole_distance():
    """Just beyond the exit of the only result, it leaves: the bound is exact, not only sound."""
    for query, gallery in cases("isotropic"):
        near = certify(query, everything(gallery), 2).distances
        limit = float(near.mean())
        certificate = certify(query, everything(gallery), 2, limit)
        row = gallery[certificate.positions[0]].astype(np.float64)
        along = query / np.linalg.norm(query)
        side = row - (row @ along) * along
        turn = np.arccos(1 - limit) - np.arccos(1 - near[0])
        step = -side / np.linalg.norm(side) * np.cos(turn) - along * np.sin(turn)
        radius = reach(certificate.certified_radii[0], 0.0)
        assert radius == pytest.approx(
            flip_radius(np.array([turn]), float(np.linalg.norm(query)))[0], rel=1e-6
        )
        assert answer(query + step * radius * (1 + 1e-5), gallery, 2, limit).size == 0
        assert answer(query + step * radius * (1 - 1e-5), gallery, 2, limit).size == 1


@pytest.mark.parametrize("limit", [None, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_attacked_here_are_those_that_the_program_gives(kind, limit):
    for query, gallery in cases(kind, queries=8):
        given = certify(query, everything(gallery), 7, limit).positions
        assert answer(query, gallery, 7, limit).tolist() == given.tolist()
