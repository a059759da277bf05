import math

import numpy as np
import pytest

from model.evaluate.radii import NORMALISED, PROVED, UPLOAD, Proof, claims_of


def test_a_radius_is_divided_by_bound_and_gain_and_a_margin_by_nothing():
    radii, margins = np.array([1.0, 2.0]), np.array([0.25, 0.5])
    claims = claims_of(radii, margins, Proof(2.0, 0.25), np.array([0.5, 0.25]))
    assert [claim for claim, _ in claims] == [PROVED, NORMALISED, UPLOAD]
    proved, normalised, upload = (numbers for _, numbers in claims)
    assert proved == pytest.approx([0.5, 1.0])
    assert (proved < np.array([0.5, 1.0])).all()
    assert normalised.tolist() == margins.tolist()
    assert upload == pytest.approx([1.0, 4.0])
    assert (upload < np.array([1.0, 4.0])).all()


def test_radii_over_the_input_are_stated_at_another_side_and_those_of_uploads_are_not():
    radii, margins, gains = np.array([1.0, 2.0]), np.array([0.25, 0.5]), np.array([0.5, 0.25])
    own = claims_of(radii, margins, Proof(2.0, 0.0), gains)
    stated = claims_of(radii, margins, Proof(2.0, 0.0, shrink=1.5), gains)
    for (claim, before), (_, numbers) in zip(own, stated, strict=True):
        assert numbers == pytest.approx(before / (1.0 if claim == UPLOAD else 1.5))
        assert (numbers <= before).all()


def test_infinity_stays_and_what_is_not_positive_is_no_radius():
    radii = np.array([math.inf, 0.0, -1.0, -math.inf, math.nan])
    ((_, proved), _) = claims_of(radii, radii, Proof(1.0, 0.0), None)
    assert proved.tolist() == [math.inf, 0.0, 0.0, 0.0, 0.0]
