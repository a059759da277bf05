import math

import numpy as np
import pytest

from model.evaluate.radii import Proof, input_radii, normalised_radii, upload_radii


def test_a_radius_loses_two_forward_errors_and_is_divided_by_bound_and_gain():
    queries = np.array([[3.0, 4.0], [3.0, 4.0]])
    radii = np.array([1.0, 2.0])
    proof = Proof(2.0, 0.25)
    assert input_radii(radii, queries, proof) == pytest.approx([0.25, 0.75])
    resizes = np.array([[0.5, 0.0], [0.25, 0.125]])
    # The second input is off by 0.125, which the network stretches to 0.25.
    assert upload_radii(radii, queries, proof, resizes) == pytest.approx([0.5, 2.0])
    assert (input_radii(radii, queries, proof) < np.array([0.25, 0.75])).all()


def test_a_radius_stops_where_the_embedding_could_be_zero_but_for_infinity():
    queries = np.array([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    radii = input_radii(np.array([50.0, math.inf, math.inf]), queries, Proof(1.0, 0.0))
    assert radii[0] == pytest.approx(5.0)
    assert radii[0] < 5.0
    assert radii[1] == math.inf
    assert radii[2] == 0.0


def test_negative_radii_are_0():
    queries = np.ones((2, 2))
    assert input_radii(np.array([-1.0, -np.inf]), queries, Proof(1.0, 0.0)).tolist() == [0.0, 0.0]


def test_the_papers_formula_divides_by_the_norm_alone():
    queries = np.array([[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]])
    claimed = normalised_radii(np.array([1.0, 1.0, 0.0]), queries)
    assert claimed == pytest.approx([0.2, 2.0, 0.0])
