"""The edited copies that training sees, of the twelve kinds that evaluation asks with."""

import numpy as np
from jaxtyping import Float32, UInt8

from model.data.edits import EDIT_KINDS, edit
from model.pixels.resize import resize_operator

# What a generator is for; other uses of a run's seed have other numbers.
_EDIT = 3


def edited(
    pixels: UInt8[np.ndarray, "H W 3"], seed: int, picture: int, view: int, stacked_share: float
) -> UInt8[np.ndarray, "h w 3"]:
    """One edited copy of a training picture, a function of its arguments alone.

    Args:
        pixels: the picture.
        seed: of the run.
        picture: its number in the training set.
        view: number of the copy.
        stacked_share: probability that another edit follows the first.
    """
    rng = np.random.default_rng([seed, _EDIT, picture, view])
    copy = edit(pixels, EDIT_KINDS[int(rng.integers(len(EDIT_KINDS)))], rng)
    if rng.random() < stacked_share:
        copy = edit(copy, EDIT_KINDS[int(rng.integers(len(EDIT_KINDS)))], rng)
    return copy


def network_input(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> Float32[np.ndarray, "3 S S"]:
    """A picture through the resize that serving uses, in float32."""
    return resize_operator(pixels.shape[0], pixels.shape[1], size).apply(pixels).astype(np.float32)
