"""Indexes whose entries own a vector for each view of a picture, and those of older releases."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from index_tools import CALIBRATION, TinyEmbedder, build, make_old, saved_again, some, write_folder
from PIL import Image

from index_builder.build.build import remove_items
from index_builder.build.maintenance import export_vectors, roll_back, verify_index
from index_builder.build.writer import seal_calibration, writing
from index_builder.errors import SourceError
from index_builder.search.certified import certified_search
from index_builder.search.gallery import GalleryIndex
from index_builder.store import layout
from model.certificate.match import MatchRule
from model.certificate.search import certify_search
from model.pixels.resize import resize_operator
from model.pixels.views import VIEW_SETS, VIEWS

MIRROR = ("whole", "mirror", "move-left-up")


class Query:
    """An embedding as a search wants it."""

    gain, forward_error = 1.0, 1e-9

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = vector


def embedded(pixels: np.ndarray) -> np.ndarray:
    return TinyEmbedder().embed_pixels(resize_operator(*pixels.shape[:2], 8).apply(pixels)[None])[0]


def pixels_of(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def test_an_entry_owns_the_embedding_of_each_view_and_its_norm(tmp_path: Path):
    folder = write_folder(tmp_path / "in", 9)
    manifest = build(tmp_path, folder, views=MIRROR).manifest
    assert (manifest.entries, manifest.vector_count, manifest.views) == (9, 27, MIRROR)
    verify_index(tmp_path, "default")
    with GalleryIndex.open(tmp_path) as index:
        assert (index.size, index.vector_count, index.most_views) == (9, 27, 3)
        for number, path in enumerate(sorted(folder.iterdir())):
            rows = index.rows.of_entries(np.array([number]))
            assert index.views(rows) == list(MIRROR)
            for row, name in zip(rows, MIRROR, strict=True):
                raw = embedded(VIEWS[name].of(pixels_of(path)))
                norm = np.linalg.norm(raw)
                assert index.rows.embedding_norms[row] == pytest.approx(norm, rel=1e-12)
                assert index.vectors[row] == pytest.approx(raw / norm, abs=1e-7)


def test_equal_vectors_of_one_picture_are_kept_once_and_equal_pictures_are_one_entry(
    tmp_path: Path,
):
    folder = write_folder(tmp_path / "in", 2)
    plain = io.BytesIO()
    Image.new("RGB", (12, 12), "red").save(plain, "PNG")
    (folder / "red.png").write_bytes(plain.getvalue())
    (folder / "same.png").write_bytes(saved_again((folder / "0001.png").read_bytes(), 1))
    manifest = build(tmp_path, folder, views=("whole", "mirror")).manifest
    assert (manifest.ids, manifest.entries, manifest.vector_count) == (4, 3, 5)
    with GalleryIndex.open(tmp_path) as index:
        assert index.rows.entries.tolist() == [0, 0, 1, 1, 2]
        assert index.entry_by_id("same.png").duplicates == ["0001.png"]


def test_a_view_without_a_direction_is_left_out_and_a_picture_without_one_is_set_aside(
    tmp_path: Path,
):
    folder = write_folder(tmp_path / "in", 1)
    black = np.zeros((10, 10, 3), np.uint8)
    black[0, 0] = 255
    Image.fromarray(black).save(folder / "corner.png")
    Image.new("RGB", (10, 10)).save(folder / "dark.png")
    report = build(tmp_path, folder, views=("whole", "corner-right-bottom"))
    assert [(one.path, one.code) for one in report.quarantined] == [("dark.png", "zero_embedding")]
    with GalleryIndex.open(tmp_path) as index:
        assert index.rows.views.tolist() == [0, 1, 0]


def test_a_picture_without_borders_has_no_vector_for_its_trim(tmp_path: Path):
    folder = write_folder(tmp_path / "in", 1)
    letterboxed = np.zeros((300, 200, 3), np.uint8)
    letterboxed[50:250] = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(letterboxed).save(folder / "letterbox.png")
    Image.fromarray(letterboxed[50:250]).save(folder / "large.png")
    build(tmp_path, folder, views=("whole", "trimmed"))
    with GalleryIndex.open(tmp_path) as index:
        assert index.rows.entries.tolist() == [0, 1, 2, 2]
        trimmed = embedded(letterboxed[50:250])
        assert index.vectors[3] == pytest.approx(trimmed / np.linalg.norm(trimmed), abs=1e-7)


def test_views_stay_unless_others_are_wanted_and_a_union_wants_the_same(tmp_path: Path):
    folder, more = write_folder(tmp_path / "in", 4), write_folder(tmp_path / "more", 2, first=50)
    build(tmp_path, folder, views=MIRROR)
    assert some(build(tmp_path, folder).counts) == {"unchanged": 4, "reused": 4}
    added = build(tmp_path, more, union=True)
    assert added.manifest.views == MIRROR
    assert some(added.counts) == {"added": 2, "unchanged": 4, "embedded": 2}
    with pytest.raises(SourceError, match="views whole, mirror, move-left-up of each picture"):
        build(tmp_path, more, union=True, views=VIEW_SETS["none"])
    rebuilt = build(tmp_path, folder, views=VIEW_SETS["none"])
    assert rebuilt.manifest.vector_count == 4
    assert some(rebuilt.counts) == {"removed": 2, "unchanged": 4, "embedded": 4}
    assert remove_items(tmp_path, "default", ["0001.png"]).manifest.views == ("whole",)


def test_removing_leaves_the_other_entries_as_they_are(tmp_path: Path):
    build(tmp_path, write_folder(tmp_path / "in", 5), views=MIRROR)
    with GalleryIndex.open(tmp_path) as index:
        before = np.array(index.vectors), index.rows.embedding_norms
    remove_items(tmp_path, "default", ["0002.png"])
    verify_index(tmp_path, "default")
    with GalleryIndex.open(tmp_path) as index:
        for old, new in zip(before, (index.vectors, index.rows.embedding_norms), strict=True):
            assert np.array_equal(np.delete(old, [6, 7, 8], axis=0), new)
        assert index.rows.entries.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


@pytest.mark.parametrize("k", [1, 10])
def test_a_shallow_search_gives_the_answer_of_a_full_scan(tmp_path: Path, k: int):
    folder = write_folder(tmp_path / "in", 400)
    build(tmp_path, folder, views=MIRROR)
    rule = MatchRule(k=2, threshold=0.02)
    with GalleryIndex.open(tmp_path) as index:
        assert index.vector_count > 1024  # else every search is a full scan
        rng = np.random.default_rng(0)
        for number in range(12):
            seen = VIEWS["mirror"].of(pixels_of(folder / f"{number:04}.png"))
            vector = embedded(seen) + 0.02 * rng.standard_normal(24)
            (answer,) = certified_search(
                index, [Query(vector)], lipschitz_bound=1.0, k=k, rule=rule
            )
            proof, candidates = answer.certificate, answer.candidates
            scores = index.vectors.astype(float) @ vector
            of_entry = np.maximum.reduceat(scores, index.rows.starts[:-1])
            best = np.argsort(-of_entry, kind="stable")[:k]
            assert candidates.numbers[proof.positions].tolist() == best.tolist()
            assert index.views(candidates.rows[proof.positions])[0] == "mirror"
            assert index.entries(best)[0].id == f"{number:04}.png"
            assert proof.certified_radii[0] > 0.0
            whole = certify_search(
                vector,
                index.everything(),
                k=k,
                lipschitz_bound=1.0,
                gain=1.0,
                forward_error=1e-9,
                rule=rule,
            )
            assert proof.verdicts.matches.tolist() == whole.verdicts.matches.tolist()
            assert proof.verdicts.matches[0]
            assert (proof.certified_radii <= whole.certified_radii * (1.0 + 1e-9)).all()
            same = whole.certified_radii[proof.exact]
            assert proof.certified_radii[proof.exact] == pytest.approx(same, rel=1e-6)
            assert not candidates.are_all


def test_an_export_is_enough_to_recompute_a_radius(tmp_path: Path):
    folder = write_folder(tmp_path / "in", 30)
    build(tmp_path, folder, views=MIRROR)
    embedder = TinyEmbedder()
    embedder.output_scales = np.linspace(0.5, 1.0, 24)
    export_vectors(tmp_path, "default", tmp_path / "out.npz", embedder)
    arrays = np.load(tmp_path / "out.npz", allow_pickle=False)
    vector = embedded(pixels_of(folder / "0007.png"))
    with GalleryIndex.open(tmp_path) as index:
        (answer,) = certified_search(
            index,
            [Query(vector)],
            lipschitz_bound=1.0,
            output_scales=embedder.output_scales,
            k=1,
        )
    vectors, items = arrays["vectors"].astype(float), arrays["items"]
    own = np.flatnonzero(items == 7)
    assert arrays["ids"][7] == "0007.png"
    assert arrays["views"][own].tolist() == list(MIRROR)
    radii = {
        other: min(
            max(
                vector
                @ (vectors[a] - vectors[b])
                / np.linalg.norm(arrays["output_scales"] * (vectors[a] - vectors[b]))
                for a in own
            )
            for b in np.flatnonzero(items == other)
        )
        for other in set(items.tolist()) - {7}
    }
    assert answer.certificate.certified_radii[0] == pytest.approx(min(radii.values()), rel=1e-6)


def test_an_index_of_an_older_release_is_searched_calibrated_and_added_to(tmp_path: Path):
    folder = write_folder(tmp_path / "in", 6)
    build(tmp_path, folder)
    old = make_old(tmp_path)
    assert verify_index(tmp_path, "default") == old
    with GalleryIndex.open(tmp_path) as index:
        (answer,) = certified_search(
            index, [Query(embedded(pixels_of(folder / "0003.png")))], lipschitz_bound=1.0, k=2
        )
        assert index.entries(answer.candidates.numbers[answer.certificate.positions])[0].number == 3
        assert index.views(answer.candidates.rows) == ["whole"] * 6
    paths = layout.index_paths(tmp_path, "default")
    with writing(paths):
        calibrated = seal_calibration(paths, old, CALIBRATION)
    assert calibrated.schema == "lipsim-index-2"
    assert some(build(tmp_path, folder).counts) == {"unchanged": 6, "reused": 6}
    added = build(tmp_path, write_folder(tmp_path / "more", 1, first=9), union=True).manifest
    assert (added.schema, added.views) == ("lipsim-index-3", ("whole",))
    assert added.calibration is not None
    assert added.calibration.stale
    verify_index(tmp_path, "default")
    with GalleryIndex.open(tmp_path) as index:
        # Norms that the old version did not keep are not made up.
        assert np.isnan(index.rows.embedding_norms).tolist() == [True] * 6 + [False]
    assert roll_back(tmp_path, "default").schema == "lipsim-index-2"
    shutil.rmtree(paths.root)
