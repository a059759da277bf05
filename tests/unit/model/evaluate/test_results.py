import json
import math

import numpy as np
import pytest

from model.evaluate.measurement import Book, Measurement, by_groups
from model.evaluate.results import RadiusCurve, Results, identify, write_results


def results_of(measurements, curves=()):
    data = {"pictures": identify("somewhere", ["b" * 64, "a" * 64])}
    metrics = [{"name": "m"}]
    return Results("command", 0, None, None, data, metrics, measurements, curves)


def test_the_identity_of_data_is_its_hashes_in_any_order_and_that_of_the_file(tmp_path):
    one, other = identify("x", ["b", "a", "a"]), identify("y", ["a", "b", "a"])
    assert one.sha256 == other.sha256 != identify("x", ["a", "b"]).sha256
    assert (one.files, one.hashes) == (3, ("a", "a", "b"))
    record = write_results(results_of([]), tmp_path)
    written = (tmp_path / "pictures.sha256.txt").read_bytes()
    assert written == b"a" * 64 + b"\n" + b"b" * 64 + b"\n"
    import hashlib  # noqa: PLC0415 (here only)

    assert record["data"]["pictures"]["sha256"] == hashlib.sha256(written).hexdigest()


def test_the_json_file_is_strict_json_without_what_says_nothing(tmp_path):
    curve = RadiusCurve("2afc", "m", np.array([0.1, math.inf]), np.array([1.0, 1.0]))
    measurements = [Measurement("copies", "m", "threshold", -math.inf, 3, rate=0.01)]
    record = write_results(results_of(measurements, [curve]), tmp_path)
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == json.loads(json.dumps(record))
    (one,) = record["measurements"]
    assert one == {
        "task": "copies", "metric": "m", "figure": "threshold", "value": None, "count": 3,
        "by": "all", "rate": 0.01,
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pictures.sha256.txt",
        "results.json",
    ]


def test_a_curve_is_the_credit_of_cases_with_a_larger_radius(rng):
    radii = rng.integers(0, 6, 50) / 2.0
    radii[:3] = math.inf
    credits = rng.choice([0.0, 0.5, 1.0], 50)
    curve = RadiusCurve("retrieval", "m", radii, credits)
    at = np.array([-1.0, 0.0, 0.4, 0.5, 2.5, 9.0])
    wanted = [float(credits[radii > epsilon].sum()) / 50 for epsilon in at]
    assert curve.shares(at) == pytest.approx(wanted)


def test_a_book_finds_by_every_field_and_numbers_exactly():
    rows = [
        Measurement("2afc", "m", "certified_score", 0.1, 5, epsilon=36 / 255, unit="input"),
        Measurement("2afc", "m", "certified_score", 0.2, 5, epsilon=36 / 255, unit="upload"),
    ]
    book = Book(rows)
    fields = {"task": "2afc", "metric": "m", "figure": "certified_score"}
    assert book.find(**fields, epsilon=36 / 255, unit="upload").value == 0.2
    assert book.find(**fields, epsilon=36 / 255) is None
    assert book.find(**fields, epsilon=0.141, unit="upload") is None
    assert book.values("unit", **fields, epsilon=36 / 255) == ["input", "upload"]
    assert book.values("unit", **fields, epsilon=0.141) == []


def test_groups_are_by_name_and_an_empty_name_is_in_none():
    groups = by_groups({"edit": ["b", "a", "", "b"]}, 4)
    assert [(g.by, g.name, g.mask.tolist()) for g in groups] == [
        ("all", "", [True] * 4),
        ("edit", "a", [False, True, False, False]),
        ("edit", "b", [True, False, False, True]),
    ]
