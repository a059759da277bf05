# pyright: basic
# torch's types are loose, and gradients are torch's.
"""Evictions: small changes of a query's pixels that push a result out of the answer.

An attack that succeeds below a certified radius would refute the certificate; the norm at which one
does succeed (`attack_radius`) is an upper bound on the true radius, so the two enclose it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from model.attack.descent import Objective, descend, shorten, unit
from model.pixels.resize import Resize

Network = Callable[[Tensor], Tensor]
"""Network input (B, 3, S, S) float64 to raw embeddings (B, D), differentiable."""


@dataclass(frozen=True)
class EvictionTarget:
    """What an attack is after: push one entry out of the top k of a gallery.

    Attributes:
        gallery: gallery vectors (N, D), float64 copies of the stored rows.
        entry: row of the entry to evict.
        k: requested number of results; N must exceed it, else nothing can displace the entry.
    """

    gallery: Float[np.ndarray, "N D"]
    entry: int
    k: int


def evict(
    network: Network,
    resize: Resize,
    pixels: Float[np.ndarray, "H W 3"],
    targets: list[EvictionTarget],
    budgets: Float[np.ndarray, " T"],
    *,
    steps: int = 50,
) -> Float[np.ndarray, "T H W 3"]:
    """Projected gradient descent through resize and network, one target a row, all in float64.

    The objective is the sum of the k smallest signed distances r_ij that are still positive: the
    half-spaces that must be crossed for k entries to stand before entry i. The pixels are real
    numbers and may leave [0, 1]: the certificate knows no box.

    Args:
        network: the differentiable network.
        resize: the resize of this image size.
        pixels: the query's pixels in [0, 1], (H, W, 3).
        targets: T eviction targets.
        budgets: l2 norm each perturbation may have, in pixels, (T,).
        steps: gradient steps, each of length 2.5 budget / steps.

    Returns:
        For each target the perturbation with the lowest objective seen, (T, H, W, 3), of norm at
        most its budget.
    """
    objective = _differentiate(network, resize, pixels, targets)
    limits = torch.from_numpy(budgets).reshape(-1, 1, 1, 1)
    return _pixels_last(descend(objective, _zeros(targets, pixels), limits, steps=steps))


def smallest_eviction(
    network: Network,
    resize: Resize,
    pixels: Float[np.ndarray, "H W 3"],
    targets: list[EvictionTarget],
    starts: Float[np.ndarray, " T"],
    *,
    steps: int = 50,
) -> Float[np.ndarray, "T H W 3"]:
    """Look for the shortest perturbation that evicts: its norm shrinks after each success.

    Args:
        network: the differentiable network.
        resize: the resize of this image size.
        pixels: the query's pixels in [0, 1], (H, W, 3).
        targets: T eviction targets.
        starts: norm to begin with, in pixels, (T,).
        steps: gradient steps.

    Returns:
        For each target the shortest perturbation that crossed all its half-spaces, (T, H, W, 3);
        zeros where none did.
    """
    objective = _differentiate(network, resize, pixels, targets)
    lengths = torch.from_numpy(starts).reshape(-1, 1, 1, 1)
    return _pixels_last(shorten(objective, _zeros(targets, pixels), lengths, steps=steps))


def smallest_scale(is_evicted: Callable[[float], bool], *, bisections: int = 12) -> float | None:
    """The smallest factor in (0, 1] at which a perturbation still evicts, by bisection.

    Args:
        is_evicted: verdict of the program for the perturbation times a factor.
        bisections: halvings of the interval.

    Returns:
        A factor that evicts, within 2**-bisections of one that does not; None if 1 does not.
    """
    if not is_evicted(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(bisections):
        middle = (low + high) / 2
        low, high = (low, middle) if is_evicted(middle) else (middle, high)
    return high


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


def _differentiate(
    network: Network,
    resize: Resize,
    pixels: Float[np.ndarray, "H W 3"],
    targets: list[EvictionTarget],
) -> Objective:
    """The objective of each target as a function of the perturbations, and its unit gradient."""
    rows, columns = torch.from_numpy(resize.rows), torch.from_numpy(resize.columns)
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    planes = [_planes(target) for target in targets]

    def loss_and_gradient(delta: Tensor) -> tuple[Tensor, Tensor]:
        delta = delta.detach().requires_grad_(True)
        embeddings = network(rows @ (image + delta) @ columns.T)
        # The k half-spaces that are nearest to being crossed, or are.
        loss = torch.stack(
            [
                (normals @ g).topk(target.k, largest=False).values.clamp_min(0.0).sum()
                for g, normals, target in zip(embeddings, planes, targets, strict=True)
            ]
        )
        (gradient,) = torch.autograd.grad(loss.sum(), delta)
        return loss.detach().reshape(-1, 1, 1, 1), unit(gradient)

    return loss_and_gradient


def _planes(target: EvictionTarget) -> Float[Tensor, "M D"]:
    """Unit normals of the half-spaces in which the target stands before each other entry."""
    others: Int[np.ndarray, " M"] = np.delete(np.arange(len(target.gallery)), target.entry)
    difference = target.gallery[target.entry] - target.gallery[others]
    return torch.from_numpy(difference / np.linalg.norm(difference, axis=1, keepdims=True))


def _zeros(
    targets: list[EvictionTarget], pixels: Float[np.ndarray, "H W 3"]
) -> Float[Tensor, "T 3 H W"]:
    return torch.zeros((len(targets), 3, *pixels.shape[:2]), dtype=torch.float64)


def _pixels_last(delta: Float[Tensor, "T 3 H W"]) -> Float[np.ndarray, "T H W 3"]:
    return delta.permute(0, 2, 3, 1).contiguous().numpy()
