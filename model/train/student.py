# pyright: basic
"""What the trainer trains: a student that can say, at any moment, which network it is."""

from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.nets.presets import EmbedderConfig


class Student(nn.Module):
    """A network whose bound holds at every step, so that training can never leave the safe side.

    A subclass defines `forward(x (B, 3, S, S)) -> (B, d)` and `export()`. What it exports is the
    network it has just been: `model.train.proof` compares the two before anything is written.

    Attributes:
        config: shape of the network.
        export_tolerance: how far the exported network's embeddings may be from the student's own,
            relative to their norm; what rounding to the stored formats costs, with room.
        exports_rotated: whether the exported embeddings are turned: norms and cosines stay.
        bfloat16: set by the trainer; `arithmetic` makes it so.
    """

    config: EmbedderConfig
    export_tolerance: float = 1e-4
    bfloat16: bool = False

    @property
    def exports_rotated(self) -> bool:
        return False

    def constrain(self) -> None:
        """After each optimizer step: back onto the set where the bound holds, if a step leaves it.

        Averaged weights are put back likewise, before they are validated or kept.
        """

    def export(self) -> dict[str, Float[np.ndarray, "..."]]:
        """Exactly the tensors of `model.nets.network.tensor_specs(config)`, in their formats."""
        raise NotImplementedError

    def arithmetic(self, x: Float[Tensor, "..."]) -> AbstractContextManager[object]:
        """Where a forward pass runs its large products: bfloat16 while training, if so wished.

        T, QR, residual sums and losses stay outside, in float32.
        """
        enabled = self.bfloat16 and self.training
        return torch.autocast(x.device.type, torch.bfloat16, enabled=enabled)
