import numpy as np

from model.evaluate.expectations import Verdict
from model.evaluate.measurement import Group, Measurement, shares_above
from model.evaluate.plots import write_plots
from model.evaluate.radii import OURS, PUBLISHED, Claim
from model.evaluate.report import summary, write_report
from model.evaluate.results import RadiusCurve, Results, identify

METRICS = [
    {"name": "ours", "dim": 8, "input_size": 64, "lipschitz_bound": 0.5, "fingerprint": "f" * 64},
    {"name": "hash", "dim": 8, "input_size": None, "lipschitz_bound": None, "fingerprint": None},
]


def triplet_results():
    everything = Group("all", "", np.ones(4, dtype=np.bool_))
    rows = [Measurement("2afc", name, "score", 0.75, 4) for name in ("ours", "hash")]
    rows.append(Measurement("2afc", "ours", "norm_below_1", 0.25, 4))
    for formula in (OURS, PUBLISHED):
        rows += shares_above(
            everything,
            Claim("input", formula, np.array([0.1, 0.3, 0.6, 2.0])),
            (36 / 255, 0.5, 1.0),
            task="2afc",
            metric="ours",
            figure="certified_score",
            weights=np.ones(4),
        )
    return Results("the command", 0, None, None, {"triplets": identify("d", [])}, METRICS, rows)


def rows_of(report):
    return [line for line in report.splitlines() if line.startswith("| ")]


def test_a_certified_share_is_only_shown_where_something_is_proved():
    report = write_report(triplet_results(), [], [])
    rows = rows_of(report)
    assert "| metric | score | 0.141 (36/255) | 0.5 | 1 |" in rows
    assert "| ours | 75.0 | 75.0 | 50.0 | 25.0 |" in rows
    assert "| hash | 75.0 | - | - | - |" in rows


def test_the_summary_says_of_how_many_cases_its_shares_are():
    said = summary(triplet_results())
    assert said.endswith("Percent of so many cases: 4 (2AFC, 2AFC certified at 0.5).")
    rows = [
        Measurement("retrieval", "hash", "recall", 1.0, 22, k=1),
        Measurement("knn", "hash", "label_accuracy", 1.0, 11, k=1),
    ]
    results = Results("c", 0, None, None, {}, METRICS, rows)
    assert summary(results).endswith("cases: 22 (recall@1); 11 (1-NN).")


def test_the_published_formula_is_called_unsound_with_its_count():
    report = write_report(triplet_results(), [], [])
    assert "published formula (unsound where the embedding norm is below 1)" in report
    assert "unsound on 1 triplets" in report
    assert "loose on the other 3" in report


def test_a_report_says_what_was_run_on_what():
    report = write_report(triplet_results(), [], ["a.png"])
    for text in (
        "`the command`",
        "`" + "f" * 64 + "`",
        "nothing is proved of it",
        "![a.png](a.png)",
    ):
        assert text in report
    assert identify("d", []).sha256 in report
    assert "## Retrieval" not in report


def test_expectations_stand_at_the_end():
    verdicts = [Verdict("a", "at least 0.9", 0.8, False), Verdict("b", "at least 1", None, False)]
    rows = rows_of(write_report(triplet_results(), verdicts, []))
    assert rows[-2:] == [
        "| a | at least 0.9 | 0.8000 | **failed** |",
        "| b | at least 1 | - | **failed** |",
    ]


def test_plots_depend_on_the_numbers_alone(tmp_path, rng):
    radii = rng.exponential(size=50)
    radii[0] = np.inf
    curves = [RadiusCurve(task, "m", radii, np.ones(50)) for task in ("retrieval", "2afc")]
    curves.append(RadiusCurve("2afc", "nothing right", radii, np.zeros(50)))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        names = write_plots(curves, tmp_path / folder)
    assert names == [
        "retrieval-certified.png", "retrieval-radii.png", "2afc-certified.png", "2afc-radii.png",
    ]  # fmt: skip
    for name in names:
        data = (tmp_path / "a" / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert data == (tmp_path / "b" / name).read_bytes()
