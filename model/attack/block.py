"""Questions that are attacked together, and what an attack on them may do."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from model.attack.decisions import Decision
from model.attack.subjects import Subject


@dataclass(frozen=True, eq=False)
class Block:
    """Questions whose pictures have one size.

    Attributes:
        subject: the metric, seen from pixels of this size.
        decision: what is to hold.
        ids: the questions', (Q,).
        pictures: unchanged pixels in [0, 1], (Q, 3, H, W).
        vectors: their raw vectors, (Q, D).
    """

    subject: Subject
    decision: Decision
    ids: list[str]
    pictures: Float64[np.ndarray, "Q 3 H W"]
    vectors: Float64[np.ndarray, "Q D"]


@dataclass(frozen=True)
class Budget:
    """What an attack may do.

    Attributes:
        epsilon: the norm a perturbation may have, in [0, 1] units.
        norm: "l2" or "linf".
        steps: gradient steps; for `square`, rounds of three queries.
    """

    epsilon: float
    norm: str
    steps: int
