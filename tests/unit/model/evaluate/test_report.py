import re

import numpy as np

from model.evaluate.radii import NORMALISED, PROVED
from model.evaluate.report import markdown, summary
from model.evaluate.rows import certified_rows, chosen, groups_of, values

METRICS = [
    {
        "name": "ours",
        "dim": 8,
        "input_size": 64,
        "lipschitz_bound": 0.5,
        "radii": "head-aware",
        "fingerprint": "f" * 64,
    },
    {"name": "hash", "dim": 8, "input_size": None, "lipschitz_bound": None, "fingerprint": None},
]
RECORD = {
    "command": "the command",
    "seed": 0,
    "copies": 2,
    "views": "shift",
    "side": None,
    "data": {"triplets": {"name": "d", "files": 3, "sha256": "e" * 64}},
    "metrics": METRICS,
}


def row(task, metric, figure, value, count, **fields):
    named = {"task": task, "metric": metric, "figure": figure, "value": value, "count": count}
    return {"by": "all", **named, **fields}


def triplet_rows():
    rows = [row("2afc", name, "score", 0.75, 4) for name in ("ours", "hash")]
    rows.append(row("2afc", "ours", "norm_below_1", 0.25, 4))
    radii = np.array([0.1, 0.3, 0.6, 2.0])
    return rows + certified_rows(
        {"task": "2afc", "metric": "ours", "figure": "certified_score"},
        np.ones(4),
        [(PROVED, radii), (NORMALISED, radii)],
        (36 / 255, 0.5, 1.0),
        groups_of({}, np.arange(4)),
    )


def table_rows(report):
    return [line for line in report.splitlines() if line.startswith("| ")]


def test_rows_are_chosen_by_every_field_and_numbers_exactly():
    rows = [
        row("2afc", "m", "certified_score", 0.1, 5, epsilon=36 / 255, unit="input"),
        row("2afc", "m", "certified_score", 0.2, 5, epsilon=36 / 255, unit="upload"),
        row("2afc", "m", "score", 0.3, 5),
    ]
    assert chosen(rows, epsilon=36 / 255, unit="upload") == rows[1:2]
    assert chosen(rows, epsilon=0.141, unit="upload") == []
    assert chosen(rows, epsilon=None) == rows[2:]
    assert values(rows, "unit") == ["input", "upload", None]


def test_a_certified_share_is_only_shown_where_something_is_proved():
    rows = table_rows(markdown(RECORD, triplet_rows(), []))
    assert "| metric | score | 0.141 (36/255) | 0.5 | 1 |" in rows
    (ours,) = [line for line in rows if line.startswith("| ours |")][1:2]
    shares = [
        re.fullmatch(r"([0-9.]+)( ± [0-9.]+)?", cell.strip())[1] for cell in ours.split("|")[2:-1]
    ]
    assert shares == ["75.0", "75.0", "50.0", "25.0"]
    assert "| hash | 75.0 | - | - | - |" in rows


def test_budgets_that_lie_close_have_columns_of_their_own():
    rows = [
        row("2afc", "ours", "certified_score", value, 4, epsilon=epsilon, **PROVED)
        for value, epsilon in ((0.5, 36 / 255), (0.25, 0.141))
    ]
    lines = table_rows(markdown(RECORD, [row("2afc", "ours", "score", 1.0, 4), *rows], []))
    assert "| metric | score | 0.141 (36/255) | 0.141 |" in lines
    assert "| ours | 100.0 | 50.0 | 25.0 |" in lines


def test_the_summary_says_of_how_many_cases_its_shares_are():
    said = summary(RECORD, triplet_rows())
    assert "Percent of so many cases: 4 (2AFC, 2AFC certified at 0.5). Certified at" in said
    rows = [
        row("retrieval", "hash", "recall", 1.0, 22, k=1),
        row("knn", "hash", "label_accuracy", 1.0, 11, k=1),
        row("knn", "hash", "label_accuracy", 1.0, 7, k=1, by="source", group="stamps"),
    ]
    said = summary(RECORD, rows)
    assert said.endswith("cases: 22 (recall@1); 11 (1-NN); 7 (1-NN stamps).")


def test_every_table_of_radii_says_what_they_are_lengths_over():
    rows = triplet_rows()
    rows.append(row("retrieval", "ours", "recall", 1.0, 8, k=1))
    rows.append(row("retrieval", "ours", "certified_recall", 1.0, 8, k=1, epsilon=0.5, **PROVED))
    for side, over in ((None, "the network's input"), (64, "64 x 64 pixels")):
        report = markdown({**RECORD, "side": side}, rows, [])
        assert report.count(f"by budget, l2 over {over} in [0, 1]") == 2
        assert f"has it, l2 over {over} in [0, 1]:" in report
        assert f"Certified at so much of l2 over {over}." in summary({**RECORD, "side": side}, rows)
        assert side is None or "the network's input in [0, 1]" not in report


def test_groups_stand_beside_each_other_by_metric_and_by_budget():
    rows = [
        row("retrieval", name, "recall", share, 8, k=1, **group)
        for name, share in (("ours", 0.5), ("hash", 0.25))
        for group in ({}, {"by": "edit", "group": "blur"})
    ]
    where = {"by": "edit", "group": "blur", "epsilon": 0.5, **PROVED}
    rows.append(row("retrieval", "ours", "certified_recall", 0.125, 8, k=1, **where))
    lines = table_rows(markdown(RECORD, rows, []))
    assert "| edit | cases | ours | hash |" in lines
    assert "| blur | 8 | 50.0 | 25.0 |" in lines
    assert "| edit | cases | recall@1 | 0.5 |" in lines
    assert "| blur | 8 | 50.0 | 12.5 |" in lines


def test_the_papers_formula_is_called_unsound_with_its_count():
    report = markdown(RECORD, triplet_rows(), [])
    assert "(unsound where an embedding's norm is below 1, too small above)" in report
    assert "unsound on 1 triplets" in report
    assert "loose on the other 3" in report


def test_a_report_says_what_was_run_on_what():
    report = markdown(RECORD, triplet_rows(), ["a.png"])
    for text in (
        "`the command`",
        "`" + "f" * 64 + "`",
        "nothing is proved of it",
        "head-aware radii",
        "views in the gallery: `shift`",
        "![a.png](a.png)",
        "3 files of `d`",
        "`" + "e" * 64 + "`",
    ):
        assert text in report
    assert "## Retrieval" not in report


def test_expectations_stand_at_the_end():
    checked = [
        {"name": "a", "wanted": "at least 0.9", "measured": 0.8, "is_met": False},
        {"name": "b", "wanted": "at least 1", "measured": None, "is_met": False},
    ]
    rows = table_rows(markdown({**RECORD, "expectations": checked}, triplet_rows(), []))
    assert rows[-2:] == [
        "| a | at least 0.9 | 0.8000 | **failed** |",
        "| b | at least 1 | - | **failed** |",
    ]


def test_copies_by_a_calibrated_sum_say_which_weight_it_has():
    copies = {"rate": 0.01, "statistic": "calibrated", "cosine_weight": 0.5}
    rows = [
        row("copies", "ours", "copy_recall", 0.5, 8, rate=0.01, statistic="margin"),
        row("copies", "ours", "copy_recall", 0.75, 4, **copies),
        row("copies", "ours", "threshold", 0.4, 4, **copies),
        row("copies", "ours", "false_positive_rate", 0.0, 8, rate=0.01, statistic="margin"),
    ]
    report = markdown(RECORD, rows, [])
    assert "copies by calibrated sum, 1 % FP" in summary(RECORD, rows)
    assert "| metric | margin, 1 % FP | calibrated, 1 % FP |" in table_rows(report)
    assert "measured on the other, 4 copies: ours 0.5 at 1 %." in report
    assert "At 1 % of so few none may pass." in report
    assert "*calibrated*" not in markdown(RECORD, rows[:1] + rows[3:], [])


def test_rates_are_only_said_to_let_none_pass_where_that_is_so():
    rows = [
        row("copies", "ours", figure, 0.0, 120, rate=rate, statistic="margin")
        for figure in ("copy_recall", "false_positive_rate")
        for rate in (0.01, 0.001)
    ]
    assert "pass (false positives, FP). At 0.1 % of so few none may pass." in markdown(
        RECORD, rows, []
    )
