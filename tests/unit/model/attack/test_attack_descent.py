"""Searches over perturbations: known optima are found, each in its own ball, the best is kept."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from model.attack.apgd import apgd
from model.attack.descent import Ball, Objective, Search, descend, norms, shorten
from model.attack.pixel_metric import to_levels
from model.attack.square import square

COUNT, SIDE = 5, 9
SHAPE = (COUNT, 3, SIDE, SIDE)
SEARCHES = {"pgd": descend, "momentum": partial(descend, momentum=1.0), "apgd": apgd}


def drawn(seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(SHAPE))


def ball_of(norm: str, limits: Tensor) -> Ball:
    """Of pixels that know no box."""
    return Ball(norm, limits, torch.zeros(SHAPE, dtype=torch.float64), has_box=False)


def per_delta(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).reshape(-1, 1, 1, 1)


def linear(normals: Tensor, margins: Tensor) -> Objective:
    """A linear margin: it is margins at zero, and falls fastest against its normal."""

    def objective(delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        gaps = (normals[rows] * delta).sum(dim=(1, 2, 3)) + margins[rows, 0, 0, 0]
        return gaps, gaps

    return objective


def dual(normals: Tensor, norm: str) -> Tensor:
    """How fast a linear margin can fall for each unit of a norm."""
    return norms(normals) if norm == "l2" else normals.abs().sum(dim=(1, 2, 3), keepdim=True)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_linear_margin_falls_as_far_as_each_ball_allows(name: str, norm: str):
    normals, limits = drawn(), per_delta([0.1, 0.5, 1.0, 2.0, 8.0])
    # Far from success: the search goes on to the end.
    search = Search(linear(normals, torch.full_like(limits, 1e6)), normals)
    ball = ball_of(norm, limits)
    found = SEARCHES[name](search, ball.draw(np.random.default_rng(1)), ball, steps=40)
    gained = (1e6 - search.gaps) / (limits * dual(normals, norm))
    assert (gained > (1.0 - 1e-6 if name == "apgd" else 0.98)).all()
    assert (gained <= 1.0 + 1e-9).all()
    assert (ball_of(norm, limits * (1 + 1e-12)).project(found) == found).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", SEARCHES)
def test_success_is_had_just_beyond_the_closed_form_and_never_below_it(name: str, norm: str):
    normals = drawn()
    margins = per_delta([0.3, 1.0, 2.0, 5.0, 9.0])
    smallest = margins / dual(normals, norm)
    for factor, succeeds in ((0.999, False), (1.01, True)):
        search, ball = Search(linear(normals, margins), normals), ball_of(norm, factor * smallest)
        SEARCHES[name](search, ball.zeros(), ball, steps=40)
        assert ((search.gaps < 0.0).flatten().tolist()) == [succeeds] * COUNT


def test_the_shortest_success_is_within_a_hundredth_of_the_closed_form():
    normals, margins = drawn(), per_delta([0.3, 1.0, 2.0, 5.0, 9.0])
    smallest = margins / norms(normals)
    found = shorten(
        linear(normals, margins), torch.zeros_like(normals), ball_of("l2", 3.0 * smallest), steps=80
    )
    ratios = (norms(found) / smallest).flatten()
    assert (ratios >= 1.0 - 1e-12).all()
    assert (ratios <= 1.04).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_square_gains_much_of_what_a_smooth_linear_margin_allows_by_scores_alone(norm: str):
    # One sign a channel: what windows of one sign can follow.
    colour = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    normals = colour.reshape(3, 1, 1).expand(SHAPE)
    limits = per_delta([0.1, 0.5, 1.0, 2.0, 8.0])
    search = Search(linear(normals, torch.full_like(limits, 1e6)), normals)
    square(search, ball_of(norm, limits), steps=600, rng=np.random.default_rng(0))
    gained = (1e6 - search.gaps) / (limits * dual(normals, norm))
    assert (gained > (0.25 if norm == "l2" else 0.95)).all()
    assert (gained <= 1.0 + 1e-9).all()
    assert search.evaluations == 600 * COUNT


def test_apgd_ends_nearer_to_the_bottom_of_a_valley_than_pgd():
    target, weights = 0.3 * drawn(2), torch.logspace(0, 3, SIDE, dtype=torch.float64)

    def objective(delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        loss = (weights * (delta - target[rows]) ** 2).sum(dim=(1, 2, 3))
        return loss, loss

    ball = ball_of("l2", per_delta([10.0] * COUNT))
    start = ball.zeros()
    gaps = {}
    for name in ("pgd", "apgd"):
        search = Search(objective, start)
        SEARCHES[name](search, start, ball, steps=100)
        gaps[name] = search.gaps
    assert (gaps["apgd"] < 0.7 * gaps["pgd"]).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_ball_leaves_no_picture_outside_the_box(norm: str):
    pictures = torch.rand(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    limits = per_delta([0.01, 0.1, 0.5, 1.0, 40.0])
    delta = Ball(norm, limits, pictures).project(10.0 * drawn(4))
    assert (pictures + delta).min() >= -1e-15
    assert (pictures + delta).max() <= 1.0 + 1e-15
    sizes = norms(delta) if norm == "l2" else delta.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (sizes <= limits * (1 + 1e-12)).all()


def test_the_best_is_kept_when_a_search_ends_elsewhere():
    normals = drawn()
    search = Search(linear(normals, per_delta([9.0] * COUNT)), normals)
    near, far = -0.02 * normals, 0.01 * normals
    search.losses(near)
    search.losses(far)
    assert (search.best == near).all()


def test_a_success_costs_nothing_more_and_gives_no_gradient():
    normals, margins = drawn(), per_delta([0.1, 50.0, 50.0, 50.0, 50.0])
    search = Search(linear(normals, margins), normals)
    delta = -0.01 * normals
    search.slopes(delta)
    assert search.evaluations == COUNT
    losses, gradients = search.slopes(delta)
    assert search.evaluations == 2 * COUNT - 1
    assert losses.flatten()[0] == -torch.inf
    assert not gradients[0].any()
    assert (gradients[1:] == normals[1:]).all()
    assert not search.is_over


def test_a_search_is_over_when_all_have_succeeded_but_for_one_that_asks_for_more():
    normals, margins = drawn(), per_delta([0.1] * COUNT)
    content, greedy = (
        Search(linear(normals, margins), normals, stop=stop) for stop in (True, False)
    )
    for search in (content, greedy):
        search.slopes(-0.01 * normals)
        search.slopes(-0.02 * normals)
    assert content.is_over
    assert not greedy.is_over
    assert (content.evaluations, greedy.evaluations) == (COUNT, 2 * COUNT)
    assert (greedy.best == -0.02 * normals).all()


def test_a_loss_that_is_no_number_is_never_the_best():
    def objective(delta: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        loss = delta.sum(dim=(1, 2, 3))
        return loss, loss * torch.nan

    search = Search(objective, drawn())
    search.losses(drawn())
    assert not search.best.any()
    assert search.gaps.isinf().all()


def test_levels_are_approached_from_the_picture():
    deltas = 0.05 * drawn().numpy()
    levels = 255.0 * to_levels(deltas)
    assert np.abs(levels - np.rint(levels)).max() < 1e-9
    assert (np.abs(levels) <= np.abs(255.0 * deltas) + 2e-3).all()
    assert (np.abs(levels) > np.abs(255.0 * deltas) - 1.0).all()
    assert (np.sign(levels) * np.sign(deltas) >= 0.0).all()
    assert (to_levels(torch.from_numpy(deltas)).numpy() == to_levels(deltas)).all()
