"""The way of a result out of an answer, and a perturbation as the 8-bit levels that can be sent."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from model.attack.descent import Objective
from model.pixels.resize import Resize


def eviction_objective(
    network: Callable[[Tensor], Tensor],
    resize: Resize,
    pixels: Float64[np.ndarray, "H W 3"],
    *,
    gallery: Float64[np.ndarray, "R D"],
    starts: Int64[np.ndarray, " N1"],
    entries: Sequence[int],
    k: int,
    scales: Float64[np.ndarray, " D"],
) -> Objective:
    """How far a query's changed pixels are from an answer of k without an entry, in float64.

    The sum of the k smallest signed radii over the other entries that are still positive: what must
    be crossed for k entries to stand before this one.

    Args:
        network: network input (B, 3, S, S) float64 to raw embeddings (B, D), differentiable.
        resize: the resize of this picture's size.
        pixels: the query's pixels in [0, 1], (H, W, 3).
        gallery: stored rows, (R, D).
        starts: the first row of each entry, and R, (N + 1,); N must exceed k, else nothing can
            displace an entry.
        entries: for each perturbation the entry to evict, T.
        k: number of results.
        scales: of the network's output, (D,).
    """
    rows, columns = torch.from_numpy(resize.rows), torch.from_numpy(resize.columns)
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    vectors, of_entries = torch.from_numpy(gallery), torch.from_numpy(_padded(starts))
    evicted = torch.tensor(entries)
    own = of_entries[evicted]
    apart = torch.cdist(vectors[own] * torch.from_numpy(scales), vectors * torch.from_numpy(scales))
    apart[apart == 0.0] = 1.0

    def objective(delta: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        scores = network(rows @ (image + delta) @ columns.T) @ vectors.T
        mine = scores.gather(1, own[places])
        radii = ((mine[:, :, None] - scores[:, None, :]) / apart[places]).amax(dim=1)
        over = radii[:, of_entries].amin(dim=2)
        over = over.scatter(1, evicted[places, None], torch.inf)
        left = over.topk(k, dim=1, largest=False).values.clamp_min(0.0).sum(dim=1)
        return left, left

    return objective


def _padded(starts: Int64[np.ndarray, " N1"]) -> Int64[np.ndarray, "N V"]:
    """The rows of each entry, its first again where it has fewer than others."""
    counts = np.diff(starts)
    steps = np.arange(counts.max())
    return starts[:-1, None] + np.where(steps < counts[:, None], steps, 0)


def round_to_levels(
    pixels: UInt8[np.ndarray, "H W 3"], delta: Float[np.ndarray, "H W 3"], radius: float
) -> UInt8[np.ndarray, "H W 3"]:
    """The largest multiple of delta that stays below radius once it is rounded to 8-bit levels.

    A file holds whole levels, so this is the attack an attacker can really send. Scaling up before
    rounding keeps the largest entries of delta when the budget is too small for all of them.

    Args:
        pixels: the query, (H, W, 3).
        delta: direction of the perturbation in [0, 1] units, (H, W, 3).
        radius: l2 norm to stay strictly below, in [0, 1] units, recomputed after rounding.

    Returns:
        The perturbed picture; equal to `pixels` when not one level fits below the radius.
    """
    low, high = 0.0, 1.0
    attacked = pixels
    while _length(pixels, _moved(pixels, delta, high)) < radius and high < 1e6:
        low, attacked, high = high, _moved(pixels, delta, high), high * 2
    for _ in range(30):
        middle = (low + high) / 2
        candidate = _moved(pixels, delta, middle)
        if _length(pixels, candidate) < radius:
            low, attacked = middle, candidate
        else:
            high = middle
    return attacked


def _moved(
    pixels: UInt8[np.ndarray, "H W 3"], delta: Float[np.ndarray, "H W 3"], scale: float
) -> UInt8[np.ndarray, "H W 3"]:
    return np.clip(np.rint(pixels + 255.0 * scale * delta), 0, 255).astype(np.uint8)


def _length(a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]) -> float:
    """L2 distance of two pictures in [0, 1] units, from an exact sum of integers."""
    return float(np.sqrt(((a.astype(np.int64) - b) ** 2).sum()) / 255.0)
