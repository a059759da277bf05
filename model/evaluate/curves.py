# pyright: basic
# matplotlib's types are loose.
"""Certified shares against radius: the curves, plots of them and of what is found by edit."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from model.cli.libraries import import_foreign
from model.evaluate.radii import PROVED, stated_over
from model.evaluate.rows import Row, chosen, values

_TITLES = {"retrieval": "Certified recall@1", "2afc": "Certified 2AFC score"}
_POINTS = 400
_BINS = 60


@dataclass(frozen=True, eq=False)
class RadiusCurve:
    """What a certified share is made of: each case's radius and what it counts when certified.

    Attributes:
        task: of the rows it belongs to.
        metric: its name.
        radii: ours, in the network's pixels, (C,).
        credits: 1 where the answer is right, or the share of votes for it, (C,).
    """

    task: str
    metric: str
    radii: Float64[np.ndarray, " C"]
    credits: Float64[np.ndarray, " C"]

    def shares(self, at: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, " P"]:
        """The certified share at each of these budgets, (P,)."""
        order = np.argsort(self.radii)
        # What counts from each place of the ascending radii on; nothing after the last.
        beyond = np.append(np.cumsum(self.credits[order][::-1])[::-1], 0.0)
        places = np.searchsorted(self.radii[order], at, side="right")
        return beyond[places] / max(1, self.radii.size)

    def right_radii(self) -> Float64[np.ndarray, " R"]:
        """The finite radii of the cases that count at all, (R,)."""
        return self.radii[(self.credits > 0.0) & np.isfinite(self.radii)]

    def record(self) -> Row:
        """The curve at a hundred and one quantiles of its radii: enough to draw it again."""
        right = self.right_radii()
        radii = np.quantile(right, np.linspace(0.0, 1.0, 101)) if right.size else right
        numbers = {"radii": radii.tolist(), "shares": self.shares(radii).tolist()}
        return {"task": self.task, "metric": self.metric, **PROVED, **numbers}


def figure_class() -> Any:
    """Matplotlib's figures, to be had or missed before a long run.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    needed_by = "a plot (there is --no-plots)"
    return import_foreign("matplotlib.figure", needed_by, "matplotlib", "train").Figure


def draw_plots(
    curves: Sequence[RadiusCurve], rows: Sequence[Row], side: int | None = None
) -> dict[str, bytes]:
    """PNG files, by name, of what there are curves for and of what was measured by edit.

    `side` is that of the square that radii are stated at, where it is not each metric's own.
    """
    over = stated_over(side)
    files: dict[str, bytes] = {}
    for task in dict.fromkeys(curve.task for curve in curves):
        of_task = [curve for curve in curves if curve.task == task]
        for name, draw in (("certified", _draw_shares), ("radii", _draw_histogram)):
            files[f"{task}-{name}.png"] = _png(draw, of_task, _TITLES[task], over)
    by_edit = chosen(rows, by="edit")
    for task, title, found in (
        ("retrieval", "Found first", chosen(by_edit, figure="recall")),
        ("copies", "Copies at 1 % false positives, by margin", _copies(by_edit)),
    ):
        if found:
            files[f"{task}-edits.png"] = _png(_draw_bars, found, title)
    return files


def _copies(rows: Sequence[Row]) -> list[Row]:
    return chosen(rows, figure="copy_recall", statistic="margin", rate=0.01)


def _png(draw: Callable[..., None], what: Sequence[Any], *words: str) -> bytes:
    figure = figure_class()(figsize=(7.0, 4.2), layout="constrained")
    draw(figure.subplots(), what, *words)
    figure.legend(loc="outside upper center", ncols=3)
    buffer = io.BytesIO()
    # Without its date the file depends on the numbers alone.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _end(curves: Sequence[RadiusCurve]) -> float:
    """Where the axis ends: few radii of the first metric, which the run is about, are beyond."""
    radii = next((c.right_radii() for c in curves if c.right_radii().size), np.ones(1))
    return max(1e-3, float(np.quantile(radii, 0.98)))


def _draw_shares(axes: Any, curves: Sequence[RadiusCurve], title: str, over: str) -> None:
    radii = np.linspace(0.0, _end(curves), _POINTS)
    for curve in curves:
        axes.plot(radii, 100.0 * curve.shares(radii), label=curve.metric)
    axes.set(xlabel=f"radius, l2 over {over}", ylabel=f"{title}, %", ylim=(0, 100))
    axes.set_xlim(0.0, radii[-1])
    axes.grid(alpha=0.3)


def _draw_bars(axes: Any, rows: Sequence[Row], title: str) -> None:
    edits, metrics = values(rows, "group"), values(rows, "metric")
    width = 0.8 / len(metrics)
    for place, metric in enumerate(metrics):
        shares, errors = (
            [100.0 * row[of] for row in chosen(rows, metric=metric)] for of in ("value", "error")
        )
        left = np.arange(len(edits)) + (place - (len(metrics) - 1) / 2) * width
        axes.bar(left, shares, width, yerr=errors, label=metric)
    axes.set_xticks(np.arange(len(edits)), edits, rotation=45)
    axes.set(ylabel=f"{title}, %", ylim=(0, 100))


def _draw_histogram(axes: Any, curves: Sequence[RadiusCurve], title: str, over: str) -> None:
    bins = np.linspace(0.0, _end(curves), _BINS)
    for curve in curves:
        axes.hist(curve.right_radii(), bins=bins, histtype="step", label=curve.metric)
    axes.set(xlabel=f"certified radius, l2 over {over}", ylabel="right answers")
    axes.set_title(title.replace("Certified", "Radii behind certified"))
