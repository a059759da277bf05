# pyright: basic
"""The student of the task `copies`: a held front, and the head that is trained."""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from model.train.copies.wave_student import HEAD_NORM, WaveStudent, nearest_contraction
from model.train.student import Student


class HeadStudent(Student):
    """A held front and a trained head: g(x) = M B^T (features(x) - c) - o.

    Of the front the maps are used, not the head. B is the basis, orthonormal columns; c the centre,
    the features' mean; M the mix, of spectral norm at most 1; o the offset.
    """

    basis: Tensor
    centre: Tensor
    export_tolerance = WaveStudent.export_tolerance

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

    def metric(self) -> Float[Tensor, "D D"] | None:
        """M M^T of a free head, in which radii are measured; None where they are isotropic."""
        return self.mix @ self.mix.T if self.front.has_free_head else None

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        return self.head((self.front.features(x) - self.centre) @ self.basis)

    @torch.no_grad()
    def constrain(self) -> None:
        """Projects the head to the nearest contraction; a free one is scaled to that norm."""
        if self.front.has_free_head:
            scale = HEAD_NORM / torch.linalg.matrix_norm(self.mix.double(), 2).to(self.mix)
            self.mix.mul_(scale)
            self.offset.mul_(scale)
        self.mix.copy_(nearest_contraction(self.mix, HEAD_NORM))

    @property
    def exports_rotated(self) -> bool:
        return self.front.exports_rotated

    def export(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The front's tensors with this head, the basis multiplied in."""
        with torch.no_grad():
            head = self.mix.double() @ self.basis.double().T
            offset = self.offset.double() + head @ self.centre.double()
        return self.front.export_with(head, offset)
