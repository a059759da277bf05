"""One line of text to a teacher."""

from pathlib import Path

from model.errors import MetricError
from model.teachers.dreamsim import VARIANTS, load_dreamsim
from model.teachers.efficientnet import NAME as LITE0
from model.teachers.efficientnet import SIDE, EfficientNetLite0
from model.teachers.hubs import load_open_clip, load_timm
from model.teachers.teacher import Teacher

TEACHER_HELP = (
    f"{LITE0}, dreamsim:VARIANT[:v0.1|:v0.2] ({', '.join(VARIANTS)}), timm:MODEL, open_clip:MODEL"
)
_FEWEST_PIXELS = 32


def load_teacher(
    name: str, *, weights: Path | None = None, size: int | None = None, device: str = "cpu"
) -> Teacher:
    """The teacher that a command line names.

    Args:
        name: see TEACHER_HELP.
        weights: its weights on disk, where its package does not carry them: a file, for DreamSim a
            folder. Nothing is ever downloaded.
        size: side of its input, pixels; None takes its own.
        device: a torch device.

    Raises:
        MetricError: no teacher has this name, or size, or its weights cannot be used.
        DependencyError: its library is not installed.
    """
    if size is not None and size < _FEWEST_PIXELS:
        raise MetricError(f"an input of at least {_FEWEST_PIXELS} pixels was wanted, got {size}")
    family, _, rest = name.partition(":")
    if name == LITE0:
        return EfficientNetLite0(weights, input_size=size or SIDE, device=device)
    if family == "timm" and rest:
        return load_timm(rest, weights, size, device)
    if family == "dreamsim":
        return _own_size(load_dreamsim(rest, weights, device), size)
    if family == "open_clip" and rest:
        return _own_size(load_open_clip(rest, weights, device), size)
    raise MetricError(f"no teacher is called {name!r}; known: {TEACHER_HELP}")


def _own_size(teacher: Teacher, size: int | None) -> Teacher:
    if size not in (None, teacher.input_size):
        raise MetricError(f"{teacher.name} looks at {teacher.input_size} pixels a side, not {size}")
    return teacher
