import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from evaluate_tools import PICTURES, measured, picture, rows_of, run
from image_files import encoded, photo
from listed_pictures import ListWriter
from paths import ROOT

from model.cli.console import EXIT_ERROR, EXIT_INTERRUPTED
from model.evaluate.__main__ import EXIT_UNMET

pytestmark = pytest.mark.without_shape_checks


def test_one_pass_measures_all_of_it(corpus, nights, tmp_path):
    out = tmp_path / "out"
    result = run(
        "all", corpus, "--triplets", nights, "--metric", "blockmean8", "--metric", "phash",
        "--epsilon", "1/255", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("blockmean8", "phash"):
        assert f"{name}: comparing queries" in result.stderr
    record, values = measured(out)
    assert record["command"] == (
        f"python -m model.evaluate all {corpus} --triplets {nights} --metric blockmean8 "
        f"--metric phash --epsilon 1/255 --out {out}"
    )
    assert {row["task"] for row in rows_of(out)} == {"2afc", "retrieval", "copies", "knn"}
    assert record["data"]["pictures"]["files"] == PICTURES
    hashes = sorted(
        hashlib.sha256(encoded(picture(number), "PNG")).hexdigest() for number in range(PICTURES)
    )
    assert (out / "pictures.sha256.txt").read_text().split() == hashes
    assert record["data"]["triplets"]["files"] == 18
    assert [m["name"] for m in record["metrics"]] == ["blockmean8", "phash"]
    natural = values["blockmean8", "recall", "all", "", 1, *[None] * 5]
    certified = [
        values["blockmean8", "certified_recall", "all", "", 1, e, "input", "ours", None, None]
        for e in (1 / 255, 36 / 255, 72 / 255, 108 / 255, 0.5, 1.0, 2.0, 4.0)
    ]
    assert 1.0 >= natural >= certified[0] > certified[-1]
    assert certified == sorted(certified, reverse=True)
    assert values["blockmean8", "score", "all", "", *[None] * 6] == 1.0
    assert values["blockmean8", "score", "group", "nested", *[None] * 6] == 1.0
    assert values["blockmean8", "score", "split", "test_imagenet", *[None] * 6] == 1.0
    assert not any(key[0] == "phash" and key[1].startswith("certified") for key in values)
    assert {curve["task"] for curve in record["radii"]} == {"retrieval", "2afc"}
    report = (out / "report.md").read_text()
    for text in ("By edit", "By source", "By kind", "clipart", "margin, 1 % FP", "nested", "1-NN"):
        assert text in report
    for plot in ("retrieval-certified.png", "2afc-radii.png"):
        assert (out / plot).exists()
    assert "report.md" in result.stdout


def test_views_are_in_the_gallery_of_every_metric_and_copies_of_all_kinds(corpus, tmp_path):
    found = {}
    for views in ("none", "mirror"):
        out = tmp_path / views
        result = run(
            "all", corpus, "--metric", "blockmean8", "--metric", "phash", "--views", views,
            "--copies", 12, "--out", out,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        record, _ = measured(out)
        assert (record["views"], record["copies"]) == (views, 12)
        assert f"views in the gallery: `{views}`" in (out / "report.md").read_text()
        assert {"retrieval-edits.png", "copies-edits.png"} <= {file.name for file in out.iterdir()}
        found[views] = {
            (row["metric"], row.get("group")): row
            for row in rows_of(out)
            if row["figure"] == "recall" and row["k"] == 1 and row["by"] in ("all", "edit")
        }
        labels = [row for row in rows_of(out) if row["task"] == "knn"]
        # Labels are of the pictures themselves.
        assert labels == found.setdefault("labels", labels)
    for metric in ("blockmean8", "phash"):
        plain, viewed = (found[views][metric, None] for views in ("none", "mirror"))
        assert viewed["value"] > plain["value"]
        assert 0.0 < viewed["error"] < 0.1
        assert viewed["count"] == 12 * PICTURES
        assert found["mirror"][metric, "crop"]["count"] == PICTURES


def test_radii_may_be_stated_at_another_side_and_grow_with_it(corpus, nights, tmp_path):
    words = ("retrieval", corpus, "--triplets", nights, "--metric", "raw", "--no-plots")
    run(*words, "--epsilon", "4", "--epsilon", "8", "--out", tmp_path / "own")
    run(*words, "--side", "32", "--out", tmp_path / "half")
    own, half = (
        {
            (row["task"], row["unit"], row["formula"], row["epsilon"]): row["value"]
            for row in rows_of(tmp_path / out)
            if "epsilon" in row and row["by"] == "all" and row.get("k", 1) == 1
        }
        for out in ("own", "half")
    )
    for (task, unit, formula, epsilon), value in half.items():
        at = 2.0 * epsilon if unit == "input" else epsilon
        assert own.get((task, unit, formula, at), value) == value
    assert half["retrieval", "input", "ours", 2.0] < own["retrieval", "input", "ours", 2.0]
    assert "32 x 32 pixels" in (tmp_path / "half" / "report.md").read_text()


def test_the_same_command_writes_the_same_results(corpus, tmp_path):
    files = []
    for name in ("a", "b"):
        out = tmp_path / name
        run("retrieval", corpus, "--metric", "blockmean8", "--no-plots", "--out", out)
        record = json.loads((out / "results.json").read_text())
        del record["command"]
        files.append((record, (out / "measurements.jsonl").read_bytes()))
    assert files[0] == files[1]


def test_expectations_decide_the_exit_code(corpus, tmp_path):
    expect = tmp_path / "expect.toml"
    line = '[[expect]]\nname = "{}"\ntask = "retrieval"\nfigure = "recall"\nk = 1\n{}\n'
    options = ("--metric", "blockmean8", "--metric", "raw", "--no-plots", "--expect", expect)
    expect.write_text(line.format("possible", "at_least = 0.01"))
    met = run("retrieval", corpus, *options, "--out", tmp_path / "met")
    assert met.exit_code == 0, met.output
    assert "met  possible: wanted at least 0.01, measured" in met.stdout
    expect.write_text(
        line.format("possible", "at_least = 0.01")
        + line.format("hopeless", 'above = "raw"\ngain = 2')
    )
    failed = run("retrieval", corpus, *options, "--out", tmp_path / "failed")
    assert failed.exit_code == EXIT_UNMET
    assert "FAIL hopeless: wanted above raw" in failed.stdout
    assert "1 of 2 expectations were not met" in failed.stderr
    record = json.loads((tmp_path / "failed" / "results.json").read_text())
    assert [verdict["is_met"] for verdict in record["expectations"]] == [True, False]
    assert "**failed**" in (tmp_path / "failed" / "report.md").read_text()


def test_every_line_for_the_default_model_is_measured(corpus, nights, tmp_path):
    expect = ROOT / "benchmarks" / "default_model.toml"
    metrics = ("blockmean8", "compact_v0=blockmean8", "raw", "blockmean16", "phash")
    out = tmp_path / "out"
    result = run(
        "all", corpus, "--triplets", nights, "--expect", expect, "--no-plots", "--out", out,
        *(word for metric in metrics for word in ("--metric", metric)),
    )  # fmt: skip
    assert result.exit_code == EXIT_UNMET
    verdicts = json.loads((out / "results.json").read_text())["expectations"]
    assert len(verdicts) == 14
    for verdict in verdicts:
        assert verdict["measured"] is not None, verdict["name"]
        assert "not measured" not in verdict["wanted"], verdict["name"]
    # The same metric twice gains nothing on itself.
    assert [v["is_met"] for v in verdicts if v["name"].endswith("at 2")] == [False]


def test_pictures_are_held_to_a_list_of_hashes(corpus, tmp_path):
    lines = [f"{number:064x}  source  a name" for number in range(PICTURES)]
    hashes = tmp_path / "hashes"
    options = ("--metric", "phash", "--no-plots", "--hashes", hashes)
    hashes.write_text("\n".join(lines))
    out = tmp_path / "out"
    assert run("retrieval", corpus, *options, "--out", out).exit_code == 0
    written = (out / "origins.sha256.txt").read_text().split()
    assert written == [line.split()[0] for line in lines]
    part = run("retrieval", corpus, *options, "--limit", 9, "--out", tmp_path / "part")
    assert part.exit_code == 0
    hashes.write_text("\n".join([*lines[1:], "f" * 64, "e" * 64]))
    refused = run("retrieval", corpus, *options, "--out", tmp_path / "refused")
    assert refused.exit_code == EXIT_ERROR
    assert "2 of its 25 are missing, 1 others came" in refused.stderr


def test_json_on_stdout_is_what_the_files_say(corpus, tmp_path):
    result = run(
        "copies", corpus, "--metric", "phash", "--no-plots", "--json", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0
    assert "phash: comparing queries" in result.stderr
    record = json.loads(result.stdout)
    rows = record.pop("measurements")
    assert record == json.loads((tmp_path / "out" / "results.json").read_text())
    assert rows == rows_of(tmp_path / "out")
    assert {row["task"] for row in rows} == {"copies"}


def test_triplets_alone_and_in_the_layout_of_bapps(nights, tmp_path):
    result = run("2afc", nights, "--metric", "raw", "--no-plots", "--out", tmp_path / "nights")
    assert result.exit_code == 0, result.output
    root = tmp_path / "bapps" / "2afc" / "val" / "cnn"
    for folder in ("ref", "p0", "p1", "judge"):
        (root / folder).mkdir(parents=True)
    for number, share in enumerate((0.0, 0.25, 1.0)):
        for folder, pixels in (
            ("ref", picture(number)), ("p0", picture(number)), ("p1", picture(number + 9)),
        ):  # fmt: skip
            (root / folder / f"{number}.png").write_bytes(encoded(pixels, "PNG"))
        np.save(root / "judge" / f"{number}.npy", np.array([share]))
    out = tmp_path / "out"
    result = run("2afc", tmp_path, "--metric", "raw", "--no-plots", "--out", out)
    assert result.exit_code == 0, result.output
    _, values = measured(out)
    # p0 is the reference itself, so left is always closer: 1, 0.75 and 0 of the people agree.
    assert values["raw", "score", "group", "cnn", *[None] * 6] == pytest.approx(1.75 / 3)


def test_labels_of_imagenets_layout_are_voted_on(tmp_path):
    for split, count in (("train", 12), ("val", 4)):
        for number in range(count):
            folder = tmp_path / "data" / split / f"n{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            shade = np.full((20, 20, 3), 60 + 130 * (number % 2), np.uint8)
            shade[: number + 2] ^= 3
            (folder / f"{split}{number}.png").write_bytes(encoded(shade, "PNG"))
    out = tmp_path / "out"
    result = run("knn", tmp_path / "data", "--metric", "blockmean8", "--no-plots", "--out", out)
    assert result.exit_code == 0, result.output
    record, values = measured(out)
    assert values["blockmean8", "voted_accuracy", "all", "", 10, *[None] * 5] == 1.0
    assert record["data"]["train"]["files"] == 12
    assert record["data"]["val"]["files"] == 4
    hashes = tmp_path / "hashes"
    shutil.copy(out / "val.sha256.txt", hashes)
    votes = ["knn", tmp_path / "data", "--metric", "blockmean8", "--no-plots", "--hashes", hashes]
    assert run(*votes, "--out", tmp_path / "again").exit_code == 0
    hashes.write_text("f" * 64)
    refused = run(*votes, "--out", tmp_path / "refused")
    assert refused.exit_code == EXIT_ERROR
    assert "1 of its 1 are missing, 4 others came" in refused.stderr
    assert not (tmp_path / "refused").exists()


def test_a_corpus_is_asked_for_its_own_labels_not_for_those_of_its_training_part(corpus, tmp_path):
    result = run("knn", corpus, "--metric", "phash", "--no-plots", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    record, _ = measured(tmp_path)
    assert record["data"]["pictures"]["files"] == PICTURES
    assert {row["figure"] for row in rows_of(tmp_path)} == {"label_accuracy"}


def test_what_was_trained_on_is_measured_only_where_it_is_asked_for(tmp_path):
    with ListWriter(tmp_path / "corpus", "train") as writer:
        for number in range(8):
            writer.add(f"{number}", encoded(picture(number), "PNG"), "png")
    usual = ["retrieval", tmp_path / "corpus", "--metric", "blockmean8", "--no-plots"]
    result = run(*usual, "--out", tmp_path / "out")
    assert result.exit_code == EXIT_ERROR
    assert "say --split train" in result.stderr
    assert not (tmp_path / "out").exists()
    assert run(*usual, "--split", "train", "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrieval", "{corpus}", "--metric", "no-such"], "no-such"),
        (["retrieval", "{corpus}/nothing"], "nothing"),
        (["retrieval", "{corpus}", "--split", "holdout"], "holdout"),
        (["2afc", "{corpus}"], "none of the subsets"),
        (["retrieval", "{corpus}", "--metric", "raw", "--metric", "raw"], "two metrics"),
        (["knn", "{corpus}", "--limit", "3", "--metric", "raw"], "no label has 6"),
        (["copies", "{corpus}", "--limit", "1", "--metric", "raw"], "too few"),
        (["retrieval", "{corpus}", "--limit", "1", "--metric", "raw"], "at least two pictures"),
        (["all", "{corpus}", "--limit", "1", "--metric", "raw"], "at least two pictures"),
        (["retrieval", "{corpus}", "--expect", "{corpus}/none.toml"], "none.toml"),
        (["retrieval", "{corpus}", "--device", "banana"], "like cpu or cuda, got 'banana'"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_writes_nothing(
    corpus, tmp_path, arguments, message
):
    out = tmp_path / "out"
    words = [word.format(corpus=corpus) for word in arguments]
    result = run(*words, "--no-plots", "--out", out)
    assert result.exit_code == EXIT_ERROR
    lines = [
        line
        for line in result.stderr.splitlines()
        if "embedding" not in line and "comparing" not in line
    ]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-task", "{corpus}"],
        ["2afc", "{corpus}", "--triplets", "{corpus}"],
        ["2afc", "{corpus}", "--hashes", "{corpus}"],
        ["retrieval"],
        ["retrieval", "{corpus}", "--views", "sideways"],
        ["retrieval", "{corpus}", "--side", "0"],
        *(["retrieval", "{corpus}", "--epsilon", text] for text in ("0", "x", "1/0", "nan")),
    ],
)
def test_what_a_task_does_not_have_is_a_wrong_command_line(corpus, tmp_path, arguments):
    words = [word.format(corpus=corpus) for word in arguments]
    assert run(*words, "--out", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_an_interrupt_ends_cleanly(tmp_path):
    data = encoded(photo(400, 600), "JPEG")
    for number in range(300):
        (tmp_path / f"{number:03}.jpg").write_bytes(data)
    command = [
        sys.executable, "-m", "model.evaluate", "retrieval", str(tmp_path),
        "--metric", "raw", "--no-plots", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    reader, writer = os.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer) as running:
        os.close(writer)
        shown = b""
        while b"embedding" not in shown:
            shown += os.read(reader, 1 << 12)
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        while running.poll() is None:
            try:
                shown += os.read(reader, 1 << 12)
            except OSError:  # the other end is closed
                break
        assert running.wait(timeout=60) == EXIT_INTERRUPTED
    os.close(reader)
    assert b"Traceback" not in shown
    assert b"interrupted" in shown
    assert not (tmp_path / "out").exists()
