"""Verdicts by margin + cosine over HTTP, from a real server."""

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from index_tools import CALIBRATION
from PIL import Image
from service_helpers import draw_picture, encode
from test_service_verdicts import invoke, search

from index_builder.build.writer import seal_calibration, writing
from index_builder.store import layout
from index_builder.store.manifest import read_manifest
from index_builder.store.operating_points import Measured, OperatingPoint
from model.embedder import Embedder
from model.pixels.decode import DecodeLimits
from service.replay.replayer import Replayer

WEIGHT = 1.0


@pytest.fixture(scope="module")
def weighted(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judged_index(data_dir, tmp_path_factory.mktemp("weighted") / "data", WEIGHT)


def judged_index(data_dir: Path, directory: Path, weight: float, **thresholds: float) -> Path:
    """A copy of an index with operating points such as `calibrate` writes."""
    shutil.copytree(data_dir, directory)
    told = {"jpeg": Measured(400, 350, 400, 3)}
    points = [
        OperatingPoint(name, threshold, 0.01, 350, 2, told)
        for name, threshold in (thresholds or {"balanced": 0.2 + weight}).items()
    ]
    calibration = replace(
        CALIBRATION,
        statistic="margin + cosine" if weight else "margin",
        cosine_weight=weight,
        k=1,
        operating_points=tuple(points),
    )
    paths = layout.index_paths(directory, "default")
    with writing(paths):
        served = read_manifest(paths.version(layout.read_current(paths).version))
        seal_calibration(paths, served, calibration)
    return directory


def test_a_server_judges_by_margin_and_cosine_and_its_records_replay(weighted, start_server):
    server = start_server(weighted)
    server.wait_ready()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        (described,) = client.get("/v1/indexes/default").json()["operating_points"]
        assert described["statistic"] == "margin + cosine"
        assert described["cosine_weight"] == WEIGHT
        assert 0.0 < described["threshold"] < 1.0 + WEIGHT
        text = invoke("info", "--data-dir", weighted).stdout
        assert f"balanced: margin + 1 cosine >= {described['threshold']:g}: recall" in text
        replayer = Replayer(Embedder.load(), weighted, DecodeLimits())
        for seed, wanted in ((5, True), (400, False)):
            image = encode(draw_picture(seed))
            answer = search(client, image, k=3, operating_point="balanced", include_audit=True)
            check_answer(answer, described, wanted)
            check_replay(replayer, answer, image)
            check_radius(client, seed, answer)
        replayer.close()


def check_answer(answer: dict, described: dict, wanted: bool):
    point = answer["operating_point"]
    for name in ("statistic", "cosine_weight", "threshold", "k"):
        assert point[name] == described[name]
    first, *others = answer["results"]
    assert first["match"] is wanted
    # Of one view an entry the sum is that of margin and cosine, and the first has both.
    total = first["match_margin"] + WEIGHT * first["similarity"]
    assert first["match_statistic"] == pytest.approx(total, abs=1e-9)
    assert first["match"] is (first["match_statistic"] >= point["threshold"])
    for result in others:
        assert result["match"] is False  # not the first, which the point's k asks for
        assert result["match_radius"] > 0.0


def check_replay(replayer: Replayer, answer: dict, image: bytes):
    assert replayer.replay(answer, image).differences == ()
    forged = deepcopy(answer)
    forged["results"][0]["match_statistic"] += 1e-3
    assert any("match_statistic" in said for said in replayer.replay(forged, image).differences)
    forged = deepcopy(answer)
    forged["results"][1]["match"] = True
    assert any("does not follow" in said for said in replayer.replay(forged, image).differences)
    # No release before wrote a record about such an index.
    forged = deepcopy(answer)
    forged["audit"]["record"] = "lipsim-audit-2"
    del forged["operating_point"]["cosine_weight"]
    for result in forged["results"]:
        del result["match_statistic"]
    forged["operating_point"]["statistic"] = "margin"
    assert any("statistic" in said for said in replayer.replay(forged, image).differences)


def check_radius(client: httpx.Client, seed: int, before: dict):
    """No change of the picture below it turns a verdict: at random, and towards another one."""
    pixels, rng = np.asarray(draw_picture(seed), dtype=np.float64), np.random.default_rng(seed)
    verdicts = {result["id"]: result for result in before["results"]}
    other = int(before["results"][1 if seed == 5 else 0]["id"][1:3])
    steps = (
        np.asarray(draw_picture(other), dtype=np.float64) - pixels,
        rng.standard_normal(pixels.shape),
    )
    tried = 0
    for step in steps:
        length = before["results"][0]["match_radius"] * 0.98 * 255
        moved = np.clip(np.rint(pixels + step * length / np.linalg.norm(step)), 0, 255)
        changed = np.linalg.norm(moved - pixels) / 255
        image = encode(Image.fromarray(moved.astype(np.uint8)))
        after = search(client, image, k=3, operating_point="balanced")
        found = {result["id"]: result["match"] for result in after["results"]}
        for name, result in verdicts.items():
            if changed < result["match_radius"]:
                tried += 1
                # A match stays in the answer; any other has its verdict where it is seen.
                assert found.get(name, False) is result["match"]
    assert tried >= 2
