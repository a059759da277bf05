# pyright: basic
# torch's types are loose.
"""AutoPGD: gradient descent that halves the step of a perturbation where it gains nothing."""

import torch

from model.attack.descent import Ball, Deltas, Search

# Shares of all steps: until the first checkpoint, by which each next stretch is shorter, the least.
_FIRST, _SHORTER, _LEAST = 0.22, 0.03, 0.06
# A step of which fewer than this share have gained is too long.
_GAINS = 0.75
# How much of a step is new; the rest repeats the step before.
_NEW = 0.75


def apgd(search: Search, start: Deltas, ball: Ball, *, steps: int) -> Deltas:
    """Descend from a start by steps that begin at twice the limit.

    At a checkpoint the step of a perturbation is halved, and it returns to its best place, if at
    most three quarters of the steps since the last one have gained, or if the best is what it was
    there and the step was not halved then.

    Source: Croce and Hein 2020, arXiv:2003.01690, algorithm 1.
    """
    loss, slope = search.slopes(start)
    delta = before = start
    best, lowest, best_slope = start, loss, slope
    size, stretch = 2.0 * ball.limits, max(1, int(_FIRST * steps))
    was_halved, lowest_then = torch.zeros_like(loss, dtype=torch.bool), lowest
    gains, since = torch.zeros_like(loss), 0
    for step in range(steps):
        if search.is_over:
            break
        ahead = ball.project(delta - size * ball.steepest(slope))
        if step:
            ahead = ball.project(delta + _NEW * (ahead - delta) + (1.0 - _NEW) * (delta - before))
        before, delta, loss_before = delta, ahead, loss
        loss, slope = search.slopes(delta)
        gains, since = gains + (loss < loss_before), since + 1
        is_better = loss < lowest
        best = torch.where(is_better, delta, best)
        best_slope = torch.where(is_better, slope, best_slope)
        lowest = torch.where(is_better, loss, lowest)
        if since == stretch:
            is_stuck = (gains <= _GAINS * stretch) | (~was_halved & (lowest >= lowest_then))
            size = torch.where(is_stuck, size / 2.0, size)
            delta = torch.where(is_stuck, best, delta)
            slope = torch.where(is_stuck, best_slope, slope)
            was_halved, lowest_then = is_stuck, lowest
            gains, since = torch.zeros_like(gains), 0
            stretch = max(stretch - int(_SHORTER * steps), int(_LEAST * steps), 1)
    return search.best
