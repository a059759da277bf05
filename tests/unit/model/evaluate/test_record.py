import hashlib
import json

import pytest

from model.evaluate.record import FileList, write_folder


def test_the_identity_of_data_is_its_hashes_in_any_order_and_that_of_its_file():
    one, other = FileList("x", ["b", "a", "a"]), FileList("y", ["a", "b", "a"])
    assert one.text() == b"a\na\nb\n"
    assert one.record() == {
        "name": "x",
        "files": 3,
        "sha256": hashlib.sha256(one.text()).hexdigest(),
    }
    assert one.record()["sha256"] == other.record()["sha256"]
    assert one.record()["sha256"] != FileList("x", ["a", "b"]).record()["sha256"]


def test_every_line_and_the_record_are_strict_json_with_numbers_unrounded(tmp_path):
    rows = [{"figure": "threshold", "value": None}, {"figure": "f", "value": 1 / 3, "epsilon": 0.1}]
    out = tmp_path / "new" / "out"
    write_folder(out, {"seed": 0}, rows, {"a.txt": b"a"})
    lines = (out / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == rows
    assert json.loads((out / "results.json").read_text()) == {"seed": 0}
    assert {path.name for path in out.iterdir()} == {
        "a.txt", "measurements.jsonl", "results.json",
    }  # fmt: skip
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_folder(tmp_path / "nan", {}, [{"value": float("nan")}], {})
    assert not (tmp_path / "nan").exists()
