# pyright: basic
"""The student of the task `copies`: a held front, and the head that is trained."""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from model.train.copies.wave_student import WaveStudent, scale_head
from model.train.student import Student


class HeadStudent(Student):
    """A held front and a trained head: g(x) = M B^T (features(x) - c) - o.

    Of the front the maps are used, not the head. B is the basis, orthonormal columns; c the centre,
    the features' mean; M the mix, of spectral norm at most 1; o the offset.
    """

    basis: Tensor
    centre: Tensor
    export_tolerance = WaveStudent.export_tolerance
    exports_rotated = True

    def __init__(
        self,
        front: WaveStudent,
        basis: Float[Tensor, "N K"],
        centre: Float[Tensor, " N"],
        mix: Float[Tensor, "D K"],
        offset: Float[Tensor, " D"],
    ) -> None:
        super().__init__()
        self.config = front.config
        self.front = front.requires_grad_(requires_grad=False)
        self.register_buffer("basis", basis.float())
        self.register_buffer("centre", centre.float())
        self.mix, self.offset = nn.Parameter(mix.float()), nn.Parameter(offset.float())

    def head(self, coordinates: Float[Tensor, "*B K"]) -> Float[Tensor, "*B D"]:
        """Raw embeddings of features in the basis."""
        return coordinates @ self.mix.T - self.offset

    def embedded(self, rows: Float[Tensor, "B K"]) -> Float64[np.ndarray, "B D"]:
        """Raw embeddings of features in the basis, without gradients."""
        return self.head(rows.to(self.mix)).detach().double().cpu().numpy()

    def metric(self) -> Float[Tensor, "D D"]:
        """M M^T, in which radii are measured."""
        return self.mix @ self.mix.T

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return self.head((self.front.features(x) - self.centre) @ self.basis)

    def constrain(self) -> None:
        """Scales the head to norm 1, nearly."""
        scale_head(self.mix, self.offset)

    def export(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The front's tensors with this head, the basis multiplied in."""
        with torch.no_grad():
            head = self.mix.double() @ self.basis.double().T
            offset = self.offset.double() + head @ self.centre.double()
        return self.front.export_with(head, offset)
