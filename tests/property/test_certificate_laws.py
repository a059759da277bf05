"""Laws a search certificate obeys for any query, gallery and scale."""

import itertools
import math

import numpy as np
import pytest
from galleries import KINDS, everything, norm_deviation, retrieve
from hypothesis import given, settings
from hypothesis import strategies as st

from model.certificate.pairs import Candidates
from model.certificate.search import certify_search
from model.errors import CertificateError

pytestmark = pytest.mark.without_shape_checks

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(sorted(KINDS))
ks = st.integers(1, 12)


def certify(query, candidates, k, **options):
    asked = {"lipschitz_bound": 1.0, "gain": 1.0, "forward_error": 0.0} | options
    return certify_search(query, candidates, k=k, **asked)


def draw(kind, seed, count=60, dimension=12):
    rng = np.random.default_rng(seed)
    gallery, asked = KINDS[kind](rng, count, dimension)
    return gallery, asked[0], rng


@given(kinds, seeds, ks)
def test_the_order_of_the_gallery_in_memory_does_not_matter(kind, seed, k):
    gallery, query, rng = draw(kind, seed)
    shuffled = rng.permutation(gallery.shape[0])
    whole = everything(gallery)
    mixed = Candidates(shuffled, gallery[shuffled], -math.inf, whole.size, whole.norm_deviation)
    one, other = certify(query, whole, k), certify(query, mixed, k)
    assert shuffled[other.positions].tolist() == one.positions.tolist()
    # The distances of pairs may come from another block of BLAS: the last digits are free.
    np.testing.assert_allclose(other.certified_radii, one.certified_radii, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(other.set_radius, one.set_radius, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(other.order_radius, one.order_radius, rtol=1e-7, atol=1e-10)


@given(kinds, seeds, ks, st.floats(-80, 80))
def test_radii_scale_with_the_query_and_margins_do_not(kind, seed, k, exponent):
    gallery, query, _ = draw(kind, seed)
    factor = 2.0 ** round(exponent)
    one, other = (
        certify(query, everything(gallery), k),
        certify(query * factor, everything(gallery), k),
    )
    assert one.positions.tolist() == other.positions.tolist()
    np.testing.assert_allclose(other.certified_radii, one.certified_radii * factor, rtol=1e-12)
    np.testing.assert_allclose(other.margins, one.margins, rtol=1e-12)


@given(kinds, seeds, ks)
def test_doubling_the_lipschitz_bound_or_the_gain_halves_each_radius(kind, seed, k):
    gallery, query, _ = draw(kind, seed)
    one = certify(query, everything(gallery), k)
    for name in ("lipschitz_bound", "gain"):
        other = certify(query, everything(gallery), k, **{name: 2.0})
        np.testing.assert_allclose(other.certified_radii, one.certified_radii / 2, rtol=1e-12)
        assert (other.certified_radii <= one.certified_radii / 2).all()


@given(kinds, seeds, ks, st.sampled_from([None, 0.05, 0.5, 1.0]))
def test_radii_are_ordered_as_their_promises_are(kind, seed, k, limit):
    gallery, query, _ = draw(kind, seed)
    certificate = certify(query, everything(gallery), k, max_distance=limit)
    assert certificate.order_radius <= certificate.set_radius
    assert (certificate.distances[:-1] <= certificate.distances[1:]).all()
    assert (certificate.certified_radii >= 0).all()
    if certificate.positions.size:
        assert certificate.order_radius <= certificate.top1_radius
        assert (certificate.certified_radii >= certificate.set_radius * (1 - 1e-12)).all()


@given(kinds, seeds, ks)
def test_adding_an_entry_never_makes_a_radius_larger(kind, seed, k):
    gallery, query, _ = draw(kind, seed)
    fewer, more = (
        certify(query, everything(gallery[:-1]), k),
        certify(query, everything(gallery), k),
    )
    kept = dict(zip(more.positions.tolist(), more.certified_radii.tolist(), strict=True))
    for entry, radius in zip(fewer.positions.tolist(), fewer.certified_radii.tolist(), strict=True):
        assert kept.get(entry, 0.0) <= radius * (1 + 1e-7) + 1e-10


@given(kinds, seeds, ks, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_error_never_makes_a_radius_larger(kind, seed, k, first, second):
    gallery, query, _ = draw(kind, seed)
    low, high = sorted((first, second))
    one = certify(query, everything(gallery), k, forward_error=low)
    other = certify(query, everything(gallery), k, forward_error=high)
    assert (other.certified_radii <= one.certified_radii).all()


@given(kinds, seeds, ks)
def test_more_candidates_never_make_a_radius_smaller(kind, seed, k):
    gallery, query, _ = draw(kind, seed, count=200)
    radii = [certify(query, retrieve(query, gallery, m), k) for m in (max(k, 15), 60, 200)]
    for shallow, deep in itertools.pairwise(radii):
        if shallow.is_proved:
            slack = 1e-9 * float(np.linalg.norm(query))
            assert (shallow.certified_radii <= deep.certified_radii * (1 + 1e-7) + slack).all()


@given(kinds, seeds, ks, st.floats(-300, 300))
def test_a_query_of_any_size_is_refused_zero_or_rightly_scaled(kind, seed, k, exponent):
    gallery, query, _ = draw(kind, seed)
    unit = query / np.linalg.norm(query)
    size = 10.0**exponent
    try:
        certificate = certify(unit * size, everything(gallery), k, max_distance=1.5)
    except CertificateError:
        assert size > 1e99
        return
    if size < 0.9e-100:
        assert not certificate.certified_radii.any()
        assert certificate.set_radius == 0.0
        return
    reference = certify(unit, everything(gallery), k, max_distance=1.5)
    # Between neighbouring floats the slack is a visible part of the radius.
    assert (certificate.certified_radii / size <= reference.certified_radii * 1.01 + 1e-6).all()
    assert (certificate.certified_radii / size <= 1.0).all()


components = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(st.lists(components, min_size=3, max_size=3), seeds, ks)
@settings(max_examples=200)
def test_poison_earns_a_refusal_never_a_radius(vector, seed, k):
    gallery, _, _ = draw("isotropic", seed, count=6, dimension=3)
    query = np.array(vector)
    try:
        certificate = certify(query, everything(gallery), k)
    except CertificateError:
        assert not np.abs(query).max() <= 1e100
        return
    finite = certificate.certified_radii[np.isfinite(certificate.certified_radii)]
    assert (finite <= np.linalg.norm(query) * (1 + 1e-12)).all()
    assert not np.isnan(certificate.certified_radii).any()
    assert (certificate.certified_radii[k:] == np.inf).all()


@given(seeds, st.floats(0, 0.1))
def test_rows_a_little_off_unit_norm_are_certified_as_stored(seed, deviation):
    """The tail bound must hold for rows as they are, not as they should be."""
    rng = np.random.default_rng(seed)
    gallery, query, _ = draw("clustered", seed, count=80, dimension=8)
    stretch = 1.0 + 0.99 * deviation * rng.uniform(-1, 1, (80, 1))
    gallery = (gallery * stretch).astype(np.float32)
    bound = norm_deviation(gallery)
    scores = gallery.astype(np.float64) @ query
    order = np.argsort(-scores)
    m = 12
    unseen = float(scores[order[m]]) + 1e-12 * float(np.linalg.norm(query))
    part = Candidates(order[:m], gallery[order[:m]], unseen, 80, bound)
    for limit in (None, 0.3):
        quick = certify(query, part, 3, max_distance=limit)
        deep = certify(query, everything(gallery), 3, max_distance=limit)
        if quick.is_proved:
            assert part.rows[quick.positions].tolist() == deep.positions.tolist()
            assert (quick.certified_radii <= deep.certified_radii * (1 + 1e-7)).all()
            assert quick.set_radius <= deep.set_radius * (1 + 1e-7)
