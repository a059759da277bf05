# pyright: basic
# torch's types are loose.
"""Square in l2: a random search that needs scores only.

The library's own loses its l2 budget where a window holds no perturbation yet: it divides by the
norm that the method multiplies by. In linf the library's is used.

Source: Andriushchenko et al. 2020, arXiv:1912.00049, algorithm 3.
"""

import numpy as np
import torch
from jaxtyping import Float64

from model.attack.probe import Probe

_TILES = 5
_FIRST_SHARE = 0.1
# The share of pixels in a window halves after these shares of the steps.
_HALVINGS = np.array([10, 50, 200, 1000, 2000, 4000, 6000, 8000]) / 10_000
_SMALLEST_SIDE = 3

Deltas = Float64[np.ndarray, "Q C S S"]
Plane = Float64[np.ndarray, "H W"]


def search(probe: Probe, epsilon: float, steps: int, rng: np.random.Generator) -> None:
    """Move perturbation from window to window, and keep what brings a decision nearer to turning.

    One look at the scores a step; all questions share the windows, as each decides for itself.

    Args:
        probe: square pictures under attack; what is found stays in it.
        epsilon: l2 norm a perturbation may have.
        steps: how often the scores are looked at.
        rng: draws windows and signs.
    """
    pictures = probe.best.double().cpu().numpy()
    deltas = _first(pictures.shape, epsilon, rng)
    lowest = _gaps(probe, pictures, deltas)
    for step in range(1, steps):
        candidate = _moved(deltas, epsilon, _side(step / steps, pictures.shape[3]), rng)
        gaps = _gaps(probe, pictures, candidate)
        is_better = gaps < lowest
        deltas[is_better], lowest[is_better] = candidate[is_better], gaps[is_better]


def _gaps(probe: Probe, pictures: Deltas, deltas: Deltas) -> Float64[np.ndarray, " Q"]:
    """How far class 0 is ahead at these perturbations, clipped to the box."""
    moved = np.clip(pictures + deltas, 0.0, 1.0).astype(np.float32)
    with torch.no_grad():
        scores = probe(torch.from_numpy(moved).to(probe.best.device)).double().cpu().numpy()
    return scores[:, 0] - scores[:, 1:].max(axis=1)


def _first(shape: tuple[int, ...], epsilon: float, rng: np.random.Generator) -> Deltas:
    """Bumps on a grid of tiles, of random sign in each channel, using the whole budget."""
    count, channels, side, _ = shape
    deltas = np.zeros(shape)
    tile = max(2, side // _TILES)
    for top in range(0, side - tile + 1, tile):
        for left in range(0, side - tile + 1, tile):
            signs = rng.choice([-1.0, 1.0], (count, channels, 1, 1))
            deltas[:, :, top : top + tile, left : left + tile] = signs * _bumps(tile, rng)
    return deltas * (epsilon / np.sqrt((deltas**2).sum(axis=(1, 2, 3), keepdims=True)))


def _moved(deltas: Deltas, epsilon: float, side: int, rng: np.random.Generator) -> Deltas:
    """Perturbations with the budget of one window, and what was unused, put into another."""
    channels, size = deltas.shape[1], deltas.shape[3]
    corners = rng.integers(0, size - side + 1, (2, 2))
    into, outof = (
        (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
        for top, left in corners
    )
    unused = np.maximum(epsilon**2 - (deltas**2).sum(axis=(1, 2, 3), keepdims=True), 0.0)
    in_windows = np.zeros((size, size), dtype=np.bool_)
    in_windows[into[2:]] = in_windows[outof[2:]] = True
    taken = (deltas**2 * in_windows).sum(axis=(2, 3), keepdims=True)
    available = np.sqrt(taken + unused / channels)
    signs = rng.choice([-1.0, 1.0], (*deltas.shape[:2], 1, 1))
    fresh = signs * _bumps(side, rng) + _unit(deltas[into])
    moved = deltas.copy()
    moved[outof] = 0.0
    moved[into] = _unit(fresh) * available
    return moved


def _bumps(side: int, rng: np.random.Generator) -> Plane:
    """A bump up beside a bump down, or one above the other, of norm 1."""
    top = side // 2
    plane = np.concatenate((_bump(top, side), -_bump(side - top, side)))
    plane = plane.T if rng.random() < 0.5 else plane
    return plane / np.sqrt((plane**2).sum())


def _bump(height: int, width: int) -> Plane:
    """Rings around the middle, each higher than the one outside it."""
    rings = max(height, width) // 2
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    heights = np.cumsum(1.0 / np.arange(rings + 1, 0, -1) ** 2)
    return heights[rings - np.maximum(rows[:, None], columns[None, :])]


def _unit(windows: Deltas) -> Deltas:
    lengths = np.sqrt((windows**2).sum(axis=(2, 3), keepdims=True))
    return np.divide(windows, lengths, out=np.zeros_like(windows), where=lengths > 0.0)


def _side(done: float, size: int) -> int:
    """Side of a window after a share of the steps: odd, and at least 3."""
    share = _FIRST_SHARE / 2.0 ** int((done > _HALVINGS).sum())
    side = max(_SMALLEST_SIDE, round(np.sqrt(share) * size))
    return min(side + 1 - side % 2, size)
