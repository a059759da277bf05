"""No published radius is above the truth, on any kind of gallery, with no tolerance."""

import numpy as np
import pytest
from bruteforce import World, truth
from checker import violations
from galleries import KINDS, everything, retrieve

from model.certificate.search import certify_search

pytestmark = pytest.mark.without_shape_checks

LIPSCHITZ, GAIN, ERROR = 1.0 + 3e-8, 2.47, 1e-7
SCALE = LIPSCHITZ * GAIN


def certify(query, candidates, k, max_distance=None, error=ERROR):
    return certify_search(
        query,
        candidates,
        k=k,
        lipschitz_bound=LIPSCHITZ,
        gain=GAIN,
        forward_error=error,
        max_distance=max_distance,
    )


def check(certificate, query, world, candidates, *, k, max_distance=None):
    found = violations(
        certificate,
        query,
        world,
        numbers=candidates.rows,
        k=k,
        scale=SCALE,
        max_distance=max_distance,
    )
    assert not found


CASES = [
    (kind, count, dimension)
    for kind in KINDS
    for count, dimension in ((2000, 64), (1000, 512), (300, 1792))
]
LARGE = [(kind, 20_000, 64) for kind in KINDS]
LARGE += [(kind, 20_000, 512) for kind in ("clustered", "near_duplicates", "near_equal")]
LARGE += [("near_equal", 5000, 1792)]


def check_gallery(kind, count, dimension, *, queries, ks):
    rng = np.random.default_rng(count + dimension)
    gallery, asked = KINDS[kind](rng, count, dimension)
    world = World(gallery, error=ERROR)
    for query in asked[:queries]:
        for k in ks:
            for candidates in (everything(gallery), retrieve(query, gallery, 128)):
                certificate = certify(query, candidates, k)
                if certificate.is_proved:
                    check(certificate, query, world, candidates, k=k)
                assert certificate.is_proved or not candidates.are_all


@pytest.mark.parametrize(("kind", "count", "dimension"), CASES)
def test_no_published_radius_is_above_brute_force(kind, count, dimension):
    check_gallery(kind, count, dimension, queries=3, ks=(1, 3, 10, 40))


@pytest.mark.parametrize(("kind", "count", "dimension"), LARGE)
def test_no_published_radius_is_above_brute_force_in_many_rows(kind, count, dimension):
    check_gallery(kind, count, dimension, queries=1, ks=(10,))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m", [3, 11, 30])
def test_few_candidates_give_sound_radii_even_where_the_ranking_is_not_proved(kind, m):
    gallery, asked = KINDS[kind](np.random.default_rng(m), 500, 64)
    for query in asked[:8]:
        candidates = retrieve(query, gallery, m)
        certificate = certify(query, candidates, k=10)
        answer = candidates.rows[certificate.positions]
        real = truth(query, World(gallery, error=ERROR), answer, k=10).membership
        positive = certificate.certified_radii > 0
        assert (certificate.certified_radii * SCALE <= real)[positive].all()
        if not certificate.is_proved:
            assert certificate.set_radius == certificate.order_radius == 0.0


@pytest.mark.parametrize("kind", ["clustered", "near_duplicates"])
def test_a_threshold_never_makes_a_radius_unsound(kind):
    gallery, asked = KINDS[kind](np.random.default_rng(5), 1500, 64)
    world = World(gallery, error=ERROR)
    for query in asked[:6]:
        near = np.sort(certify(query, everything(gallery), 50).distances)
        midway = (near[:-1] + near[1:]) / 2
        for limit in (*midway[[0, 4, 12, 40]].tolist(), -0.5, 0.0, 1e-9, 1.0, 1.999, 2.0, 7.0):
            for candidates in (everything(gallery), retrieve(query, gallery, 128)):
                certificate = certify(query, candidates, 10, limit)
                if certificate.is_proved:
                    check(certificate, query, world, candidates, k=10, max_distance=limit)


@pytest.mark.parametrize("kind", ["isotropic", "clustered", "near_duplicates"])
def test_a_full_scan_is_exact_but_where_rounding_takes_a_millionth(kind):
    gallery, asked = KINDS[kind](np.random.default_rng(3), 2000, 512)
    exact = [certify(query, everything(gallery), 10).exact for query in asked]
    assert np.mean(exact) >= 0.99


def test_a_hundred_and_twenty_eight_candidates_prove_clustered_data_exact():
    gallery, asked = KINDS["clustered"](np.random.default_rng(1), 20_000, 256)
    exact = [certify(q, retrieve(q, gallery, 128), 10).exact for q in asked]
    assert np.mean(exact) >= 0.97


def test_near_duplicates_lose_little_to_stopping_at_a_hundred_and_twenty_eight():
    gallery, asked = KINDS["near_duplicates"](np.random.default_rng(2), 20_000, 256)
    kept = []
    for query in asked:
        deep = certify(query, everything(gallery), 10, error=0.0).certified_radii
        quick = certify(query, retrieve(query, gallery, 128), 10, error=0.0).certified_radii
        kept.extend((quick[deep > 0] / deep[deep > 0]).tolist())
    assert len(kept) > 100
    assert np.median(kept) >= 0.88
    assert np.quantile(kept, 0.05) >= 0.80
    assert min(kept) < 1.0, "the gallery is too easy to say anything about the tail"
