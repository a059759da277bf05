# pyright: basic
"""What the trainer trains: a student that can say, at any moment, which network it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
        parts: likewise; `in_parts` makes it so.
    """

    config: EmbedderConfig
    export_tolerance: float = 1e-4
    exports_rotated: bool = False
    bfloat16: bool = False
    parts: int = 1

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

    def in_parts(
        self, through: Callable[[Tensor], Tensor], x: Float[Tensor, "B 3 S S"]
    ) -> Float[Tensor, "B N"]:
        """The part of a pass that fills the memory, a few pictures at a time while training.

        What lies between is computed again for the gradient, of one part at a time. The loss still
        sees every row: one of all pairs, or a root over the batch, has the gradient it would have.
        """
        if self.parts == 1 or not torch.is_grad_enabled():
            return through(x)
        parts = x.chunk(self.parts)
        return torch.cat(
            [
                checkpoint(through, part, use_reentrant=False, preserve_rng_state=False)
                for part in parts
            ]
        )
