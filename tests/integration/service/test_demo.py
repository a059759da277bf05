"""The demo's verdicts: measured once, while its page answers, if the gallery supports any."""

import json
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from index_tools import CALIBRATION
from service_helpers import draw_picture, encode, run_builder

from index_builder.build.writer import seal_calibration, writing
from index_builder.store.layout import index_paths, list_versions, read_current
from index_builder.store.manifest import read_manifest
from service.command import demo


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of six pictures, which are the demo's gallery."""
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for seed in range(6):
        draw_picture(seed, 40, 30).save(gallery / f"{seed}.png")
    run_builder("build", gallery, "--data-dir", tmp_path / "data")
    monkeypatch.setattr(demo, "GALLERY", gallery)
    return tmp_path / "data"


def seal(data_dir: Path) -> None:
    paths = index_paths(data_dir, "default")
    with writing(paths):
        seal_calibration(paths, read_manifest(paths.version("v000001")), CALIBRATION)


def test_a_gallery_that_supports_no_operating_point_is_served_without_verdicts(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
):
    assert demo.calibrate(data_dir) is None
    said = capfd.readouterr()
    assert "no operating point can be claimed from 6 of 6 entries" in said.err
    assert "gives no verdicts" in said.out
    assert list_versions(index_paths(data_dir, "default")) == ["v000001"]


def test_what_was_measured_is_said_with_its_bound_and_not_measured_again(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
):
    seal(data_dir)
    point = CALIBRATION.operating_points[0]
    assert demo.calibrate(data_dir) == point
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"`{point.name}`" in said
    assert f"at most {100 * point.false_positive_upper:.3g} %" in said
    assert read_current(index_paths(data_dir, "default")).version == "v000002"


def test_the_page_answers_before_verdicts_are_measured_and_gives_them_after(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen: list[tuple[bool | None, str, int]] = []

    def ask(url: str, point: demo.OperatingPoint | None) -> None:
        match = demo.search(url, encode(draw_picture(3, 100, 75)), point)[0]["match"]
        with urllib.request.urlopen(f"{url}/v1/indexes/default") as answer:
            index = json.load(answer)
        seen.append((match, index["version"], len(index["operating_points"])))

    def builder(command: str, data_dir: Path, **_: Any) -> "subprocess.CompletedProcess[str]":
        if command == "calibrate":
            ask(f"http://127.0.0.1:{port}", None)
            seal(data_dir)
        return subprocess.CompletedProcess([], 0)

    def end(url: str, point: demo.OperatingPoint | None) -> None:
        ask(url, point)
        raise KeyboardInterrupt  # As Ctrl-C does.

    monkeypatch.setattr(demo, "GALLERY", demo.GALLERY / "0.png")
    monkeypatch.setattr(demo, "run_builder", builder)
    monkeypatch.setattr(demo, "show_answers", end)
    before = signal.getsignal(signal.SIGTERM)
    try:
        demo.main(port=port, data_dir=data_dir)
    finally:
        signal.signal(signal.SIGTERM, before)
    (early, *first), (late, *second) = seen
    assert (early, first) == (None, ["v000001", 0])
    assert isinstance(late, bool)
    assert second == ["v000002", len(CALIBRATION.operating_points)]
