"""One line of text to a teacher."""

from collections.abc import Callable, Mapping
from pathlib import Path

from model.errors import MetricError
from model.teachers.dreamsim import VARIANTS, load_dreamsim
from model.teachers.efficientnet import NAME as LITE0
from model.teachers.efficientnet import load_lite0
from model.teachers.hubs import load_open_clip, load_timm
from model.teachers.teacher import Teacher

_FEWEST_PIXELS = 32


def load_teacher(
    name: str, *, weights: Path | None = None, size: int | None = None, device: str = "cpu"
) -> Teacher:
    """The teacher that a command line names.

    Args:
        name: see KNOWN_TEACHERS.
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
    follows, build = _FAMILIES.get(family, ("", None))
    if build is None or not (rest if follows else name == family):
        raise MetricError(f"no teacher is called {name!r}; known: {KNOWN_TEACHERS}")
    teacher = build(rest, weights, size, device)
    if size not in (None, teacher.input_size):
        raise MetricError(f"{name} looks at {teacher.input_size} pixels a side, not {size}")
    return teacher


_Build = Callable[[str, Path | None, int | None, str], Teacher]
# Every family of teachers there is, with what follows its name. A new one needs a line here, a
# module that makes a `Teacher` (`frozen.FrozenTeacher` does most of it) from weights read by
# `weights`, and a row in docs/teachers.md.
_FAMILIES: Mapping[str, tuple[str, _Build]] = {
    LITE0: ("", lambda _, weights, size, device: load_lite0(weights, size, device)),
    "dreamsim": (
        f":VARIANT[:v0.1|:v0.2] ({', '.join(VARIANTS)})",
        lambda variant, weights, _, device: load_dreamsim(variant, weights, device),
    ),
    "timm": (":MODEL", load_timm),
    "open_clip": (
        ":MODEL",
        lambda model, weights, _, device: load_open_clip(model, weights, device),
    ),
}
KNOWN_TEACHERS = ", ".join(name + follows for name, (follows, _) in _FAMILIES.items())
