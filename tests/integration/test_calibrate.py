"""Calibration on real files with a small real embedder: what is measured, sealed and carried on."""

import csv
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from index_tools import MAX_BYTES, TinyEmbedder, black_picture, build, write_folder
from PIL import Image

from index_builder import layout
from index_builder.build import remove_items
from index_builder.calibrate import TARGETS, calibrate_index
from index_builder.calibration_queries import (
    LabelledPairs,
    SyntheticPairs,
    embedded_queries,
    is_held_out,
)
from index_builder.errors import (
    IndexLockedError,
    IndexModelMismatchError,
    IndexNotFoundError,
    SourceError,
)
from index_builder.format import read_manifest
from index_builder.gallery_index import GalleryIndex
from index_builder.maintenance import prune, roll_back, verify_index
from index_builder.rates import upper_bound
from index_builder.sources import open_source
from index_builder.writer import seal_calibration, writing
from model.data.edits import EDIT_KINDS
from model.image import DecodeLimits
from model.progress import Progress

ROOT = Path(__file__).parents[2]
PICTURES = 660
LIMITS = DecodeLimits()


def copies(source, queries):
    return SyntheticPairs(
        lambda: open_source(source, max_bytes=MAX_BYTES), source=str(source), queries=queries
    )


def calibrate(data_dir, pairs, *, model=0, **options):
    return calibrate_index(data_dir, "default", pairs, TinyEmbedder(model), **options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures"), PICTURES)


@pytest.fixture(scope="module")
def pristine(pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("pristine")
    build(root, pictures)
    return root / "indexes"


@pytest.fixture
def data_dir(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "indexes")
    return tmp_path


@pytest.fixture(scope="module")
def calibrated(pristine, pictures, tmp_path_factory):
    """A copy with operating points of one query a picture, and what the calibration reported."""
    root = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(pristine, root / "indexes")
    return root, calibrate(root, copies(pictures, PICTURES))


@pytest.fixture
def calibrated_dir(calibrated, tmp_path):
    """A copy of that which may be changed; its files are copied, not linked."""
    shutil.copytree(calibrated[0] / "indexes", tmp_path / "indexes")
    return tmp_path


def brute_force(index, queries, k):
    """Each query's margin of its original, and the largest of any other entry without it."""
    gallery = index.vectors.astype(np.float64)
    for query in queries:
        own = query.label.row
        scores = gallery @ query.vector

        length = np.linalg.norm(query.vector)

        def margin(entry, gone=(), scores=scores, length=length):
            apart = np.linalg.norm(gallery[entry] - gallery, axis=1)
            with np.errstate(invalid="ignore"):
                radii = (scores[entry] - scores) / apart
            radii[[entry, *gone]] = np.inf
            return np.sort(radii)[k - 1] / length

        gone = () if own is None else (own,)
        best = [entry for entry in np.argsort(-scores) if entry not in gone][:k]
        alarm = max(margin(entry, gone) for entry in best)
        yield query.label, None if own is None else margin(own), alarm


@pytest.mark.parametrize("k", [1, 3])
def test_the_rates_are_those_of_brute_force_on_the_half_not_chosen_by(data_dir, pictures, k):
    """The measuring goes through retrieved candidates and their tail bound."""
    report = calibrate(data_dir, copies(pictures, 640), k=k, seed=5)
    point = report.calibration.point("balanced")
    assert (report.calibration.k, report.calibration.seed) == (k, 5)
    with GalleryIndex.open(data_dir) as index:
        jobs, total = copies(pictures, 640).jobs(index, 5, LIMITS, Progress())
        batches = embedded_queries(jobs, TinyEmbedder(), LIMITS)
        queries = [query for batch in batches for query in batch]
        assert len(queries) == total == report.calibration.queries == 640
        truth = list(brute_force(index, queries, k))
    chosen_on = [alarm for label, _, alarm in truth if not is_held_out(5, label.group)]
    measured = [one for one in truth if is_held_out(5, one[0].group)]
    assert report.calibration.chosen_on == len(chosen_on)
    allowed = int(sum(alarm >= point.threshold for alarm in chosen_on))
    assert upper_bound(allowed, len(chosen_on)) <= 0.01 < upper_bound(allowed + 1, len(chosen_on))
    hits = [label for label, hit, _ in measured if hit >= point.threshold]
    alarms = [label for label, _, alarm in measured if alarm >= point.threshold]
    total = point.total
    assert (total.positives, total.negatives) == (len(measured), len(measured))
    # Bounds are taken on the cautious side where the retrieved candidates leave something open.
    assert 0.99 * len(hits) <= total.hits <= len(hits)
    assert len(alarms) <= total.false_positives <= len(alarms) + 1
    assert point.pictures == len({label.group for label, _, _ in measured})
    assert point.pictures_with_false_positives >= len({label.group for label in alarms})
    assert set(point.measured) == set(EDIT_KINDS)
    for kind, one in point.measured.items():
        assert one.positives == sum(label.kind == kind for label, _, _ in measured)
        assert one.hits <= sum(label.kind == kind for label in hits)
    assert [one.name for one in report.calibration.left_out] == ["strict"]
    worst = max(truth, key=lambda one: one[2])
    assert report.alarms[0].margin == pytest.approx(worst[2], abs=1e-6)
    assert worst[0].name == report.alarms[0].query
    assert worst[0].name.split(" ")[0] != report.alarms[0].id


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


def test_the_same_seed_gives_the_same_calibration_and_another_seed_another(
    calibrated, calibrated_dir, pictures
):
    first = calibrated[1].calibration
    assert calibrate(calibrated_dir, copies(pictures, PICTURES)).calibration == first
    other = calibrate(calibrated_dir, copies(pictures, 640), seed=1).calibration
    assert first.operating_points != other.operating_points
    # A calibration replaces the one before it.
    assert verify_index(calibrated_dir, "default").calibration == other
    versions = layout.list_versions(layout.index_paths(calibrated_dir, "default"))
    assert versions == ["v000001", "v000002", "v000003", "v000004"]


def test_kinds_are_in_balance_and_as_many_pictures_as_possible_take_part(data_dir, pictures):
    with GalleryIndex.open(data_dir) as index:
        for wanted, expected in ((60, 60), (1000, 1000), (10**6, 12 * PICTURES)):
            jobs, total = copies(pictures, wanted).jobs(index, 0, LIMITS, Progress())
            labels = [label for job in jobs for label in job.labels]
            assert len(labels) == total == expected
            assert len({label.group for label in labels}) == min(wanted, PICTURES)
            counts = [sum(label.kind == kind for label in labels) for kind in EDIT_KINDS]
            assert max(counts) - min(counts) <= len(EDIT_KINDS)
            assert len({(label.group, label.kind) for label in labels}) == len(labels)


@pytest.mark.parametrize("pictures_given", [40, 590])
def test_too_few_pictures_claim_nothing_and_change_nothing(data_dir, tmp_path, pictures_given):
    few = write_folder(tmp_path / "few", pictures_given)
    with pytest.raises(SourceError) as refusal:
        calibrate(data_dir, copies(few, 600))
    message = str(refusal.value)
    assert "no operating point can be claimed" in message
    assert "balanced: 1 % cannot be claimed with 95 % confidence from" in message
    assert "it takes 299: give 627 pictures or more" in message
    assert "it takes 2995: give 6289 pictures or more" in message
    assert verify_index(data_dir, "default").version == "v000001"
    assert set(TARGETS) == {"strict", "balanced"}


def test_a_gallery_full_of_copies_has_no_threshold_that_tells_copies_apart(tmp_path):
    """Every picture is there twice, one bit apart: its twin is a wrong entry of a large margin."""
    folder = write_folder(tmp_path / "in", 330)
    for path in sorted(folder.iterdir()):
        (folder / f"twin-{path.name}").write_bytes(_one_level_off(path))
    build(tmp_path, folder)
    report = calibrate(tmp_path, copies(folder, 660))
    assert report.calibration.point("balanced").total.recall < 0.05
    assert "twin-" in report.alarms[0].query + report.alarms[0].id


def _one_level_off(path):
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_pictures_that_are_not_in_the_index_take_no_part(data_dir, tmp_path, pictures):
    strangers = write_folder(tmp_path / "strangers", 30, first=5000)
    with pytest.raises(SourceError, match=r"no file of .*strangers is in index 'default' v000001"):
        calibrate(data_dir, copies(strangers, 100))
    mixed = tmp_path / "mixed"
    shutil.copytree(pictures, mixed)
    for path in strangers.iterdir():
        shutil.copy(path, mixed / f"x{path.name}")
    (mixed / "again.png").write_bytes((mixed / "0003.png").read_bytes())
    (mixed / "readme.txt").write_text("not a picture")
    (mixed / "0660.png").write_bytes(b"broken")
    assert labels_of(data_dir, mixed) == labels_of(data_dir, pictures)


def labels_of(data_dir, source, queries=PICTURES):
    """Every query that would be made of a source, and the bytes it would be made from."""
    with GalleryIndex.open(data_dir) as index:
        jobs, total = copies(source, queries).jobs(index, 0, LIMITS, Progress())
        found = {
            (label.group, label.kind, label.row): job.data for job in jobs for label in job.labels
        }
    assert len(found) == total
    return found


def test_an_archive_is_read_twice(data_dir, tmp_path, pictures):
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(pictures.iterdir()):
            file.write(path, path.name)
    assert labels_of(data_dir, archive, 900) == labels_of(data_dir, pictures, 900)


def test_operating_points_go_when_the_gallery_changes_and_come_back_with_their_version(
    calibrated, calibrated_dir, tmp_path, pictures
):
    data_dir, manifest = calibrated_dir, calibrated[1].manifest
    same = build(data_dir, pictures)
    assert (same.changed, same.dropped) == (False, [])
    assert same.manifest == manifest
    more = build(data_dir, write_folder(tmp_path / "more", 3, first=9000), union=True)
    assert (more.changed, more.dropped) == (True, ["balanced"])
    assert more.manifest.calibration is None
    assert more.manifest.schema == "lipsim-index-1"
    assert roll_back(data_dir, "default") == manifest
    removed = remove_items(data_dir, "default", ["0001.png"])
    assert removed.dropped == ["balanced"]
    assert removed.manifest.calibration is None
    assert remove_items(data_dir, "default", ["0002.png"]).dropped == []
    assert roll_back(data_dir, "default", "v000002") == manifest


def test_another_model_or_no_index_is_refused_before_anything_is_embedded(data_dir, pictures):
    with pytest.raises(IndexModelMismatchError):
        calibrate(data_dir, copies(pictures, 700), model=1)
    with pytest.raises(IndexNotFoundError):
        calibrate(data_dir / "nothing", copies(pictures, 700))
    assert not (data_dir / "nothing").exists()
    with pytest.raises(SourceError, match="k must be 1 to 100, got 101"):
        calibrate(data_dir, copies(pictures, 700), k=101)


def test_a_gallery_too_small_to_leave_an_original_out_is_refused(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    build(tmp_path, folder)
    with pytest.raises(SourceError, match="has 3 entries: a margin at k = 2 needs 4"):
        calibrate(tmp_path, copies(folder, 700), k=2)


# A list of pairs.


def write_pairs(folder, rows, columns=("path", "id")):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return LabelledPairs(folder / "pairs.csv")


def test_a_labelled_list_gives_positives_and_negatives_of_every_kind(data_dir, tmp_path):
    folder = write_folder(tmp_path / "queries", 330)
    write_folder(folder, 330, first=20_000)
    (folder / "black.png").write_bytes(black_picture())
    rows = [(f"{n:04d}.png", f"{n:04d}.png", "same") for n in range(330)]
    rows += [(f"{n}.png", "", "stranger") for n in range(20_000, 20_330)]
    rows += [("black.png", "", ""), ("0001.png", "0001.png", "")]
    pairs = write_pairs(folder, rows, ("path", "id", "kind"))
    calibration = calibrate(data_dir, pairs).calibration
    assert calibration.pairs == "labelled"
    assert calibration.source.endswith("pairs.csv")
    assert calibration.queries == 662
    assert calibration.pictures == 661, "the second query of one original is of the same group"
    measured = calibration.point("balanced").measured
    # Noise and its own copy: the same picture is found by a margin that no stranger has.
    assert measured["same"].hits == measured["same"].positives > 100
    assert measured["stranger"].positives == 0
    assert measured["stranger"].negatives > 100
    assert measured["same"].negatives == measured["same"].positives


BAD_LISTS = [
    ([], ("path", "id"), "lists no query"),
    ([("0000.png",)], ("path",), "wanted a header line with columns id and path"),
    ([("0000.png", "nope")], ("path", "id"), "line 2: no item 'nope' in the index"),
    ([("", "0000.png")], ("path", "id"), "line 2: wanted a path, got none"),
    ([("../in.png", "")], ("path", "id"), "line 2: path '../in.png' leaves the manifest's folder"),
    ([("/etc/passwd", "")], ("path", "id"), "leaves the manifest's folder"),
    ([("absent.png", "")], ("path", "id"), "line 2: 'absent.png': there is no such file"),
    ([("bad.png", "")], ("path", "id"), "bad.png cannot be used"),
    ([("0000.png", "", "a\tb")], ("path", "id", "kind"), "a kind is 1 to 64 printable"),
    ([("0000.png", "", "x" * 65)], ("path", "id", "kind"), "a kind is 1 to 64 printable"),
    ([("0000.png", "0000.png")], ("path", "id"), "no operating point can be claimed"),
    ([("0000.png", "0000.png", "extra")], ("path", "id"), "line 2: wanted 2 values"),
]


@pytest.mark.parametrize(("rows", "columns", "message"), BAD_LISTS, ids=lambda x: str(x)[:30])
def test_a_list_that_cannot_be_used_is_refused_by_line_and_changes_nothing(
    data_dir, tmp_path, rows, columns, message
):
    folder = write_folder(tmp_path / "queries", 1)
    (folder / "bad.png").write_bytes(b"bad")
    with pytest.raises(SourceError) as refusal:
        calibrate(data_dir, write_pairs(folder, rows, columns))
    assert message in str(refusal.value)
    assert verify_index(data_dir, "default").version == "v000001"


# Processes.


PROGRAM = """
import sys
from pathlib import Path
from index_tools import MAX_BYTES, TinyEmbedder
from index_builder.calibrate import calibrate_index
from index_builder.calibration_queries import SyntheticPairs
from index_builder.sources import open_source
from model.progress import Progress
pairs = SyntheticPairs(
    lambda: open_source(Path(sys.argv[2]), max_bytes=MAX_BYTES), source="in", queries=620
)
embedder = TinyEmbedder(0, float(sys.argv[3]))
calibrate_index(Path(sys.argv[1]), "default", pairs, embedder, progress=Progress(sys.stdout))
"""


def start(data_dir, source, seconds_a_batch):
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(data_dir), str(source), str(seconds_a_batch)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


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
        process.communicate()
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
        assert process.stdout.readline().startswith(b"looking for pictures of the index")
        with pytest.raises(IndexLockedError):
            calibrate(data_dir, copies(pictures, 700))
        with GalleryIndex.open(data_dir) as index:
            assert index.version == "v000001"
    finally:
        process.kill()
        process.communicate()
    assert remove_items(data_dir, "default", ["0000.png"]).manifest.version == "v000002"
