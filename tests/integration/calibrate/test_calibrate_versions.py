"""The version that a calibration writes: what it shares, how long it lasts, what a kill leaves."""

import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
from calibrate_tools import PICTURES, calibrate, copies, measure_slowly
from forked import Forked
from index_tools import build, write_folder
from service_helpers import wait_for

from index_builder.build.build import remove_items
from index_builder.build.maintenance import prune, roll_back, verify_index
from index_builder.build.writer import seal_calibration, writing
from index_builder.errors import IndexLockedError
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.manifest import read_manifest

pytestmark = pytest.mark.without_shape_checks


def test_a_calibrated_version_holds_the_same_gallery_and_nothing_is_copied(calibrated):
    root, report = calibrated
    before = read_manifest(root / "indexes/default/versions/v000001")
    manifest = verify_index(root, "default")
    assert manifest == report.manifest
    assert manifest.version == "v000002"
    assert manifest.files == before.files
    assert (manifest.counts, manifest.source, manifest.entries) == (
        before.counts,
        before.source,
        before.entries,
    )
    versions = root / "indexes/default/versions"
    for name in manifest.files:
        assert (versions / "v000001" / name).samefile(versions / "v000002" / name)


def seal(data_dir, calibration):
    """What a calibration does once it has measured."""
    paths = layout.index_paths(data_dir, "default")
    with writing(paths):
        served = read_manifest(paths.version(layout.read_current(paths).version))
        return seal_calibration(paths, served, calibration)


def test_whichever_version_goes_first_the_other_keeps_its_bytes(calibrated, data_dir):
    manifest = seal(data_dir, calibrated[1].calibration)
    assert prune(data_dir, "default", 1) == (["v000001"], [])
    assert verify_index(data_dir, "default") == manifest


def test_where_files_cannot_be_linked_they_are_copied(calibrated, data_dir, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    seal(data_dir, calibrated[1].calibration)
    versions = data_dir / "indexes/default/versions"
    for name in verify_index(data_dir, "default").files:
        one, other = versions / "v000001" / name, versions / "v000002" / name
        assert not one.samefile(other)
        assert one.read_bytes() == other.read_bytes()


def test_operating_points_outlive_a_change_of_the_gallery_and_are_stale_until_measured_anew(
    calibrated, calibrated_dir, tmp_path, pictures
):
    data_dir, manifest = calibrated_dir, calibrated[1].manifest
    same = build(data_dir, pictures)
    assert (same.changed, same.dropped) == (False, [])
    assert same.manifest == manifest
    more = build(data_dir, write_folder(tmp_path / "more", 3, first=9000), union=True)
    assert (more.changed, more.dropped) == (True, [])
    assert more.manifest.calibration == replace(manifest.calibration, stale=True)
    assert verify_index(data_dir, "default") == more.manifest
    removed = remove_items(data_dir, "default", ["0001.png"])
    assert removed.dropped == []
    assert removed.manifest.calibration == more.manifest.calibration
    assert build(data_dir, pictures).manifest.calibration.stale
    again = calibrate(data_dir, copies(pictures, PICTURES))
    assert not again.manifest.calibration.stale
    assert roll_back(data_dir, "default", "v000002") == manifest


def test_a_version_of_the_same_vectors_is_not_stale(calibrated_dir, tmp_path):
    """A file that was set aside changes the version and no competitor."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/bad.png").write_bytes(b"bad")
    report = build(calibrated_dir, tmp_path / "bad", union=True)
    assert report.changed
    assert not report.manifest.calibration.stale


def test_operating_points_go_with_the_model_they_were_measured_with(calibrated_dir, pictures):
    report = build(calibrated_dir, pictures, seed=1)
    assert report.dropped == ["balanced"]
    assert report.manifest.calibration is None


def test_operating_points_go_where_a_margin_at_their_k_has_no_competitor(
    calibrated_dir, calibrated, tmp_path
):
    report = build(calibrated_dir, write_folder(tmp_path / "one", 1))
    assert calibrated[1].calibration.k == report.manifest.entries == 1
    assert report.dropped == ["balanced"]


def start(data_dir, source, seconds_a_batch):
    output = data_dir / "output"
    output.touch()
    return Forked(measure_slowly, data_dir, source, seconds_a_batch, output=output)


def test_a_calibration_killed_at_any_moment_leaves_the_old_version_or_the_new_one(
    pristine, tmp_path, pictures
):
    dice = random.Random(3)
    seen = set()
    for attempt in range(3):
        data_dir = tmp_path / f"try{attempt}"
        shutil.copytree(pristine, data_dir / "indexes")
        versions = data_dir / "indexes/default/versions"
        process = start(data_dir, pictures, 0.0)
        while process.poll() is None and not any(versions.glob(".tmp-*")):
            time.sleep(0.0005)
        time.sleep(dice.uniform(0.0, 0.03))
        process.kill()
        process.wait(60)
        manifest = verify_index(data_dir, "default")
        seen.add((process.returncode, manifest.version))
        assert manifest.version in ("v000001", "v000002")
        assert (manifest.calibration is None) == (manifest.version == "v000001")
        # The next writer clears away what was left.
        assert remove_items(data_dir, "default", ["0000.png"]).manifest.ids == PICTURES - 1
        assert not list(versions.glob(".*"))
    assert any(code == -signal.SIGKILL for code, _ in seen)


def test_one_writer_at_a_time_and_readers_go_on(data_dir, pictures):
    process = start(data_dir, pictures, 0.3)
    try:
        output = data_dir / "output"
        wait_for(lambda: "looking for pictures of the index" in output.read_text())
        with pytest.raises(IndexLockedError):
            calibrate(data_dir, copies(pictures, 700))
        with GalleryIndex.open(data_dir) as index:
            assert index.version == "v000001"
    finally:
        process.kill()
        process.wait(60)
    assert remove_items(data_dir, "default", ["0000.png"]).manifest.version == "v000002"
