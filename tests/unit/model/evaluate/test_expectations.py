import pytest

from model.errors import EvaluationError
from model.evaluate.expectations import (
    as_line,
    check_expectations,
    read_expectations,
)
from model.evaluate.radii import NORMALISED, PROVED


def row(metric, figure, value, by="all", **fields):
    named = {"task": "retrieval", "metric": metric, "figure": figure, "k": 1, "by": by}
    return {**named, "value": value, "count": 100, **fields}


ROWS = [
    row("ours", "recall", 0.91),
    row("raw", "recall", 0.782),
    row("ours", "recall", 0.64, by="edit", group="shift"),
    row("ours", "certified_recall", 0.894, epsilon=36 / 255, **PROVED),
    row("ours", "threshold", None),
]


def checked(tmp_path, text, rows=ROWS):
    path = tmp_path / "expect.toml"
    path.write_text(text)
    return check_expectations(read_expectations(path), rows, "ours")


RECALL = '[[expect]]\nname = "x"\ntask = "retrieval"\nfigure = "recall"\nk = 1\n'
CERTIFIED = (
    '[[expect]]\nname = "c"\ntask = "retrieval"\nfigure = "certified_recall"\nk = 1\n'
    'unit = "input"\nformula = "ours"\n'
)


@pytest.mark.parametrize(
    ("lines", "is_met"),
    [
        (RECALL + "at_least = 0.91", True),
        (RECALL + "at_least = 0.9101", False),
        (RECALL + "at_most = 0.91", True),
        (RECALL + "at_most = 0.90", False),
        (RECALL + 'above = "raw"', True),
        (RECALL + 'above = "raw"\ngain = 0.128', True),
        (RECALL + 'above = "raw"\ngain = 0.129', False),
        (RECALL + 'metric = "raw"\nabove = "ours"', False),
        (RECALL + 'above = "ours"', False),
        (RECALL + 'above = "ours"\ngain = 0.0', True),
        (RECALL + 'by = "edit"\ngroup = "shift"\nat_least = 0.6', True),
        (CERTIFIED + 'epsilon = "36/255"\nat_least = 0.89', True),
    ],
)
def test_a_line_is_met_or_not(tmp_path, lines, is_met):
    (line,) = checked(tmp_path, lines)
    assert line["is_met"] is is_met
    assert line["measured"] is not None


@pytest.mark.parametrize(
    "lines",
    [
        RECALL.replace("k = 1", "k = 5") + "at_least = 0.0",
        RECALL + 'metric = "phash"\nat_least = 0.0',
        RECALL + 'above = "phash"\nat_least = 0.0',
        CERTIFIED + "epsilon = 0.15\nat_least = 0.0",
        CERTIFIED + "epsilon = 0.141\nat_least = 0.0",
        RECALL.replace('"recall"', '"threshold"') + "at_most = 1.0",
        RECALL + 'by = "edit"\nat_least = 0.0',
    ],
)
def test_what_was_not_measured_is_not_met(tmp_path, lines):
    (line,) = checked(tmp_path, lines)
    assert not line["is_met"]


def test_a_budget_close_to_another_is_not_taken_for_it(tmp_path):
    shares = {1.4396: 0.8, 1.4404: 0.7, 0.5: 0.9, 0.5004: 0.6}
    rows = [
        row("ours", "certified_recall", share, epsilon=epsilon, **PROVED)
        for epsilon, share in shares.items()
    ]
    text = "".join(f"{CERTIFIED}epsilon = {epsilon}\nat_least = 0\n" for epsilon in shares)
    found = [line["measured"] for line in checked(tmp_path, text, rows)]
    assert found == list(shares.values())


def test_a_failed_line_says_what_was_wanted_and_what_came(tmp_path):
    lines = checked(tmp_path, RECALL + "at_least = 0.9\n" + RECALL + "at_least = 0.95")
    assert [as_line(line) for line in lines] == [
        "met  x: wanted at least 0.9, measured 0.9100",
        "FAIL x: wanted at least 0.95, measured 0.9100",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expect: Field required"),
        ("expect = []", "expect: List should have at least 1 item"),
        ("expect = 3", "expect: Input should be a valid list"),
        ("[[expect]]\nat_least = 1", r"expect\.0\.name: Field required"),
        ("expect = [3]", r"expect\.0: Input should be a valid dictionary"),
        (RECALL, "one of at_least, at_most, above"),
        (RECALL + 'at_least = "0.9"', "at_least: Input should be a valid number"),
        (RECALL + "at_least = true", "at_least: Input should be a valid number"),
        (RECALL + "above = 1", "above: Input should be a valid string"),
        (RECALL + "at_least = 0.9\nepsilonn = 1", "epsilonn: Extra inputs"),
        (RECALL + 'at_least = 0.9\nepsilon = "half"', "epsilon: .*half"),
        ("[[expect", "no file of expectations"),
        ("x = 1" + "0" * 5000, "no file of expectations"),
        (RECALL + "at_least = 1" + "0" * 309, "at_least: Input should be a valid number"),
        (RECALL + "at_least = 0x1" + "0" * 5000, "at_least: Input should be a valid number"),
        (RECALL + "at_least = nan", "at_least: Input should be a finite number"),
        (
            RECALL.replace('"recall"', '["recall"]') + "at_least = 0",
            "figure: Input should be a valid string",
        ),
        (RECALL + "metric = {a = 1}\nat_least = 0", "metric: Input should be a valid string"),
        (
            RECALL.replace("k = 1", "k = true") + "at_least = 0",
            "k: Input should be a valid integer",
        ),
        (RECALL.replace("k = 1", "k = 1.0") + "at_least = 0", "k: Input should be a valid integer"),
        (CERTIFIED + "epsilon = true\nat_least = 0", "epsilon: Input should be a valid number"),
        (RECALL + 'rate = "1 %"\nat_least = 0', "rate: Input should be a valid number"),
        (RECALL + "at_least = 0.9\ngain = 0.1", "gain says by how much above another"),
    ],
)
def test_a_file_that_means_nothing_is_refused(tmp_path, text, message):
    with pytest.raises(EvaluationError, match=message):
        checked(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="nothing here"):
        read_expectations(tmp_path / "nothing here.toml")


def test_a_file_may_still_call_the_papers_formula_published(tmp_path):
    found = row("ours", "certified_recall", 0.5, epsilon=0.1, **NORMALISED)
    text = CERTIFIED.replace('"ours"', '"published"') + "epsilon = 0.1\nat_least = 0.4\n"
    assert checked(tmp_path, text, [found])[0]["is_met"]
