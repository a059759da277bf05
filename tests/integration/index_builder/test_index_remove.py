"""What `remove` takes, by id, by a file of ids and by a filter; and ids with a prefix."""

import json
import shutil

import pytest
from index_tools import build, picture, write_folder
from typer.testing import CliRunner

from index_builder.__main__ import app
from index_builder.build.maintenance import item_ids
from index_builder.search.gallery import current_version

SHOPS = ("north", "south", "north", "south", "south")


def invoke(*arguments, given=None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=given)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """An index of five pictures, each of a shop."""
    folder = write_folder(tmp_path_factory.mktemp("in"), len(SHOPS))
    lines = [
        {"path": f"{n:04d}.png", "id": f"{n:04d}.png", "shop": shop} for n, shop in enumerate(SHOPS)
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    root = tmp_path_factory.mktemp("described")
    build(root, folder / "list.jsonl")
    return root


@pytest.fixture
def data_dir(described, tmp_path):
    shutil.copytree(described, tmp_path / "data")
    return tmp_path / "data"


def left(data_dir):
    return [item_id.removesuffix(".png") for item_id in item_ids(data_dir, "default")]


def test_ids_come_from_a_file_as_list_prints_them(data_dir, tmp_path):
    listed = invoke("list", "--ids", "--data-dir", data_dir).stdout.splitlines()
    (tmp_path / "ids").write_bytes("\r\n".join([*listed[:2], "", listed[1]]).encode())
    done = invoke("remove", "0004.png", "--ids-from", tmp_path / "ids", "--data-dir", data_dir)
    assert done.exit_code == 0, done.output
    assert left(data_dir) == ["0002", "0003"]


def test_ids_come_from_standard_input(data_dir):
    done = invoke("remove", "--ids-from", "-", "--data-dir", data_dir, given="0003.png\n0000.png\n")
    assert done.exit_code == 0, done.output
    assert left(data_dir) == ["0001", "0002", "0004"]


def test_an_unknown_id_in_a_file_changes_nothing(data_dir):
    done = invoke("remove", "--ids-from", "-", "--data-dir", data_dir, given="0003.png\n0009.png\n")
    assert done.exit_code == 1
    assert "no item '0009.png' in the index; nothing was removed" in done.stderr
    assert current_version(data_dir) == "v000001"


def test_what_matches_a_filter_goes(data_dir, tmp_path):
    (tmp_path / "filter.json").write_text(
        json.dumps({"must": [{"key": "shop", "match": {"value": "south"}}]})
    )
    wanted = ("--filter", f"@{tmp_path / 'filter.json'}", "--data-dir", data_dir, "--json")
    said = json.loads(invoke("remove", *wanted).stdout)
    assert said["counts"]["removed"] == 3
    assert left(data_dir) == ["0000", "0002"]
    again = json.loads(invoke("remove", *wanted).stdout)
    assert (again["changed"], again["version"]) == (False, "v000002")


def test_a_filter_takes_the_last_item_only_when_told_so(data_dir):
    refused = invoke("remove", "--filter", "{}", "--data-dir", data_dir)
    assert refused.exit_code == 1
    assert "matches all of the 5 items; nothing was removed" in refused.stderr
    assert len(left(data_dir)) == 5
    done = invoke("remove", "--filter", "{}", "--allow-empty", "--data-dir", data_dir)
    assert done.exit_code == 0, done.output
    assert left(data_dir) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "give ids, --ids-from or --filter"),
        (("--filter", '{"must": 3}'), "filter.must: wanted an array, got a number"),
        (("--filter", "@/nonexistent"), "/nonexistent: No such file or directory"),
        (("--ids-from", "/nonexistent"), "No such file or directory"),
    ],
)
def test_a_wrong_command_line_is_refused_and_says_why(data_dir, options, says):
    refused = invoke("remove", *options, "--data-dir", data_dir)
    assert refused.exit_code == 2
    assert says in " ".join(refused.stderr.split())
    assert current_version(data_dir) == "v000001"


def test_ids_that_are_no_text_are_refused(data_dir, tmp_path):
    (tmp_path / "ids").write_bytes(b"0001.png\n\xff\n")
    refused = invoke("remove", "--ids-from", tmp_path / "ids", "--data-dir", data_dir)
    assert (refused.exit_code, "wanted lines of UTF-8" in refused.stderr) == (2, True)
    assert current_version(data_dir) == "v000001"


def test_two_folders_with_equal_names_stay_apart_under_prefixes(tmp_path):
    north, south = write_folder(tmp_path / "north", 2), tmp_path / "south"
    south.mkdir()
    (south / "0001.png").write_bytes(picture(77))
    for folder, prefix in ((north, "north/"), (south, "south/")):
        told = ("--prefix", prefix, "--data-dir", tmp_path / "data")
        done = invoke("add", folder, *told)
        assert done.exit_code == 0, done.output
    assert item_ids(tmp_path / "data", "default") == [
        "north/0000.png",
        "north/0001.png",
        "south/0001.png",
    ]
    again = invoke("add", south, *told, "--json")
    assert json.loads(again.stdout)["changed"] is False


@pytest.mark.parametrize("prefix", ["a\nb", "x" * 5000])
def test_what_no_id_may_hold_is_no_prefix(tmp_path, prefix):
    refused = invoke("add", tmp_path, "--prefix", prefix, "--data-dir", tmp_path / "data")
    assert refused.exit_code == 2
    assert not (tmp_path / "data").exists()


def test_an_id_that_its_prefix_makes_too_long_is_quarantined(tmp_path):
    folder = write_folder(tmp_path / "in", 1)
    done = invoke("build", folder, "--prefix", "x" * 4090, "--data-dir", tmp_path / "data")
    assert done.exit_code == 1
    assert "an id has 1 to 4096 bytes, this has 4098" in done.stderr
