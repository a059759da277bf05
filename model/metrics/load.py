"""One line of text to a metric."""

from collections.abc import Callable
from pathlib import Path

from model.embedder import Embedder
from model.errors import MetricError
from model.metrics.hashes import pdq, phash
from model.metrics.metric import Metric
from model.metrics.ours import EmbedderMetric
from model.metrics.pixels import BlockMeans

DEFAULT = "wave-96"
_BASELINES: dict[str, Callable[[], Metric]] = {
    "raw": lambda: BlockMeans(64),
    "blockmean16": lambda: BlockMeans(16),
    "blockmean8": lambda: BlockMeans(8),
    "phash": phash,
    "pdq": pdq,
}
_TEACHER = "teacher:"

METRIC_HELP = (
    f"{DEFAULT} (the checkpoint that ships), a checkpoint file, {', '.join(_BASELINES)}, "
    "or teacher:NAME, with @96 at its end for a teacher behind a 96 x 96 picture"
)


def named(text: str) -> tuple[str, str]:
    """The name that NAME=SPEC gives a metric, or "", and its spec; a file may have "=" in it."""
    name, equals, spec = text.partition("=")
    return (name, spec) if equals and not Path(text).is_file() else ("", text)


def load_named(
    text: str, *, weights: Path | None = None, device: str = "cpu"
) -> tuple[str, Metric]:
    """The metric of NAME=SPEC or SPEC, and that name, else its own; see `load_metric`."""
    name, spec = named(text)
    metric = load_metric(spec, weights=weights, device=device)
    return name or metric.name, metric


def load_metric(spec: str, *, weights: Path | None = None, device: str = "cpu") -> Metric:
    """The metric that a command line names, as METRIC_HELP says: differentiable unless a hash.

    `weights` are a teacher's, where its package does not carry them.

    Raises:
        MetricError: no metric has this name.
        DependencyError: its library is not installed.
        CheckpointError: the checkpoint file cannot be used.
    """
    if spec in _BASELINES:
        return _BASELINES[spec]()
    if spec.startswith(_TEACHER):
        return _teacher(spec.removeprefix(_TEACHER), weights, device)
    if spec == DEFAULT:
        return EmbedderMetric(Embedder.load(device=device))
    if spec.endswith(".safetensors") or Path(spec).is_file():
        return EmbedderMetric(Embedder.load(spec, device=device))
    raise MetricError(f"no metric is called {spec!r}; known: {METRIC_HELP}")


def _teacher(spec: str, weights: Path | None, device: str) -> Metric:
    from model.metrics.teacher import TeacherMetric  # noqa: PLC0415 (needed by teachers only)
    from model.teachers.load import load_teacher  # noqa: PLC0415

    name, _, side = spec.partition("@")
    if side and not side.isdecimal():
        raise MetricError(f"a side in pixels was wanted after the @ of {spec!r}")
    teacher = load_teacher(name, weights=weights, device=device)
    return TeacherMetric(teacher, int(side) if side else None)
