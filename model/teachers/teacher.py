"""What a teacher is: a network of someone else's whose embeddings a student learns."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Teacher(Protocol):
    """A frozen network from pictures to embeddings.

    Attributes:
        name: as `load_teacher` knows it.
        dim: length of an embedding.
        input_size: side of its square input, pixels.
        record: what a checkpoint made with it should remember: weights file, sha256, scale.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def record(self) -> Mapping[str, str]: ...

    def embed(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Embeddings of pictures in [0, 1]: float32, differentiable, on the scale of its recipe.

        It does its own normalisation of pixels. Weights and statistics never change.
        """
        ...
