"""The demo's verdicts: measured once, and left out where the gallery cannot support them."""

from pathlib import Path

import pytest
from index_tools import CALIBRATION
from service_helpers import draw_picture, run_builder

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
    paths = index_paths(data_dir, "default")
    with writing(paths):
        seal_calibration(paths, read_manifest(paths.version("v000001")), CALIBRATION)
    point = CALIBRATION.operating_points[0]
    assert demo.calibrate(data_dir) == point
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"`{point.name}`" in said
    assert f"at most {100 * point.false_positive_upper:.3g} %" in said
    assert read_current(paths).version == "v000002"
