"""Calibration on real files with a small real embedder: what is measured, and on which queries."""

import io
import shutil
import zipfile

import numpy as np
import pytest
from calibrate_tools import LIMITS, PICTURES, calibrate, copies
from index_tools import TinyEmbedder, build, picture, saved_again, write_folder
from PIL import Image

from index_builder.build.maintenance import verify_index
from index_builder.calibration.measure import TARGETS
from index_builder.calibration.queries import embedded_queries, is_held_out
from index_builder.errors import IndexModelMismatchError, IndexNotFoundError, SourceError
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from index_builder.store.rates import upper_bound
from model.certificate.statistic import COSINE_WEIGHTS
from model.cli.progress import Progress
from model.data.edits import EDIT_KINDS

pytestmark = pytest.mark.without_shape_checks


def brute_force(index, queries, k, weights):
    """Each query's statistic of its original, and the largest of any other entry without it.

    By weight of the cosine; 0 of an original that is not among the first k.
    """
    gallery = index.vectors.astype(np.float64)
    for query in queries:
        own = query.label.entry
        scores = gallery @ query.vector

        length = np.linalg.norm(query.vector)

        def statistics(entry, gone=(), scores=scores, length=length):
            apart = np.linalg.norm(gallery[entry] - gallery, axis=1)
            with np.errstate(invalid="ignore"):
                radii = (scores[entry] - scores) / apart
            radii[[entry, *gone]] = np.inf
            return (np.sort(radii)[k - 1] + np.array(weights) * scores[entry]) / length

        gone = () if own is None else (own,)
        order = np.argsort(-scores)
        best = [entry for entry in order[: k + 1] if entry not in gone][:k]
        alarms = np.max([statistics(entry, gone) for entry in best], axis=0)
        is_in = own is not None and own in order[:k]
        hits = statistics(own) if is_in else np.zeros(len(weights))
        yield [
            (query.label, None if own is None else hit, alarm)
            for hit, alarm in zip(hits, alarms, strict=True)
        ]


@pytest.mark.parametrize("k", [1, 3])
def test_the_rates_are_those_of_brute_force_on_the_half_not_chosen_by(data_dir, pictures, k):
    """The measuring goes through retrieved candidates and their tail bound."""
    report = calibrate(data_dir, copies(pictures, 640), k=k, seed=5)
    assert (report.calibration.k, report.calibration.seed) == (k, 5)
    assert [one.cosine_weight for one in report.cosine_weights] == list(COSINE_WEIGHTS)
    best = max(report.cosine_weights, key=lambda one: one.recall)
    assert best.cosine_weight == report.calibration.cosine_weight
    assert best.operating_points == report.calibration.operating_points
    with GalleryIndex.open(data_dir) as index:
        jobs, total, *_ = copies(pictures, 640).jobs(index, 5, LIMITS, Progress())
        batches = embedded_queries(jobs, TinyEmbedder(), LIMITS)
        queries = [query for batch in batches for query in batch]
        assert len(queries) == total == report.calibration.queries == 640
        truths = list(brute_force(index, queries, k, COSINE_WEIGHTS))
    for one, truth in zip(report.cosine_weights, zip(*truths, strict=True), strict=True):
        check_rates(report, one, truth)


def check_rates(report, tried, truth):
    """What a calibration says of one weight of the cosine."""
    (point,) = tried.operating_points
    chosen_on = [alarm for label, _, alarm in truth if not is_held_out(5, label.group)]
    measured = [one for one in truth if is_held_out(5, one[0].group)]
    assert report.calibration.chosen_on == len(chosen_on)
    allowed = int(sum(alarm >= point.threshold for alarm in chosen_on))
    assert upper_bound(allowed, len(chosen_on)) <= 0.01 < upper_bound(allowed + 1, len(chosen_on))
    chosen_by = [
        hit >= point.threshold for label, hit, _ in truth if not is_held_out(5, label.group)
    ]
    assert 0.99 * np.mean(chosen_by) <= tried.recall <= np.mean(chosen_by)
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
    assert [one.name for one in tried.left_out] == ["strict"]
    if tried.cosine_weight != report.calibration.cosine_weight:
        return
    worst = max(truth, key=lambda one: one[2])
    assert report.alarms[0].statistic == pytest.approx(worst[2], abs=1e-6)
    assert report.alarms[0].margin <= report.alarms[0].statistic
    assert worst[0].name == report.alarms[0].query
    assert worst[0].name.split(" ")[0] != report.alarms[0].id


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


def test_queries_are_of_every_collection_that_the_index_was_made_of(tmp_path):
    first, second = write_folder(tmp_path / "a", 3), write_folder(tmp_path / "b", 2, first=3)
    build(tmp_path, first)
    build(tmp_path, second, union=True)

    def paths(*sources):
        with GalleryIndex.open(tmp_path) as index:
            jobs, total, groups, _ = copies(sources[0], 5, *sources[1:]).jobs(
                index, 0, LIMITS, Progress()
            )
            assert total == 5
            return {label.name.split(" ")[0] for job in jobs for label in job.labels}, len(groups)

    assert paths(first) == ({"0000.png", "0001.png", "0002.png"}, 3)
    assert paths(first, second) == ({f"{number:04d}.png" for number in range(5)}, 5)


def test_kinds_are_in_balance_and_as_many_pictures_as_possible_take_part(data_dir, pictures):
    with GalleryIndex.open(data_dir) as index:
        for wanted, expected in ((60, 60), (1000, 1000), (10**6, 12 * PICTURES)):
            jobs, total, _, found = copies(pictures, wanted).jobs(index, 0, LIMITS, Progress())
            assert (f"--queries {wanted} takes {wanted}" in found) is (wanted < PICTURES)
            labels = [label for job in jobs for label in job.labels]
            assert len(labels) == total == expected
            assert len({label.group for label in labels}) == min(wanted, PICTURES)
            counts = [sum(label.kind == kind for label in labels) for kind in EDIT_KINDS]
            assert max(counts) - min(counts) <= len(EDIT_KINDS)
            assert len({(label.group, label.kind) for label in labels}) == len(labels)


@pytest.mark.parametrize("pictures_given", [40, 590])
def test_too_few_pictures_claim_nothing_and_change_nothing(data_dir, tmp_path, pictures_given):
    few = write_folder(tmp_path / "few", pictures_given)
    told = tmp_path / "told"
    with told.open("w") as stream, pytest.raises(SourceError) as refusal:
        calibrate(data_dir, copies(few, 600), progress=Progress(stream))
    assert "measuring" not in told.read_text()  # the number of pictures is known before
    message = str(refusal.value)
    found = f"{pictures_given} of {PICTURES} entries, found among {pictures_given} files"
    assert f"no operating point can be claimed from {found} (balanced" in message
    assert "(--pairs)" in message
    assert "balanced: 1 % cannot be claimed with 95 % confidence from" in message
    assert "it takes 299: give 666 pictures or more" in message
    assert "it takes 2995: give 6195 pictures or more" in message
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
    # Not even a copy of the very bytes would match.
    assert report.self_matches.pictures == 660
    assert report.self_matches.unmatched == {"balanced": 660}


def test_one_picture_saved_in_many_files_is_one_picture(tmp_path):
    """Other bytes, equal pixels: 720 files of 60 drawings are one entry each and prove nothing."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(60):
        for number in range(12):
            data = saved_again(picture(seed), number)
            (folder / f"{seed:02d}-{number:02d}.png").write_bytes(data)
    build(tmp_path, folder)
    with GalleryIndex.open(tmp_path) as index:
        jobs, total, *_ = copies(folder, 6400).jobs(index, 0, LIMITS, Progress())
        groups = {label.group for job in jobs for label in job.labels}
        assert (index.size, total, len(groups)) == (60, 60 * len(EDIT_KINDS), 60)
    with pytest.raises(
        SourceError,
        match=r"1 % cannot be claimed .* from at most (2\d|30) pictures in the smaller half",
    ):
        calibrate(tmp_path, copies(folder, 6400))
    assert verify_index(tmp_path, "default").version == "v000001"


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
        jobs, total, *_ = copies(source, queries).jobs(index, 0, LIMITS, Progress())
        found = {
            (label.group, label.kind, label.entry): job.data for job in jobs for label in job.labels
        }
    assert len(found) == total
    return found


def test_an_archive_is_read_twice(data_dir, tmp_path, pictures):
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(pictures.iterdir()):
            file.write(path, path.name)
    assert labels_of(data_dir, archive, 900) == labels_of(data_dir, pictures, 900)


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
