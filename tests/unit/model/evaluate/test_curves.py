import math

import numpy as np
import pytest

from model.evaluate.curves import RadiusCurve, draw_plots


def test_a_curve_is_the_credit_of_cases_with_a_larger_radius(rng):
    radii = rng.integers(0, 6, 50) / 2.0
    radii[:3] = math.inf
    credits = rng.choice([0.0, 0.5, 1.0], 50)
    curve = RadiusCurve("retrieval", "m", radii, credits)
    at = np.array([-1.0, 0.0, 0.4, 0.5, 2.5, 9.0])
    wanted = [float(credits[radii > epsilon].sum()) / 50 for epsilon in at]
    assert curve.shares(at) == pytest.approx(wanted)


def test_the_record_of_a_curve_has_finite_numbers_only():
    record = RadiusCurve("2afc", "m", np.array([0.1, math.inf]), np.ones(2)).record()
    assert (record["task"], record["unit"], record["formula"]) == ("2afc", "input", "ours")
    assert record["radii"] == [0.1] * 101
    assert record["shares"] == [0.5] * 101
    assert RadiusCurve("2afc", "m", np.array([math.inf]), np.ones(1)).record()["radii"] == []


def test_plots_depend_on_the_numbers_alone(rng):
    radii = rng.exponential(size=50)
    radii[0] = np.inf
    curves = [RadiusCurve(task, "m", radii, np.ones(50)) for task in ("retrieval", "2afc")]
    curves.append(RadiusCurve("2afc", "nothing right", radii, np.zeros(50)))
    edited = {"task": "retrieval", "figure": "recall", "k": 1, "by": "edit", "error": 0.1}
    rows = [
        {**edited, "metric": metric, "group": kind, "value": 0.5}
        for metric in "mn" for kind in ("blur", "crop")
    ]  # fmt: skip
    files = draw_plots(curves, rows)
    assert list(files) == [
        "retrieval-certified.png", "retrieval-radii.png", "2afc-certified.png", "2afc-radii.png",
        "retrieval-edits.png",
    ]  # fmt: skip
    assert all(data.startswith(b"\x89PNG") for data in files.values())
    assert draw_plots(curves, rows) == files
    assert draw_plots(curves, rows, 32)["retrieval-radii.png"] != files["retrieval-radii.png"]
    rows[0]["value"] = 0.25
    assert draw_plots(curves, rows)["retrieval-edits.png"] != files["retrieval-edits.png"]
