"""The learning rate of a step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.train.config import TrainConfig, load_recipe
from model.train.schedules import learning_rate, progress_of


def rate(config: TrainConfig, step: int) -> float:
    return learning_rate(config, step, progress_of(config, step, 0.0))


def test_the_published_first_step_warms_up_and_falls_to_zero():
    config = load_recipe("lipsim-small").with_changes({"steps": 100_000})
    assert rate(config, 0) == pytest.approx(0.01 / 2000)
    assert rate(config, 999) == pytest.approx(0.005)
    assert rate(config, 1999) == rate(config, 2000) == pytest.approx(0.01)
    assert rate(config, 2000 + 49_000) == pytest.approx(0.005)
    assert rate(config, 99_999) < 1e-8


def test_the_published_second_step_is_three_lines():
    config = load_recipe("lipsim-small-nights").with_changes({"steps": 500})
    corners = {0: 0.0, 100: 0.005, 200: 0.01, 300: 0.00525, 400: 0.0005, 450: 0.00025}
    for step, wanted in corners.items():
        assert rate(config, step) == pytest.approx(wanted), step


def test_a_run_limited_by_time_falls_with_time():
    config = TrainConfig(minutes=2.0, schedule="cosine", learning_rate=1.0)
    assert progress_of(config, 10**9, 60.0) == pytest.approx(0.5)
    assert learning_rate(config, 5, 0.5) == pytest.approx(0.5)
    both = TrainConfig(minutes=2.0, steps=10)
    assert progress_of(both, 9, 6.0) == pytest.approx(0.9)
    assert progress_of(both, 1, 120.0) == 1.0


@given(
    st.sampled_from(["constant", "cosine", "triangular"]),
    st.integers(1, 50),
    st.integers(0, 60),
    st.data(),
)
def test_no_rate_is_negative_or_above_the_peak(schedule, steps, warmup, data):
    config = TrainConfig(schedule=schedule, steps=steps, warmup_steps=warmup, learning_rate=0.3)
    found = rate(config, data.draw(st.integers(0, steps)))
    assert 0.0 <= found <= 0.3 * (1 + 1e-12)
    assert math.isfinite(found)
