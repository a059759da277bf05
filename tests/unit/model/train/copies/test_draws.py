"""A batch holds pictures by weight, the same at every call."""

import numpy as np
import pytest

from model.errors import TrainingError
from model.train.copies.draws import Draws, kind_probabilities

_EVEN = np.full(40, 1 / 40)


def test_pictures_are_drawn_by_the_weight_of_their_kind():
    kinds = ["clipart", "composite", "photo", "composite"]
    weights = kind_probabilities("clipart=4, photo=3", kinds)
    assert np.allclose(weights, np.array([4, 1, 3, 1]) / 9)
    draws = Draws(kind_probabilities("clipart=0", kinds), seed=0, batch_size=3)
    assert all(sorted(draws.pictures(step)) == [1, 2, 3] for step in range(20))
    with pytest.raises(TrainingError, match='like "clipart=4,photo=3"'):
        kind_probabilities("clipart", kinds)


@pytest.mark.parametrize("kind", ["clipart", "nobody"])
@pytest.mark.parametrize("weight", ["-1", "nan", "inf", "1e999"])
def test_a_weight_is_refused_even_if_no_picture_is_of_its_kind(kind, weight):
    with pytest.raises(TrainingError, match=f"finite and not negative, got '{kind}={weight}'"):
        kind_probabilities(f"{kind}={weight}", ["clipart", "photo"])


@pytest.mark.parametrize("weights", ["clipart=0,photo=0", "clipart=1e308,photo=1e308"])
def test_weights_that_are_no_distribution_together_are_refused(weights):
    with pytest.raises(TrainingError, match="a positive, finite sum over the pictures"):
        kind_probabilities(weights, ["clipart", "photo"])


def test_a_step_has_its_own_pictures_and_always_the_same():
    draws = Draws(_EVEN, seed=3, batch_size=12)
    again = Draws(_EVEN, seed=3, batch_size=12)
    assert np.array_equal(draws.pictures(5), again.pictures(5))
    assert not np.array_equal(draws.pictures(5), draws.pictures(6))
    assert len(set(draws.pictures(5).tolist())) == 12
    assert len(Draws(_EVEN, seed=3, batch_size=100).pictures(0)) == 100
