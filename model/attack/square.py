# pyright: basic
# torch's types are loose.
"""Square: a random search over square windows that needs scores only, in l2 and in linf.

Source: Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 2 and 3.
"""

import numpy as np
import torch
from torch import Tensor

from model.attack.descent import Ball, Deltas, Search, norms

_TILES = 5
# The share of the pixels that the first windows have; it halves after these shares of the steps.
_FIRST_SHARE = {"l2": 0.1, "linf": 0.1}
_HALVINGS = np.array([10, 50, 200, 1000, 2000, 4000, 6000, 8000]) / 10_000
_SMALLEST_SIDE = 3

Window = tuple[slice, slice, slice, slice]


def square(search: Search, ball: Ball, *, steps: int, rng: np.random.Generator) -> Deltas:
    """Change one window at a time, and keep what brings a decision nearer to its flip.

    One look at the scores a step; all perturbations share the windows, as each decides for itself.
    """
    first, changed = (_tiles, _moved) if ball.norm == "l2" else (_stripes, _repainted)
    delta = ball.project(first(search.best.shape, ball, rng))
    lowest = search.losses(delta)
    for step in range(1, steps):
        if search.is_over:
            break
        side = _side(step / steps, delta.shape[3], _FIRST_SHARE[ball.norm])
        candidate = ball.project(changed(delta, ball, side, rng))
        losses = search.losses(candidate)
        is_better = losses < lowest
        delta = torch.where(is_better, candidate, delta)
        lowest = torch.where(is_better, losses, lowest)
    return search.best


def _stripes(shape: tuple[int, ...], ball: Ball, rng: np.random.Generator) -> Deltas:
    """The whole budget in columns, of random sign in each channel."""
    count, channels, height, width = shape
    return ball.limits * _signs((count, channels, 1, width), ball, rng).expand(-1, -1, height, -1)


def _repainted(delta: Deltas, ball: Ball, side: int, rng: np.random.Generator) -> Deltas:
    """One window filled with the whole budget, of random sign in each channel."""
    window = _window(delta, side, rng)
    painted = delta.clone()
    painted[window] = ball.limits * _signs((*delta.shape[:2], 1, 1), ball, rng)
    return painted


def _tiles(shape: tuple[int, ...], ball: Ball, rng: np.random.Generator) -> Deltas:
    """Bumps on a grid of tiles, of random sign in each channel, using the whole budget."""
    count, channels, side, _ = shape
    delta = torch.zeros(shape).to(ball.limits)
    tile = max(2, side // _TILES)
    for top in range(0, side - tile + 1, tile):
        for left in range(0, side - tile + 1, tile):
            signs = _signs((count, channels, 1, 1), ball, rng)
            delta[:, :, top : top + tile, left : left + tile] = signs * _bumps(tile, ball, rng)
    return delta * (ball.limits / norms(delta))


def _moved(delta: Deltas, ball: Ball, side: int, rng: np.random.Generator) -> Deltas:
    """The budget of one window, and what was unused, put into another."""
    into, outof = _window(delta, side, rng), _window(delta, side, rng)
    unused = (ball.limits**2 - norms(delta) ** 2).clamp_min(0.0)
    in_windows = torch.zeros_like(delta)
    in_windows[into] = in_windows[outof] = 1.0
    taken = (delta**2 * in_windows).sum(dim=(2, 3), keepdim=True)
    signs = _signs((*delta.shape[:2], 1, 1), ball, rng)
    fresh = signs * _bumps(side, ball, rng) + _unit(delta[into])
    moved = delta.clone()
    moved[outof] = 0.0
    moved[into] = _unit(fresh) * (taken + unused / delta.shape[1]).sqrt()
    return moved


def _window(delta: Deltas, side: int, rng: np.random.Generator) -> Window:
    top, left = rng.integers(0, delta.shape[3] - side + 1, 2).tolist()
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def _signs(shape: tuple[int, ...], ball: Ball, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.choice([-1.0, 1.0], shape)).to(ball.limits)


def _bumps(side: int, ball: Ball, rng: np.random.Generator) -> Tensor:
    """A bump up beside a bump down, or one above the other, of norm 1, (side, side)."""
    top = side // 2
    plane = np.concatenate((_bump(top, side), -_bump(side - top, side)))
    plane = plane.T if rng.random() < 0.5 else plane
    return torch.from_numpy(plane / np.sqrt((plane**2).sum())).to(ball.limits)


def _bump(height: int, width: int) -> np.ndarray:
    """Rings around the middle, each higher than the one outside it."""
    rings = max(height, width) // 2
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    heights = np.cumsum(1.0 / np.arange(rings + 1, 0, -1) ** 2)
    return heights[rings - np.maximum(rows[:, None], columns[None, :])]


def _unit(windows: Tensor) -> Tensor:
    """Each channel's window over its norm; an empty one stays empty."""
    return windows / (windows**2).sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-30)


def _side(done: float, size: int, first_share: float) -> int:
    """Side of a window after a share of the steps: odd, and at least 3."""
    share = first_share / 2.0 ** int((done > _HALVINGS).sum())
    side = max(_SMALLEST_SIDE, round(np.sqrt(share) * size))
    return min(side + 1 - side % 2, size)
