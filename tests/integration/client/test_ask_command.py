"""`lipsim search | compare | embed | tolerance`: the same of a server and of an index here."""

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageOps
from service_helpers import draw_picture
from typer.testing import CliRunner, Result

from service.command.main import app
from service.command.show import proved


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two edited copies, a file that is no picture, and a name that would command a terminal."""
    folder = tmp_path_factory.mktemp("queries")
    draw_picture(3, 100, 75).save(folder / "a.png")
    draw_picture(4, 100, 75).save(folder / "b.png")
    (folder / "c\x1b[2J.png").write_text("no picture")
    return folder


@pytest.fixture(params=["server", "here"])
def asked(request: pytest.FixtureRequest, client: httpx.Client, data_dir: Path) -> list[str]:
    return ["--url", str(client.base_url)] if request.param == "server" else data_option(data_dir)


def data_option(data_dir: Path) -> list[str]:
    return ["--data-dir", str(data_dir)]


def lipsim(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)], prog_name="lipsim")


def printed(done: Result) -> list[str]:
    """Lines of its own; the server, which is in this process, may have written its log there."""
    assert done.exit_code == 0, done.output
    return [line for line in done.stdout.splitlines() if "request_id" not in line]


def only_answer(done: Result) -> dict[str, Any]:
    """What --json printed; the server, which is in this process, may have written its log there."""
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(line)


def test_a_picture_gets_a_table(asked: list[str], pictures: Path):
    done = lipsim("search", pictures / "a.png", "-k", 2, *asked)
    name, head, first, second = printed(done)[-4:]
    assert name.endswith("a.png")
    assert head.split()[:3] == ["rank", "id", "distance"]
    assert first.split()[:2] == ["1", "p03.jpg"]
    assert "of 255 levels rms (l2 " in first
    assert second.split()[0] == "2"


def test_machines_get_an_object_a_line_and_a_summary_last(asked: list[str], pictures: Path):
    done = lipsim("search", pictures, "-k", 1, "--epsilon", 0.1, "--json", *asked)
    assert done.exit_code == 3
    *lines, summary = map(json.loads, done.stdout.splitlines())
    assert summary == {"summary": {"pictures": 3, "answered": 2, "failed": 1, "skipped": 0}}
    assert [Path(line["id"]).name for line in lines] == ["a.png", "b.png", "c\x1b[2J.png"]
    assert [line["status"] for line in lines] == [200, 200, 415]
    ids = [line["answer"]["results"][0]["id"] for line in lines[:2]]
    assert ids == ["p03.jpg", "p04.jpg"]
    assert lines[0]["answer"]["results"][0]["certified"] is True
    assert lines[2]["problem"]["code"] == "unsupported_image_format"
    assert "\x1b" not in done.stderr
    assert "3 of 3" in done.stderr


def test_both_ways_give_the_same_numbers(client: httpx.Client, data_dir: Path, pictures: Path):
    options = ("search", pictures / "a.png", "-k", 3, "--trim", "--json")
    there = lipsim(*options, "--url", client.base_url)
    here = lipsim(*options, *data_option(data_dir))
    for one in (there, here):
        assert one.exit_code == 0, one.output
    a, b = (json.loads(one.stdout.splitlines()[0])["answer"] for one in (there, here))
    del a["timings_ms"], b["timings_ms"]
    assert a == b


def test_what_is_found_without_borders_is_shown_too(asked: list[str], pictures: Path, tmp_path):
    framed, out = tmp_path / "framed.png", tmp_path / "found.csv"
    ImageOps.expand(Image.open(pictures / "a.png"), 30, "white").save(framed)
    done = lipsim("search", framed, "-k", 2, "--trim", *asked)
    words, _, first, _ = printed(done)[-4:]
    assert words == "without its borders:"
    assert first.split()[:2] == ["1", "p03.jpg"]
    lipsim("search", framed, "-k", 2, "--trim", "--out", out, *asked)
    with out.open(newline="") as file:
        rows = [(row["rank"], row["trimmed"]) for row in csv.DictReader(file)]
    assert rows == [("1", ""), ("2", ""), ("1", "True"), ("2", "True")]


def test_what_a_build_skips_in_a_folder_is_skipped_there_by_a_search(asked: list[str], tmp_path):
    (tmp_path / "a").mkdir()
    draw_picture(3, 100, 75).save(tmp_path / "a" / "p.png")
    (tmp_path / "a" / "p.json").write_text('{"label": "cat"}')
    (tmp_path / "list.csv").write_text("path,label\na/p.png,cat\n")
    (tmp_path / "LICENSE").write_text("ours")
    draw_picture(4, 100, 75).save(tmp_path / "picture.txt", "PNG")
    done = lipsim("search", tmp_path, "-k", 1, "--json", *asked)
    assert done.exit_code == 0, done.output
    *lines, summary = map(json.loads, done.stdout.splitlines())
    assert summary == {"summary": {"pictures": 2, "answered": 2, "failed": 0, "skipped": 3}}
    assert [line["answer"]["results"][0]["id"] for line in lines] == ["p04.jpg", "p03.jpg"]
    said = lipsim("search", tmp_path, *asked).stderr
    assert "2 pictures: 2 answered, 0 not; skipped 3 files beside them" in said
    # Who names a file means it.
    named = lipsim("search", tmp_path / "list.csv", *asked)
    assert named.exit_code == 1
    assert "unsupported_image_format" in named.stderr


@pytest.mark.parametrize("is_file", [False, True])
def test_a_filter_leaves_the_matching_items(asked: list[str], pictures: Path, tmp_path, is_file):
    wanted = '{"must": [{"has_id": ["p05.jpg", "p07.jpg"]}]}'
    file = tmp_path / "filter.json"
    file.write_text(wanted)
    given = f"@{file}" if is_file else wanted
    done = lipsim("search", pictures / "a.png", "-k", 9, "--filter", given, "--json", *asked)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout.splitlines()[0])["answer"]
    assert {one["id"] for one in answer["results"]} == {"p05.jpg", "p07.jpg"}
    assert answer["index"]["matching_ids"] == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{", "filter: is not well-formed JSON"),
        ('{"must": [{"key": "a", "range": {"gt": "1"}}]}', "filter.must[0].range.gt: wanted a num"),
        ('{"label": "cat"}', "filter: wanted must, must_not, should; got 'label'"),
        ("@absent\n.json", "absent\\n.json: No such file or directory"),
    ],
)
def test_a_wrong_filter_is_a_wrong_command_line(pictures: Path, given: str, says: str):
    # Nobody is asked: there is no server here.
    where = ("--url", "http://127.0.0.1:9")
    done = lipsim("search", pictures / "a.png", "--filter", given, *where)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --filter: ")
    assert says in line


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_folder_is_written_to_a_file(asked: list[str], pictures: Path, tmp_path, suffix: str):
    out = tmp_path / f"found{suffix}"
    done = lipsim("search", pictures, "-k", 2, "--out", out, *asked)
    assert done.exit_code == 3
    assert done.stdout == ""
    assert f"3 pictures: 2 answered, 1 not, in {out}" in done.stderr
    if suffix == ".csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows if row["rank"] == "1"] == ["p03.jpg", "p04.jpg"]
        assert len(rows) == 5
        assert rows[-1]["error"] == "unsupported_image_format"
    else:
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["status"] for line in lines] == [200, 200, 415]


def test_two_pictures_are_compared(asked: list[str], pictures: Path):
    where = asked if asked[0] == "--url" else []
    words = (
        "compare",
        pictures / "a.png",
        pictures / "b.png",
        "--epsilon",
        0.2,
        "--threshold",
        0.1,
    )
    done = lipsim(*words, *where)
    assert done.exit_code == 0, done.output
    distance, interval, verdict = done.stdout.splitlines()
    assert distance.startswith("distance ")
    assert "under changes of l2 0.2: " in interval
    assert verdict.startswith("no match; it stays so under changes of the first alone below l2 ")
    answer = json.loads(lipsim(*words, "--json", *where).stdout)
    assert f"{answer['distance']:.6f}" in distance


def test_pictures_are_embedded(asked: list[str], pictures: Path):
    where = asked if asked[0] == "--url" else []
    done = lipsim("embed", pictures / "a.png", pictures / "b.png", "--json", *where)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["id"]).name for line in lines] == ["a.png", "b.png"]
    assert len(lines[0]["vector"]) > 100
    said = lipsim("embed", pictures / "a.png", *where).stdout
    assert f"{len(lines[0]['vector'])} numbers" in said


def test_edits_that_leave_an_answer_alone_are_a_table(asked: list[str], pictures: Path):
    words = ("tolerance", pictures / "a.png", "-k", 2, "--families", "brightness,jpeg,noise")
    done = lipsim(*words, *asked)
    assert done.exit_code == 0, done.output
    answer = only_answer(lipsim(*words, "--json", *asked))
    assert answer["statement"]["id"] == "p03.jpg"
    said, head, *rows = done.stdout.splitlines()[-5:]
    about, radius = said.rsplit(" ", 1)
    assert about == "p03.jpg is in the answer: stays so under changes below l2"
    assert 0.0 < float(radius) <= answer["statement"]["radius"]
    assert head.split() == ["edit", "from", "to", "found", "by"]
    assert [row.split()[0] for row in rows] == [*answer["families"]]
    brightness, noise = answer["families"]["brightness"], rows[2].split()
    assert rows[0].split() == [
        *("brightness", str(brightness["from"]), str(brightness["to"]), "factor", "exact")
    ]
    assert noise[1:3] == ["0.0", "below"]
    assert 0.0 < float(noise[3]) <= answer["families"]["noise"]["to"]


def test_another_statement_and_a_longer_chain_are_asked_for(asked: list[str], pictures: Path):
    words = ("tolerance", pictures / "a.png", "--families", "gamma", "--json", *asked)
    plain, chained = (
        only_answer(lipsim(*words, "--statement", "top1", "--chain", passes)) for passes in (0, 8)
    )
    assert plain["statement"] == chained["statement"]
    assert plain["statement"]["kind"] == "top1"
    assert chained["families"]["gamma"]["how"] == "chain"
    assert chained["families"]["gamma"]["to"] > plain["families"]["gamma"]["to"]
    about = only_answer(lipsim(*words, "--id", "p05.jpg", "-k", 60))["statement"]
    assert about["id"] == "p05.jpg"
    refused = lipsim(*words, "--statement", "verdict")
    assert refused.exit_code == 1
    assert "operating_point" in refused.stderr


@pytest.mark.parametrize("bound", [18.8659, 0.00123456, 2.0, 123456.7])
def test_no_number_that_is_claimed_is_rounded_up(bound: float):
    assert 0.999 * bound < float(proved(bound)) <= bound


def test_what_cannot_be_asked_is_said_in_a_line(asked: list[str], pictures: Path, tmp_path: Path):
    done = lipsim("search", pictures / "a.png", "--index", "nowhere", *asked)
    assert done.exit_code == 1
    assert "no index 'nowhere'" in done.stderr
    # Of a server, its list; of a folder, what is in it and what makes one.
    is_server = "--url" in asked
    assert ("/v1/indexes" in done.stderr) == is_server
    assert ("(there: default): make it with" in done.stderr) != is_server
    done = lipsim("search", tmp_path / "absent.png", *asked)
    assert done.exit_code == 1
    assert "absent.png" in done.stderr
    assert lipsim("search", pictures, "--out", tmp_path / "x.txt", *asked).exit_code == 2


def test_a_server_and_an_index_here_are_not_asked_together(data_dir: Path, pictures: Path):
    done = lipsim("search", pictures, "--url", "http://127.0.0.1:9", *data_option(data_dir))
    assert done.exit_code == 2
    assert "--url" in done.output


def test_nobody_there_is_said_in_a_line(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.client.problems._FIRST_PAUSE_S", 0.01)
    done = lipsim("search", pictures / "a.png", "--url", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert "no_answer" in done.stderr
