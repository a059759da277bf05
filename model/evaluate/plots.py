# pyright: basic
# matplotlib's types are loose.
"""Plots of certified shares against radius, and of the radii themselves."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.cli.libraries import install_hint
from model.errors import DependencyError
from model.evaluate.results import RadiusCurve, write_aside

_TITLES = {"retrieval": "Certified recall@1", "2afc": "Certified 2AFC score"}
_POINTS = 400
_BINS = 60


def require_matplotlib() -> None:
    """Find out before a long run that its plots cannot be drawn.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    _figure()


def write_plots(curves: Sequence[RadiusCurve], directory: Path) -> list[str]:
    """Draw what there are curves for; returns the names of the files."""
    names: list[str] = []
    for task in dict.fromkeys(curve.task for curve in curves):
        chosen = [curve for curve in curves if curve.task == task]
        for name, draw in (("certified", _draw_shares), ("radii", _draw_histogram)):
            figure = _figure()
            draw(figure.subplots(), chosen, _TITLES[task])
            buffer = io.BytesIO()
            # Without its date the file depends on the numbers alone.
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
            names.append(f"{task}-{name}.png")
            write_aside(directory / names[-1], buffer.getvalue())
    return names


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (an extra)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as exc:
        raise DependencyError(
            f"plots need matplotlib: {install_hint('train')}; or pass --no-plots"
        ) from exc
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _end(curves: Sequence[RadiusCurve]) -> float:
    """Where the axis ends: few radii of the first metric, which the run is about, are beyond."""
    radii = next((c.right_radii() for c in curves if c.right_radii().size), np.ones(1))
    return max(1e-3, float(np.quantile(radii, 0.98)))


def _draw_shares(axes: Any, curves: Sequence[RadiusCurve], title: str) -> None:
    radii = np.linspace(0.0, _end(curves), _POINTS)
    for curve in curves:
        axes.plot(radii, 100.0 * curve.shares(radii), label=curve.metric)
    axes.set(xlabel="radius, l2 over the network's input", ylabel=f"{title}, %", ylim=(0, 100))
    axes.set_xlim(0.0, radii[-1])
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_histogram(axes: Any, curves: Sequence[RadiusCurve], title: str) -> None:
    bins = np.linspace(0.0, _end(curves), _BINS)
    for curve in curves:
        axes.hist(curve.right_radii(), bins=bins, histtype="step", label=curve.metric)
    axes.set(xlabel="certified radius, l2 over the network's input", ylabel="right answers")
    axes.set_title(title.replace("Certified", "Radii behind certified"))
    axes.legend()
