"""Verdicts over HTTP: from a list of labelled pairs, by the real commands, to the real server."""

import json
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from service_helpers import ABSENT, draw_picture, encode, open_client
from typer.testing import CliRunner

from index_builder.__main__ import app
from index_builder.build.build import remove_items
from index_builder.build.maintenance import roll_back
from index_builder.store.rates import upper_bound
from model.embedder import Embedder
from model.pixels.decode import DecodeLimits
from service.replay.replayer import Replayer
from service.settings import Settings

pytestmark = pytest.mark.without_shape_checks


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def calibrated(data_dir: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery's index, a version of it with operating points, and what the command said."""
    directory = tmp_path_factory.mktemp("calibrated") / "data"
    shutil.copytree(data_dir, directory)
    told = ("--pairs", pairs, "--cosine-weight", 0, "--data-dir", directory, "--json")
    done = invoke("calibrate", *told)
    assert done.exit_code == 0, done.output
    (directory / "said.json").write_text(done.stdout)
    return directory


@pytest.fixture(scope="module")
def judging(calibrated: Path):
    with open_client(Settings(data_dir=calibrated)) as opened:
        yield opened


def search(client: httpx.Client, image: bytes, **options: object) -> dict:
    data = {name: str(value) for name, value in options.items()}
    response = client.post("/v1/search", files={"image": image}, data=data)
    assert response.status_code == 200, response.text
    return response.json()


def point_of(client: httpx.Client) -> dict:
    return client.get("/v1/indexes/default").json()["operating_points"][0]


def test_an_index_says_which_operating_points_it_has_and_how_they_did(judging: httpx.Client):
    status = judging.get("/v1/indexes/default").json()
    assert status["version"] == "v000002"
    assert [point["name"] for point in status["operating_points"]] == ["balanced"]
    point = point_of(judging)
    assert point["target_false_positive_rate"] == 0.01
    assert 0.0 < point["threshold"] < 1.0
    assert (point["statistic"], point["cosine_weight"]) == ("margin", 0.0)
    assert point["pairs"] == "labelled"
    assert point["queries"] == point["pictures"] == 60 + ABSENT
    assert point["recall"] == point["hits"] / point["positives"] > 0.8
    assert point["false_positive_rate"] == point["false_positives"] / point["negatives"] <= 0.02
    assert point["false_positive_rate"] <= point["false_positive_upper"] < 0.05
    assert set(point["by_kind"]) == {"smaller", "stranger"}
    assert point["by_kind"]["stranger"]["positives"] == 0
    assert point["by_kind"]["stranger"]["recall"] is None
    assert judging.get("/v1/indexes").json()["indexes"] == [status]


def test_a_copy_matches_its_original_and_a_stranger_nothing(judging: httpx.Client):
    point = point_of(judging)
    for seed, wanted in ((5, True), (21, True), (400, False), (401, False)):
        answer = search(judging, encode(draw_picture(seed)), operating_point="balanced")
        for name in ("name", "threshold", "k", "recall", "false_positive_upper"):
            assert answer["operating_point"][name] == point[name]
        assert "by_kind" not in answer["operating_point"]
        assert answer["results"][0]["match"] is wanted
        for result in answer["results"]:
            assert result["match"] is (result["match_margin"] >= point["threshold"])
            assert result["match_statistic"] == result["match_margin"]
            assert result["match_radius"] > 0.0
        assert not any(result["match"] for result in answer["results"][1:])


def test_the_margin_judged_is_that_of_a_search_with_the_points_own_k(judging: httpx.Client):
    image = encode(draw_picture(33))
    own = search(judging, image, k=1)["results"][0]
    for k in (1, 5, 59, 60):
        first = search(judging, image, k=k, operating_point="balanced")["results"][0]
        assert first["match_margin"] == pytest.approx(own["margin"], rel=1e-6)
    far = own["distance"] + 0.5
    near = search(judging, image, max_distance=far, operating_point="balanced")["results"][0]
    assert near["match_margin"] == pytest.approx(own["margin"], rel=1e-6)


@pytest.mark.parametrize("name", ["strict", "loose", "Balanced", "balanced ", "x" * 64, "../v1"])
def test_an_operating_point_that_is_not_there_is_a_400_that_names_those_that_are(
    judging: httpx.Client, name: str
):
    response = judging.post(
        "/search", files={"image": encode(draw_picture(1))}, data={"operating_point": name}
    )
    assert response.status_code == 400
    problem = response.json()
    assert problem["code"] == "unknown_operating_point"
    assert problem["errors"][0]["field"] == "operating_point"
    assert "index 'default' v000002 knows balanced" in problem["detail"]
    assert repr(name) in problem["detail"]


def test_an_index_without_operating_points_says_so_before_it_looks_at_the_image(
    client: httpx.Client,
):
    response = client.post(
        "/v1/search", files={"image": b"no image"}, data={"operating_point": "balanced"}
    )
    assert response.status_code == 400
    assert response.json()["code"] == "unknown_operating_point"
    assert "has none: `python -m index_builder calibrate`" in response.json()["detail"]
    assert client.get("/v1/indexes/default").json()["operating_points"] == []


def test_every_way_to_send_an_option_takes_an_operating_point(judging: httpx.Client):
    image = encode(draw_picture(7))
    form = search(judging, image, operating_point="balanced")
    raw = judging.post(
        "/v1/search?operating_point=balanced",
        content=image,
        headers={"Content-Type": "image/png"},
    ).json()
    assert raw["results"] == form["results"]
    twice = judging.post(
        "/v1/search?operating_point=balanced",
        files={"image": image},
        data={"operating_point": "balanced"},
    )
    assert twice.json()["code"] == "invalid_parameter"
    # A browser's form sends what was left empty too.
    assert search(judging, image, operating_point="")["operating_point"] is None
    for wrong in (3, "", ["balanced"], "x" * 65):
        answer = judging.post("/v1/search", json={"image_base64": "", "operating_point": wrong})
        assert answer.json()["code"] == "invalid_parameter", wrong
    none = judging.post("/v1/search", json={"image_base64": "", "operating_point": None})
    assert none.json()["code"] == "empty_image"


@pytest.mark.parametrize("seed", [5, 400])
def test_no_change_of_the_picture_below_its_radius_flips_a_verdict(
    judging: httpx.Client, seed: int
):
    """In 8-bit pixels, at random and towards the picture that would flip it."""
    pixels = np.asarray(draw_picture(seed), dtype=np.float64)
    before = search(judging, encode(draw_picture(seed)), operating_point="balanced")
    verdicts = {result["id"]: result for result in before["results"]}
    rng = np.random.default_rng(seed)
    # Away from itself for a match, towards its neighbour for none.
    other = int(before["results"][1 if seed == 5 else 0]["id"][1:3])
    steps = [np.asarray(draw_picture(other), dtype=np.float64) - pixels]
    steps += [rng.standard_normal(pixels.shape) for _ in range(3)]
    tried = 0
    for step in steps:
        for share in (0.5, 0.98):
            radius = before["results"][0]["match_radius"] * share
            moved = np.clip(np.rint(pixels + step * radius * 255 / np.linalg.norm(step)), 0, 255)
            length = np.linalg.norm(moved - pixels) / 255
            after = search(
                judging, encode(Image.fromarray(moved.astype(np.uint8))), operating_point="balanced"
            )
            found = {result["id"] for result in after["results"]}
            for result in before["results"]:
                assert (
                    not result["match"]
                    or length >= result["match_radius"]
                    or (result["id"] in found)
                )
            for result in after["results"]:
                known = verdicts.get(result["id"])
                if known is not None and 0 < length < known["match_radius"]:
                    tried += 1
                    assert result["match"] is known["match"]
    assert tried > 10


def test_a_verdicts_radius_is_the_angle_left_to_the_threshold(judging: httpx.Client):
    """For the first result of the whole gallery the formula of the documentation holds closely."""
    answer = search(judging, encode(draw_picture(12)), operating_point="balanced")
    first, threshold = answer["results"][0], answer["operating_point"]["threshold"]
    turn = np.arcsin(first["match_margin"]) - np.arcsin(threshold)
    scale = answer["model"]["lipschitz_bound"] * answer["query"]["gain"]
    expected = answer["query"]["embedding_norm"] * np.sin(min(abs(turn), np.pi / 2)) / scale
    assert first["match_radius"] <= expected
    assert first["match_radius"] == pytest.approx(expected, rel=1e-4)


def test_a_verdict_is_still_given_after_the_index_has_changed_and_says_that_it_is_stale(
    calibrated: Path, tmp_path: Path, start_server
):
    directory = tmp_path / "data"
    shutil.copytree(calibrated, directory)
    server = start_server(directory, index_poll_interval_s=0.1)
    server.wait_ready()
    files = {"image": encode(draw_picture(5))}
    wanted = {"operating_point": "balanced"}

    def stale_in(version: str) -> list[bool]:
        """As the version's description and an answer of it say."""
        deadline = time.monotonic() + 30
        while True:
            described = httpx.get(f"{server.url}/v1/indexes/default").json()
            if described["version"] == version:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        response = httpx.post(f"{server.url}/v1/search", files=files, data=wanted)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert isinstance(answer["results"][0]["match"], bool)
        return [answer["operating_point"]["stale"], described["operating_points"][0]["stale"]]

    assert stale_in("v000002") == [False, False]
    remove_items(directory, "default", ["p59.jpg"])
    assert stale_in("v000003") == [True, True]
    roll_back(directory, "default")
    assert stale_in("v000002") == [False, False]
    roll_back(directory, "default", "v000001")
    while httpx.get(f"{server.url}/v1/indexes/default").json()["version"] != "v000001":
        time.sleep(0.02)
    refused = httpx.post(f"{server.url}/v1/search", files=files, data=wanted)
    assert refused.json()["code"] == "unknown_operating_point"
    log = [json.loads(line) for line in server.log.read_text().splitlines() if line[:1] == "{"]
    assert not [line for line in log if line.get("level") == "error"]


def test_answers_from_before_stale_and_the_cosine_were_told_still_replay(
    judging: httpx.Client, calibrated: Path
):
    image = encode(draw_picture(5))
    answer = search(judging, image, operating_point="balanced", include_audit=True)
    assert answer["operating_point"].pop("stale") is False
    replayer = Replayer(Embedder.load(), calibrated, DecodeLimits())
    assert replayer.replay(answer, image).differences == ()
    answer["operating_point"]["stale"] = True
    assert any("stale" in said for said in replayer.replay(answer, image).differences)
    del answer["operating_point"]["stale"], answer["operating_point"]["cosine_weight"]
    for result in answer["results"]:
        del result["match_statistic"]
    assert len(replayer.replay(answer, image).differences) == 1 + len(answer["results"])
    answer["audit"]["record"] = "lipsim-audit-2"
    assert replayer.replay(answer, image).differences == ()
    replayer.close()


# The commands.


def test_the_command_prints_what_it_found_for_machines(calibrated):
    answer = json.loads((calibrated / "said.json").read_text())
    assert (answer["version"], answer["operating_points"]) == ("v000002", ["balanced"])
    point = answer["calibration"]["operating_points"][0]
    total = sum(one["negatives"] for one in point["measured"].values())
    false = sum(one["false_positives"] for one in point["measured"].values())
    assert point["false_positive_rate"] == false / total
    assert point["false_positive_upper"] == upper_bound(
        point["pictures_with_false_positives"], point["pictures"]
    )
    assert [one["name"] for one in answer["calibration"]["left_out"]] == ["strict"]
    margins = [alarm["margin"] for alarm in answer["alarms"]]
    assert len(margins) == 5
    assert margins == sorted(margins, reverse=True)


def test_info_rollback_and_verify_show_operating_points(calibrated, tmp_path):
    answer = json.loads((calibrated / "said.json").read_text())
    shutil.copytree(calibrated / "indexes", tmp_path / "indexes")
    text = invoke("info", "--data-dir", tmp_path).stdout
    threshold = answer["calibration"]["operating_points"][0]["threshold"]
    assert "default v000002 (60 entries, 61 ids, operating points balanced)" in text
    assert f"balanced: margin >= {threshold:g}: recall" in text
    assert "strict: left out: 0.1 % cannot be claimed" in text
    described = json.loads(invoke("info", "--data-dir", tmp_path, "--json").stdout)
    assert described["manifest"]["calibration"] == answer["calibration"]
    verified = invoke("verify", "--data-dir", tmp_path).stdout
    assert "operating points balanced): every file is whole" in verified
    stale = "stale operating points balanced"
    assert stale in invoke("remove", "p01.jpg", "--data-dir", tmp_path).stdout
    told = invoke("info", "--data-dir", tmp_path).stdout
    assert stale in told
    assert "stale: measured on another gallery; `calibrate` measures them anew" in told
    back = invoke("rollback", "--data-dir", tmp_path).stdout
    assert back == "default now serves v000002 (60 entries, 61 ids, operating points balanced)\n"
    again = json.loads(invoke("remove", "p01.jpg", "--data-dir", tmp_path, "--json").stdout)
    assert again["operating_points_dropped"] == []
    assert (again["operating_points"], again["operating_points_stale"]) == (["balanced"], True)


@pytest.mark.parametrize("arguments", [(), ("in", "--pairs", "x.csv"), ("in", "--k", "0")])
def test_a_wrong_command_line_is_exit_code_2(tmp_path, arguments):
    assert invoke("calibrate", *arguments, "--data-dir", tmp_path).exit_code == 2


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pairs", "/nonexistent.csv"), "nonexistent.csv"),
        (("/nonexistent",), "no folder, archive, list or picture at /nonexistent"),
        (("/nonexistent", "--index", "other"), "no index 'other'"),
        (("/nonexistent", "--index", "../x"), "an index name is 1 to 64 letters"),
    ],
)
def test_expected_errors_are_one_line_and_exit_code_1(calibrated, arguments, message, as_json):
    extra = ("--json",) if as_json else ()
    result = invoke("calibrate", *arguments, "--data-dir", calibrated, *extra)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    if as_json:
        assert message in json.loads(result.stdout)["error"]["message"]
