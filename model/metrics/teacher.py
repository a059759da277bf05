# pyright: basic
# torch's types are loose.
"""A teacher as a metric: what an uncertified network of today makes of the same pictures."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from model.errors import MetricError
from model.metrics.metric import DifferentiableMetric
from model.teachers.teacher import Teacher


class TeacherMetric(DifferentiableMetric):
    """A teacher behind our own resize, with the up-sampling to its input inside.

    With an input smaller than the teacher's, an attack and its radius are counted in the pixels of
    the smaller square: the way to compare a teacher with a network that looks at 96 x 96 pixels.
    """

    def __init__(self, teacher: Teacher, input_size: int | None = None) -> None:
        """A metric; without an input_size its square is the teacher's.

        Raises:
            MetricError: the square is larger than the teacher's input.
        """
        native = teacher.input_size
        if input_size is not None and not 1 <= input_size <= native:
            raise MetricError(
                f"a square of 1 to {native} pixels was wanted for {teacher.name}, got {input_size}"
            )
        self.teacher = teacher
        self.input_size = native if input_size is None else input_size
        suffix = "" if self.input_size == native else f"@{self.input_size}"
        self.name = f"teacher:{teacher.name}{suffix}"
        self.dim = teacher.dim

    def network(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """The teacher's raw output; it computes in float32 whatever x is in."""
        native = self.teacher.input_size
        if x.shape[-1] != native:
            x = functional.interpolate(x, size=(native, native), mode="bilinear")
        return self.teacher.embed(x.float()).to(x.dtype)
