"""The certificate's radius is the scale-free radius of the published network's triplets.

Gallery rows are stored as float32, and the radius is exact for the rows as stored: it equals their
own formula to 1e-9, and the float64 triplet's as closely as float32 rows allow.
"""

import numpy as np
import pytest
from paths import DATA

from model.certificate.pairs import Candidates
from model.certificate.search import certify_search


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(DATA / "official_tiny.npz") as arrays:
        return dict(arrays)


def stored(*sides: np.ndarray) -> np.ndarray:
    return np.stack([side / np.linalg.norm(side) for side in sides]).astype(np.float32)


def first_radius(query: np.ndarray, rows: np.ndarray, **options: float) -> float:
    gallery = Candidates(np.arange(len(rows)), rows, -np.inf, len(rows), 1e-6)
    proof = {"lipschitz_bound": 1.0, "gain": 1.0, "forward_error": 0.0} | options
    return float(certify_search(query, gallery, k=1, **proof).certified_radii[0])


def of_stored_rows(query: np.ndarray, rows: np.ndarray) -> float:
    difference = rows[0].astype(np.float64) - rows[1]
    return abs(query @ difference) / np.linalg.norm(difference)


@pytest.mark.parametrize("triplet", range(9))
def test_a_triplets_radius_is_the_scale_free_one(oracle, triplet):
    query = oracle["tri_embed_ref_f64"][triplet]
    sides = [oracle[f"tri_embed_{side}_f64"][triplet] for side in ("left", "right")]
    rows = stored(*sides)
    radius = first_radius(query, rows)
    assert radius == pytest.approx(of_stored_rows(query, rows), rel=1e-9)
    assert radius <= of_stored_rows(query, rows)
    assert radius == pytest.approx(float(oracle["scale_free_radius_f64"][triplet]), rel=1e-4)
    # Whatever the norm: the published radius is this one over |h(ref)|, too large below norm 1.
    published = float(oracle["radius_nobias_f64"][triplet])
    assert radius == pytest.approx(published * np.linalg.norm(query), rel=1e-4)


def test_the_radius_pays_for_lipschitz_bound_gain_and_forward_error(oracle):
    query = oracle["tri_embed_ref_f64"][0]
    rows = stored(oracle["tri_embed_left_f64"][0], oracle["tri_embed_right_f64"][0])
    plain = first_radius(query, rows)
    paid = first_radius(query, rows, lipschitz_bound=2.0, gain=0.25, forward_error=0.1)
    assert paid == pytest.approx((plain - 2 * 0.1) / (2.0 * 0.25), rel=1e-9)


def test_a_tie_of_unlike_rows_gives_0_where_the_published_formula_gives_infinity(oracle):
    assert np.isinf(oracle["tie_radius_f64"]).all()
    rows = np.zeros((2, 64), dtype=np.float32)
    rows[0, 0] = rows[1, 1] = 1.0
    query = np.zeros(64)
    query[:2] = 3.0
    assert first_radius(query, rows) == 0.0
