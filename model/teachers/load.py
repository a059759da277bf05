"""One line of text to a teacher."""

from pathlib import Path

from model.errors import MetricError
from model.teachers.efficientnet import NAME as LITE0
from model.teachers.efficientnet import EfficientNetLite0
from model.teachers.teacher import Teacher

TEACHER_HELP = LITE0


def load_teacher(
    name: str, *, weights: Path | None = None, size: int | None = None, device: str = "cpu"
) -> Teacher:
    """The teacher that a command line names.

    Args:
        name: see TEACHER_HELP.
        weights: its weights, where its package does not carry them; nothing is ever downloaded.
        size: side of its input, pixels; None takes its own.
        device: a torch device.

    Raises:
        MetricError: no teacher has this name, or its weights cannot be used.
        DependencyError: its library is not installed.
    """
    if name == LITE0:
        return EfficientNetLite0(weights, input_size=size or 224, device=device)
    raise MetricError(f"no teacher is called {name!r}; known: {TEACHER_HELP}")
