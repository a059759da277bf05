"""The metrics that are compared, by the names that tables use: those asked for, and baselines."""

from collections.abc import Sequence
from typing import Any

from model.errors import DependencyError, EvaluationError
from model.metrics.load import DEFAULT, load_named
from model.metrics.metric import Metric
from model.metrics.ours import EmbedderMetric

BASELINES = ("raw", "blockmean16", "blockmean8", "phash")
OPTIONAL_BASELINES = ("pdq", "teacher:efficientnet-lite0")


def load_metrics(
    specs: Sequence[str], *, with_baselines: bool = False, device: str = "cpu"
) -> dict[str, Metric]:
    """Metrics by name, in order; the first is the one that a report is about.

    With baselines those are added that can be had here and are not named yet.

    Raises:
        EvaluationError: two have the same name.
        MetricError: no metric is called that.
        CheckpointError: a checkpoint file cannot be used.
        DependencyError: a metric that was asked for needs a library that is missing.
    """
    found: dict[str, Metric] = {}
    for spec in specs or [DEFAULT]:
        name, metric = load_named(spec, device=device)
        if name in found:
            raise EvaluationError(
                f"two metrics are called {name!r}; write OTHER={spec} to call the second OTHER"
            )
        found[name] = metric
    for spec in (*BASELINES, *OPTIONAL_BASELINES) if with_baselines else ():
        try:
            name, metric = load_named(spec, device=device)
        except DependencyError:
            if spec not in OPTIONAL_BASELINES:
                raise
        else:
            found.setdefault(name, metric)
    return found


def describe(name: str, metric: Metric) -> dict[str, Any]:
    """What a report says of a metric beside its numbers."""
    embedder = metric.embedder if isinstance(metric, EmbedderMetric) else None
    radii = None if metric.lipschitz_bound is None else "isotropic"
    return {
        "name": name,
        "model": metric.name,
        "fingerprint": None if embedder is None else embedder.fingerprint,
        "radii": radii if embedder is None else embedder.metric,
        "dim": metric.dim,
        "input_size": metric.input_size,
        "lipschitz_bound": metric.lipschitz_bound,
        "forward_error": metric.forward_error,
    }
