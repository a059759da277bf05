# pyright: basic
"""A wavelet network of which the head alone is trained, in a principal basis of its features.

With the maps held, a picture's features never change: they are computed once, and a step costs two
small matrix products instead of a pass through the network.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.train.copies.wave_student import HEAD_NORM, WaveStudent, nearest_contraction
from model.train.student import Student


class HeadStudent(Student):
    """A held front and a trained head: g(x) = M B^T (features(x) - c) - o.

    Attributes:
        front: the network whose maps are used; its own head is not.
        basis: B, orthonormal columns, (N, K).
        centre: c, the mean of the features, (N,).
        mix: M, (D, K), of spectral norm at most 1.
        offset: o, (D,).
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

    def coordinates(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B K"]:
        """Features of inputs in the basis, about their mean."""
        return (self.front.features(x) - self.centre) @ self.basis

    def head(self, coordinates: Float[Tensor, "B K"]) -> Float[Tensor, "B D"]:
        """Raw embeddings of features in the basis."""
        return coordinates @ self.mix.T - self.offset

    def forward(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Raw embeddings."""
        return self.head(self.coordinates(x))

    @torch.no_grad()
    def constrain(self) -> None:
        """Projects the head to the nearest contraction."""
        self.mix.copy_(nearest_contraction(self.mix, HEAD_NORM))

    def export(self) -> dict[str, Float[np.ndarray, "..."]]:
        """The front's tensors with this head, the basis multiplied in."""
        with torch.no_grad():
            head = self.mix.double() @ self.basis.double().T
            offset = self.offset.double() + head @ self.centre.double()
        return self.front.export_with(head, offset)
