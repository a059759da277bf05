"""The commands as a person or a script runs them, with the shipped model."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from index_tools import build, interruptible, picture, some, write_folder
from paths import ROOT
from PIL import Image
from typer.testing import CliRunner

from index_builder.__main__ import app
from index_builder.build.writer import seal_calibration, writing
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.manifest import read_manifest
from index_builder.store.operating_points import Calibration, Measured, OperatingPoint
from model.embedder import Embedder
from model.pixels.decode import decode_image

CALIBRATION = Calibration(
    statistic="margin",
    k=1,
    pairs="synthetic",
    source="pictures",
    seed=0,
    pictures=300,
    queries=300,
    chosen_on=150,
    operating_points=(
        OperatingPoint("balanced", 0.3, 0.01, 150, 0, {"jpeg": Measured(150, 90, 150, 0)}),
    ),
    left_out=(),
)


def invoke(*arguments, env=None):
    """A command without an interpreter of its own, which takes two seconds to import torch."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


def test_what_a_file_is_called_cannot_look_like_a_line_of_ours(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    (folder / "a\n\x1b[2Kdefault v000009 (served).png").write_bytes(b"no picture")
    (folder / "é.png").write_bytes(picture(9))
    build(tmp_path, folder)
    told = invoke("info", "--data-dir", tmp_path).stdout
    assert "\x1b" not in told
    assert "quarantined a\\n\\x1b[2Kdefault v000009 (served).png" in told
    assert not any(line.startswith("default v000009") for line in told.splitlines())
    listed = invoke("list", "--ids", "--data-dir", tmp_path).stdout.splitlines()
    assert "é.png" in listed


def test_the_settings_of_the_service_are_the_defaults_of_the_builder(tmp_path):
    """Else an index is built with one model or for other files than the service takes."""
    folder = write_folder(tmp_path / "in", 2)
    Image.open(folder / "0000.png").save(folder / "b.tiff")
    Image.open(folder / "0000.png").save(folder / "c.gif")
    data = {"LIPSIM_DATA_DIR": str(tmp_path / "data")}
    wrong = invoke("build", folder, env=data | {"LIPSIM_CHECKPOINT": str(tmp_path / "none")})
    assert wrong.exit_code == 1
    assert "none" in wrong.stderr
    # Empty is not set, as in compose.yaml.
    env = data | {"LIPSIM_CHECKPOINT": "", "LIPSIM_ALLOWED_FORMATS": "png,TIF"}
    done = invoke("build", folder, "--json", env=env)
    assert done.exit_code == 3, done.stderr
    assert [(q["path"], q["code"]) for q in json.loads(done.stdout)["quarantined"]] == [
        ("c.gif", "format")
    ]
    again = invoke("build", folder, "--allow-format", "gif", "--json", env=env)
    assert again.exit_code == 0, again.stdout
    refused = invoke("build", folder, "--data-dir", tmp_path, "--allowed-formats", "eps")
    assert refused.exit_code == 2
    assert "LIPSIM_ALLOWED_FORMATS" in refused.output


def test_from_pictures_to_a_verified_index_with_the_shipped_model(tmp_path):
    folder = write_folder(tmp_path / "in", 12)
    env = {"LIPSIM_DATA_DIR": str(tmp_path / "data")}
    first = invoke("build", folder, env=env)
    assert first.exit_code == 0, first.stderr
    assert "default v000001 (12 entries, 12 ids, 168 vectors)" in first.stdout
    began, done, ended = first.stderr.splitlines()
    assert began == "embedding: 12 files"
    assert done.startswith("embedding: 12 of 12 files done in ")
    assert ended == "writing and verifying the version"
    (folder / "broken.png").write_bytes(picture(1)[:-30])
    second = invoke("build", folder, "--json", env=env)
    assert second.exit_code == 3
    answer = json.loads(second.stdout)
    assert (answer["version"], answer["changed"]) == ("v000002", True)
    assert answer["counts"]["embedded"] == 0
    assert answer["counts"]["quarantined"] == 1
    assert [(q["path"], q["code"]) for q in answer["quarantined"]] == [("broken.png", "damaged")]
    third = invoke("build", folder, env=env)
    assert third.exit_code == 3
    assert "default v000002 (12 entries, 12 ids, 168 vectors) unchanged in" in third.stdout
    fourth = invoke("add", folder, "--json", env=env)
    assert fourth.exit_code == 3
    unchanged = json.loads(fourth.stdout)
    assert (unchanged["version"], unchanged["changed"]) == ("v000002", False)
    assert unchanged["counts"]["unchanged"] == 12
    embedder = Embedder.load()
    with GalleryIndex.open(
        tmp_path / "data",
        embedder_fingerprint=embedder.fingerprint,
        decode_policy=embedder.decode_policy,
    ) as index:
        for entry in index.entries(range(12)):
            image = decode_image((folder / entry.id).read_bytes())
            vector = embedder.embed_image(image).vector
            unit = vector / np.linalg.norm(vector)
            assert np.allclose(
                index.vectors[index.rows.starts[entry.number]], unit, atol=1e-7, rtol=0
            )


def test_an_interrupted_command_says_how_to_go_on(tmp_path):
    folder = write_folder(tmp_path / "in", 400)
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, "-m", "index_builder", "build", folder, "--data-dir", tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    while not (tmp_path / "indexes/default/journal.sqlite").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted; run the same command to go on" in errors
    assert "Traceback" not in errors


@pytest.fixture
def data_dir(tmp_path):
    folder = write_folder(tmp_path / "in", 4)
    build(tmp_path, folder)
    (folder / "bad.png").write_bytes(b"bad")
    build(tmp_path, folder)
    return tmp_path


def test_list_and_info_show_what_is_there(data_dir):
    listed = json.loads(invoke("list", "--data-dir", data_dir, "--json").stdout)
    assert listed == {
        "indexes": [{"index": "default", "served": "v000002", "versions": ["v000001", "v000002"]}]
    }
    assert invoke("list", "--data-dir", data_dir).stdout == "default: v000001, v000002 (served)\n"
    info = json.loads(invoke("info", "--data-dir", data_dir, "--json").stdout)
    assert info["manifest"]["entries"] == 4
    assert [q["path"] for q in info["quarantined"]] == ["bad.png"]
    text = invoke("info", "--data-dir", data_dir, "--version", "v000001").stdout
    assert "default v000001 (4 entries, 4 ids)" in text
    assert "quarantined bad.png" not in text
    assert invoke("list", "--data-dir", data_dir / "nothing").exit_code == 0


def test_a_format_that_could_never_be_allowed_is_a_wrong_command_line(tmp_path):
    result = invoke("build", tmp_path, "--data-dir", tmp_path, "--allow-format", "eps")
    assert result.exit_code == 2
    assert "EPS" in result.output


def test_pictures_above_the_limit_of_pixels_are_set_aside(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    result = invoke("build", folder, "--data-dir", tmp_path, "--max-image-pixels", "1", "--json")
    assert result.exit_code == 1
    assert "3 files quarantined" in result.output


def test_list_names_every_id_that_is_served(data_dir):
    ids = invoke("list", "--ids", "--data-dir", data_dir).stdout.split("\n")[:-1]
    assert json.loads(invoke("list", "--ids", "--data-dir", data_dir, "--json").stdout) == {
        "index": "default",
        "ids": ids,
    }
    info = json.loads(invoke("info", "--data-dir", data_dir, "--json").stdout)
    assert len(ids) == len(set(ids)) == info["manifest"]["ids"]


def test_every_command_that_changes_versions_says_what_it_did(data_dir):
    removed = json.loads(invoke("remove", "0001.png", "--data-dir", data_dir, "--json").stdout)
    assert (removed["version"], removed["counts"]["removed"]) == ("v000003", 1)
    back = invoke("rollback", "--data-dir", data_dir)
    assert back.stdout == "default now serves v000002 (4 entries, 4 ids)\n"
    assert invoke("verify", "--data-dir", data_dir).stdout.endswith("every file is whole\n")
    pruned = json.loads(invoke("prune", "--keep", "1", "--data-dir", data_dir, "--json").stdout)
    assert pruned == {"index": "default", "deleted": ["v000001"], "in_use": []}
    out = invoke("export", data_dir / "out.npz", "--data-dir", data_dir)
    assert out.exit_code == 0
    assert np.load(data_dir / "out.npz", allow_pickle=False)["ids"].tolist() == [
        f"{n:04d}.png" for n in range(4)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "--index", "other"), "no index 'other'"),
        (("info", "--index", "../x"), "an index name is 1 to 64 letters"),
        (("info", "--version", "v000009"), "no version v000009"),
        (("verify", "--version", "v000009"), "no version v000009"),
        (("rollback", "--to", "nonsense"), "a version is named like v000001"),
        (("remove", "nope"), "no item 'nope' in the index; nothing was removed"),
        (("prune", "--index", "other"), "(there: default)"),
        (("list", "--index", "other"), "no index 'other'"),
        (("export", "/nonexistent/folder/out.npz"), "/nonexistent/folder"),
        (("build", "/nonexistent/folder"), "no folder, archive, list or picture at"),
        (("build", "/dev/null"), "neither a folder nor a regular file"),
        (("add", "/nonexistent.csv"), "no folder, archive, list or picture at"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_expected_errors_are_one_line_and_exit_code_1(data_dir, arguments, message, as_json):
    extra = ("--json",) if as_json else ()
    result = invoke(*arguments, "--data-dir", data_dir, *extra)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    if as_json:
        assert message in json.loads(result.stdout)["error"]["message"]
    else:
        assert result.stdout == ""


def test_damage_is_an_error_that_names_the_file(data_dir):
    path = data_dir / "indexes/default/versions/v000002/thumbnails.sqlite"
    raw = bytearray(path.read_bytes())
    raw[5000] ^= 4
    path.write_bytes(raw)
    for command in ("verify", "export"):
        arguments = [data_dir / "o.npz"] if command == "export" else []
        result = invoke(command, *arguments, "--data-dir", data_dir)
        assert result.exit_code == 1
        assert "v000002/thumbnails.sqlite is damaged" in result.stderr


def test_one_damaged_index_does_not_hide_the_others(data_dir):
    other = data_dir / "indexes/other"
    other.mkdir()
    (other / "CURRENT").write_bytes(b"nonsense")
    listed = invoke("list", "--data-dir", data_dir)
    assert listed.exit_code == 0
    assert listed.stdout.startswith("default: v000001, v000002 (served)\nother: CURRENT of")
    fields = json.loads(invoke("list", "--data-dir", data_dir, "--json").stdout)["indexes"]
    assert [one["served"] for one in fields] == ["v000002", None]
    assert "damaged" in fields[1]["error"]
    assert invoke("list", "--index", "other", "--data-dir", data_dir).exit_code == 1


def test_a_relative_data_dir_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("list").stdout == f"no indexes in {tmp_path / 'data'}\n"
    assert f"no index 'default' in {tmp_path / 'data'}" in invoke("verify").stderr


def test_calibrate_opens_every_source_that_it_is_given(tmp_path):
    folder, missing = write_folder(tmp_path / "a", 4), tmp_path / "b"
    invoke("build", folder, "--views", "none", "--data-dir", tmp_path)
    told = invoke("calibrate", folder, missing, "--data-dir", tmp_path)
    assert told.exit_code == 1
    assert f"no folder, archive, list or picture at {missing}" in told.stderr


def test_info_is_for_people_and_shows_no_programs_notation(data_dir):
    told = invoke("info", "--data-dir", data_dir).stdout
    assert not set("{}[]()'") & set(told.split("\n", 1)[1])
    assert "  counts: 1 quarantined, 4 reused, 4 unchanged" in told
    assert re.search(r"\n  vectors\.npy: \d+ bytes, sha256 [0-9a-f]{64}\n", told)
    assert f"path: {data_dir}/indexes/default/versions/v000002" in told


def test_what_was_skipped_is_named_and_the_names_are_capped(tmp_path):
    folder = write_folder(tmp_path / "in", 1)
    for number in range(30):
        (folder / f"note{number:02}.txt").write_text("no picture")
    done = invoke("build", folder, "--data-dir", tmp_path)
    assert done.exit_code == 0
    assert "30 skipped" in done.stdout
    assert "\n  skipped note00.txt, note01.txt, " in done.stdout
    assert "note19.txt and 10 more: no pictures" in done.stdout
    again = json.loads(invoke("add", folder, "--data-dir", tmp_path, "--json").stdout)
    assert again["skipped"] == [f"note{number:02}.txt" for number in range(20)]


def test_pictures_are_added_one_by_one_under_their_names(tmp_path):
    data_dir, new = tmp_path, write_folder(tmp_path / "new", 2, first=70)
    one = invoke("add", new / "0070.png", "--data-dir", data_dir)
    assert one.exit_code == 0, one.output
    both = invoke("add", new / "0070.png", new / "0071.png", "--data-dir", data_dir, "--json")
    assert some(json.loads(both.stdout)["counts"])["added"] == 1
    with GalleryIndex.open(data_dir) as index:
        assert index.entry_by_id("0071.png").id == "0071.png"
        assert index.manifest.source == f"{new}/0070.png and 1 more"
    folder = invoke("add", new, new / "0071.png", "--data-dir", data_dir)
    assert (folder.exit_code, folder.stderr.count("\n")) == (1, 1)
    assert "new is no picture, and of several paths each must be one: `add` takes" in folder.stderr


def test_calibrate_takes_the_pictures_that_build_took_though_one_was_left_out(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    (folder / "cut.png").write_bytes((folder / "0000.png").read_bytes()[:-40])
    pictures = sorted(folder.iterdir())
    assert invoke("build", *pictures, "--data-dir", tmp_path).exit_code == 3
    told = invoke("calibrate", *pictures, "--data-dir", tmp_path)
    assert "claimed from 3 of 3 entries, found among 4 files" in told.stderr


def test_why_nothing_became_an_item_is_said(tmp_path):
    (tmp_path / "drawing.svg").write_text("<svg></svg>")
    result = invoke("build", tmp_path / "drawing.svg", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert "1 files quarantined, the first drawing.svg: " in result.stderr
    assert "SVG" in result.stderr


def test_rollback_says_which_operating_points_are_gone(data_dir):
    paths = layout.index_paths(data_dir, "default")
    with writing(paths):
        seal_calibration(paths, read_manifest(paths.version("v000002")), CALIBRATION)
    assert invoke("rollback", "--data-dir", data_dir).stdout == (
        "default now serves v000002 (4 entries, 4 ids); it has no operating points balanced\n"
    )
    back = invoke("rollback", "--to", "v000003", "--data-dir", data_dir, "--json")
    assert json.loads(back.stdout)["operating_points_dropped"] == []


@pytest.mark.parametrize("name", ["build", "add", "calibrate", "list", "remove", "rollback"])
def test_the_help_of_a_command_fits_on_a_screen(name):
    text = CliRunner().invoke(app, [name, "--help"], terminal_width=80).stdout
    screen = 37 if name == "calibrate" else 30
    assert 8 < len(text.splitlines()) <= screen, "shorten a help text, or raise this knowingly"
    assert "--allow-format " not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune", "--keep", "0"),
        ("build",),
        ("nonsense",),
        ("build", "x", "--max-errors", "-1"),
        ("build", ""),
        ("calibrate", ""),
        ("calibrate", "--pairs", ""),
        ("export", ""),
        ("export", "out.txt"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(data_dir, arguments):
    assert invoke(*arguments).exit_code == 2
    assert data_dir.exists()


@pytest.mark.parametrize("words", [("3",), ("--version", "3")])
def test_a_rollback_to_a_version_that_is_misplaced_says_where_it_belongs(data_dir, words):
    done = invoke("rollback", *words, "--data-dir", data_dir)
    assert done.exit_code == 2
    assert "--to 3" in done.output


def test_one_of_a_thing_is_said_as_one(tmp_path):
    write_folder(tmp_path / "in", 1)
    done = invoke("build", tmp_path / "in", "--views", "none", "--data-dir", tmp_path)
    assert "(1 entry, 1 id)" in done.stdout
    out = invoke("export", tmp_path / "out.jsonl", "--data-dir", tmp_path)
    assert out.stdout == f"1 id in {tmp_path / 'out.jsonl'}\n"


def test_a_data_dir_that_cannot_be_written_is_an_error_without_a_traceback(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = write_folder(tmp_path / "in", 1)
    result = invoke("build", folder, "--data-dir", tmp_path / "file")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "error: " in result.stderr
