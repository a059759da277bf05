import pytest

from model.errors import EvaluationError, MetricError
from model.evaluate.baselines import BASELINES, describe, load_metrics


def test_the_default_is_the_checkpoint_that_ships_with_its_fingerprint():
    metrics = load_metrics([])
    (name,) = metrics
    facts = describe(name, metrics[name])
    assert len(facts["fingerprint"]) == 64
    assert metrics[name].lipschitz_bound == facts["lipschitz_bound"] <= 1.0 + 1e-6


def test_names_are_the_metrics_own_or_given_and_never_twice():
    assert list(load_metrics(["blockmean8", "b=blockmean8"])) == ["blockmean8", "b"]
    with pytest.raises(EvaluationError, match="OTHER=blockmean8"):
        load_metrics(["blockmean8", "blockmean8"])


def test_baselines_join_once_and_the_first_metric_stays_first():
    names = list(load_metrics(["phash"], with_baselines=True))
    assert names[0] == "phash"
    assert set(BASELINES) <= set(names)
    assert len(set(names)) == len(names)


def test_an_unknown_metric_is_refused_by_its_name():
    with pytest.raises(MetricError, match="no-such"):
        load_metrics(["no-such"])


def test_nothing_is_proved_of_a_hash():
    facts = describe("phash", load_metrics(["phash"])["phash"])
    assert facts["lipschitz_bound"] is facts["fingerprint"] is None
