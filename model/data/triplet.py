"""A judged triplet: which of two pictures people found closer to a reference."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from model.data.files import read_bytes
from model.data.pictures import PICTURE_LIMITS, decode

Pixels = UInt8[np.ndarray, "_H _W 3"]


@dataclass(frozen=True)
class Triplet:
    """One question to people, and their answer.

    Attributes:
        id: the data set's own name of it.
        reference: the picture that the others are held against.
        left: one of them; BAPPS calls it p0.
        right: the other; p1.
        vote: share that found right closer, in [0, 1], as float32 holds it.
        votes: how many answered; None where the data set does not say.
        split: train, val or test.
        is_imagenet: whether the pictures' category is one of ImageNet's; None if not said.
        group: what a report tells apart (a subset of BAPPS, a kind of synthetic triplets), or None.
    """

    id: str
    reference: Path
    left: Path
    right: Path
    vote: float
    votes: int | None
    split: str
    is_imagenet: bool | None = None
    group: str | None = None


def load_triplet_pixels(triplet: Triplet) -> tuple[Pixels, Pixels, Pixels]:
    """Reference, left and right, upright and in RGB, (H, W, 3) each, read-only.

    Raises:
        DataError: one cannot be read or decoded; the message names its file.
    """
    reference, left, right = (
        decode(read_bytes(path, PICTURE_LIMITS.max_image_bytes), str(path))
        for path in (triplet.reference, triplet.left, triplet.right)
    )
    return reference, left, right
