"""What a build makes of a collection."""

import csv
import hashlib
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from index_tools import (
    TinyEmbedder,
    black_picture,
    build,
    contents,
    ids_of,
    picture,
    some,
    write_folder,
)

from index_builder.build.maintenance import export_items, export_vectors, verify_index
from index_builder.errors import IndexModelMismatchError, SourceError
from index_builder.search.gallery import GalleryIndex, current_version, list_indexes
from index_builder.store.manifest import QUARANTINE, read_quarantine
from model.pixels.decode import DecodeLimits, decode_image
from model.pixels.resize import resize_operator
from model.pixels.views import VIEW_SETS


def test_a_folder_becomes_an_index_whose_rows_are_the_embeddings(tmp_path):
    folder = write_folder(tmp_path / "in", 40)
    report = build(tmp_path, folder)
    assert some(report.manifest.counts) == {"added": 40, "embedded": 40}
    embedder = TinyEmbedder()
    with GalleryIndex.open(tmp_path) as index:
        assert (index.size, index.dim, index.version) == (40, 24, "v000001")
        for entry in index.entries(range(40)):
            data = (folder / entry.id).read_bytes()
            image = decode_image(data)
            pixels = resize_operator(image.height, image.width, 8).apply(image.pixels)
            raw = embedder.embed_pixels(pixels[None])[0]
            assert np.array_equal(
                index.vectors[entry.number], (raw / np.linalg.norm(raw)).astype("f4")
            ) or np.allclose(
                index.vectors[entry.number], raw / np.linalg.norm(raw), atol=6e-8, rtol=0
            )
            assert entry.item.content_sha256 == hashlib.sha256(data).hexdigest()
            assert (entry.item.width, entry.item.height, entry.item.format) == (12, 12, "PNG")
            assert (
                index.items.thumbnail_by_content(entry.item.content_sha256)[:3] == b"\xff\xd8\xff"
            )
    assert list_indexes(tmp_path) == ["default"]
    assert verify_index(tmp_path, "default") == report.manifest


def test_a_build_makes_the_index_exactly_the_source_and_embeds_only_what_is_new(tmp_path):
    folder = write_folder(tmp_path / "in", 10)
    build(tmp_path, folder)
    (folder / "0000.png").unlink()
    (folder / "0001.png").write_bytes(picture(500))
    (folder / "0002.png").rename(folder / "renamed.png")
    (folder / "new.png").write_bytes(picture(501))
    report = build(tmp_path, folder)
    assert some(report.manifest.counts) == {
        "added": 2,
        "updated": 1,
        "unchanged": 7,
        "removed": 2,
        "embedded": 2,
        "reused": 8,
    }
    assert ids_of(tmp_path) == sorted(path.name for path in folder.iterdir())


def test_another_model_embeds_everything_again(tmp_path):
    folder = write_folder(tmp_path / "in", 5)
    build(tmp_path, folder)
    report = build(tmp_path, folder, seed=1)
    assert some(report.manifest.counts) == {"unchanged": 5, "embedded": 5}
    with pytest.raises(
        IndexModelMismatchError, match=r"made by model 0{15}.*rebuild it.*--checkpoint FILE"
    ):
        GalleryIndex.open(tmp_path, embedder_fingerprint=TinyEmbedder(2).fingerprint)
    with pytest.raises(IndexModelMismatchError, match="decode policy lipsim-decode-1"):
        GalleryIndex.open(tmp_path, decode_policy="lipsim-decode-2")
    with pytest.raises(IndexModelMismatchError, match="made by model"):
        build(tmp_path, folder, seed=2, union=True)


def test_equal_files_are_embedded_once_and_equal_vectors_become_one_entry(tmp_path):
    folder = write_folder(tmp_path / "in", 6)
    for name in ("0009.png", "sub/copy.png", "000.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "0003.png", folder / name)
    report = build(tmp_path, folder)
    assert some(report.manifest.counts) == {
        "added": 9,
        "embedded": 6,
        "reused": 3,
        "duplicates": 3,
    }
    with GalleryIndex.open(tmp_path) as index:
        assert (index.size, index.manifest.ids) == (6, 9)
        entry = index.entry_by_id("sub/copy.png")
        assert entry.duplicates == ["000.png", "0003.png", "0009.png"]
        [named] = index.entries([entry.number])
        assert (named.id, named.duplicates) == ("000.png", ["0003.png", "0009.png", "sub/copy.png"])
        assert named.number == 0
        assert [e.id for e in index.entries(range(6))] == sorted(index.items.first_ids())


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "csv", "jsonl"])
def test_every_kind_of_source_gives_the_same_index(tmp_path, kind):
    folder = write_folder(tmp_path / "in", 8)
    build(tmp_path / "folder", folder)
    source = folder.parent / f"source.{kind}"
    names = sorted((path.name for path in folder.iterdir()), reverse=True)
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for name in names:
                archive.write(folder / name, name)
    elif kind.startswith("tar"):
        with tarfile.open(source, "w:gz" if kind == "tar.gz" else "w") as archive:
            for name in names:
                archive.add(folder / name, f"./{name}")
    elif kind == "csv":
        source.write_text("id,path\n" + "".join(f"{name},in/{name}\n" for name in names))
    else:
        lines = (json.dumps({"id": name, "path": f"in/{name}"}) for name in names)
        source.write_text("\n".join(lines))
    build(tmp_path / "other", source)
    left, right = contents(tmp_path / "folder"), contents(tmp_path / "other")
    assert left[0] == right[0]
    assert np.array_equal(left[1], right[1])


def test_a_manifests_metadata_is_kept(tmp_path):
    write_folder(tmp_path / "in", 2)
    line = {"id": "x", "path": "in/0000.png", "tags": ["a", 1.5], "metadata": {"né": None}}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    build(tmp_path, tmp_path / "m.jsonl")
    with GalleryIndex.open(tmp_path) as index:
        assert index.entry_by_id("x").metadata == {"tags": ["a", 1.5], "né": None}
    line["tags"] = []
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    counts = build(tmp_path, tmp_path / "m.jsonl").manifest.counts
    assert some(counts) == {"updated": 1, "reused": 1}


def test_broken_files_are_quarantined_by_name_and_stop_nothing(tmp_path):
    folder = write_folder(tmp_path / "in", 20)
    broken = {
        "broken/empty.png": (b"", "empty"),
        "broken/text.jpg": (b"just text", "format"),
        "broken/cut.png": (picture(1, side=64)[:-200], "damaged"),
        "broken/black.png": (black_picture(), "zero_embedding"),
        "broken/black2.png": (black_picture(), "zero_embedding"),
        "broken/long.png": (picture(1) + bytes(1 << 20), "image_bytes"),
    }
    (folder / "broken").mkdir()
    for name, (data, _) in broken.items():
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("a note")
    (folder / "image.txt").write_bytes(picture(900))
    for _ in range(2):
        report = build(tmp_path, folder)
        assert {q.path: q.code for q in report.quarantined} == {
            n: c for n, (_, c) in broken.items()
        }
        counts = report.counts
        assert (counts["quarantined"], counts["skipped"], report.manifest.ids) == (6, 1, 21)
        assert counts["embedded"] + counts["reused"] == 21
    listed = tmp_path / "indexes/default/versions/v000001" / QUARANTINE
    assert [q.path for q in read_quarantine(listed)] == sorted(broken)
    assert all(q.reason for q in read_quarantine(listed))


@pytest.mark.parametrize("allowed", [0, 2])
def test_max_errors_stops_and_leaves_the_index_as_it_was(tmp_path, allowed):
    folder = write_folder(tmp_path / "in", 5)
    build(tmp_path, folder)
    for n in range(3):
        (folder / f"bad{n}.png").write_bytes(b"bad")
    with pytest.raises(SourceError, match=f"stopped at more than {allowed} bad files"):
        build(tmp_path, folder, max_errors=allowed)
    assert current_version(tmp_path) == "v000001"
    assert build(tmp_path, folder, max_errors=3).manifest.version == "v000002"


def test_a_source_without_items_does_not_empty_an_index_by_accident(tmp_path):
    build(tmp_path, write_folder(tmp_path / "in", 3))
    empty = write_folder(tmp_path / "empty", 0)
    with pytest.raises(SourceError, match="--allow-empty"):
        build(tmp_path, empty)
    assert len(ids_of(tmp_path)) == 3
    report = build(tmp_path, empty, allow_empty=True)
    assert (report.manifest.entries, report.manifest.counts["removed"]) == (0, 3)
    verify_index(tmp_path, "default")
    with GalleryIndex.open(tmp_path) as index:
        assert index.size == 0
        [candidates] = index.search(np.ones((1, 24)), 5)
        assert (candidates.rows.size, candidates.unseen_score) == (0, -np.inf)
    assert export_vectors(tmp_path, "default", tmp_path / "e.npz", TinyEmbedder()) == {
        "entries": 0,
        "vectors": 0,
        "output_scales": True,
    }
    assert np.load(tmp_path / "e.npz", allow_pickle=False)["vectors"].shape == (0, 24)


def test_nothing_to_add_is_an_error_and_not_unchanged(tmp_path):
    """An unmounted disk looks like that."""
    build(tmp_path, write_folder(tmp_path / "in", 3))
    with pytest.raises(SourceError, match="gives no item; nothing was changed"):
        build(tmp_path, write_folder(tmp_path / "empty", 0), union=True)
    assert current_version(tmp_path) == "v000001"


def test_add_is_a_union_in_which_new_content_wins_and_bad_content_does_not(tmp_path):
    build(tmp_path, write_folder(tmp_path / "a", 6))
    more = write_folder(tmp_path / "b", 3, first=100)
    (more / "0001.png").write_bytes(picture(700))
    (more / "0002.png").write_bytes(b"broken")
    report = build(tmp_path, more, union=True)
    assert some(report.manifest.counts) == {
        "added": 3,
        "updated": 1,
        "unchanged": 5,
        "embedded": 4,
        "quarantined": 1,
    }
    with GalleryIndex.open(tmp_path) as index:
        by_id = {item.id: item.content_sha256 for item in index.items.items()}
    assert by_id["0001.png"] == hashlib.sha256(picture(700)).hexdigest()
    assert by_id["0002.png"] == hashlib.sha256(picture(2)).hexdigest()


def test_adding_in_any_order_gives_the_index_of_one_build(tmp_path):
    everything = write_folder(tmp_path / "all", 12)
    build(tmp_path / "one", everything)
    for first in (8, 0, 4):
        part = write_folder(tmp_path / f"part{first}", 4, first=first)
        build(tmp_path / "three", part, union=True)
    left, right = contents(tmp_path / "one"), contents(tmp_path / "three")
    assert left[0] == right[0]
    assert np.array_equal(left[1], right[1])


def test_the_quarantine_list_of_a_union_keeps_what_was_not_read_again(tmp_path):
    folder = write_folder(tmp_path / "a", 2)
    (folder / "x.png").write_bytes(b"bad")
    (folder / "y.png").write_bytes(b"bad")
    build(tmp_path, folder)
    other = write_folder(tmp_path / "b", 1, first=50)
    (other / "y.png").write_bytes(picture(60))
    build(tmp_path, other, union=True)
    listed = tmp_path / "indexes/default/versions/v000002" / QUARANTINE
    assert [q.path for q in read_quarantine(listed)] == ["x.png"]


def test_an_export_holds_every_entry_in_order_and_loads_without_pickle(tmp_path):
    folder = write_folder(tmp_path / "in", 7)
    shutil.copy(folder / "0002.png", folder / "z\u00e9\u4e2d.png")
    build(tmp_path, folder)
    exported = export_vectors(tmp_path, "default", tmp_path / "out.npz", TinyEmbedder())
    assert exported == {"entries": 7, "vectors": 7, "output_scales": True}
    arrays = np.load(tmp_path / "out.npz", allow_pickle=False)
    names = ["embedding_norms", "ids", "items", "output_scales", "vectors", "views"]
    assert sorted(arrays) == names
    assert arrays["ids"].dtype.kind == "U"
    assert arrays["ids"].tolist() == [f"{n:04d}.png" for n in range(7)]
    assert arrays["vectors"].dtype == np.float32
    with GalleryIndex.open(tmp_path) as index:
        assert np.array_equal(arrays["vectors"], index.vectors)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".tmp")] == []


def cut_picture():
    """A JPEG that ends early."""
    return picture(7, side=64, file_format="JPEG")[:-300]


ACCEPTING = DecodeLimits(accept_truncated=True)


def test_a_cut_picture_taken_in_by_accept_is_quarantined_by_refuse_and_comes_back(tmp_path):
    folder = write_folder(tmp_path / "in", 2)
    (folder / "cut.jpg").write_bytes(cut_picture())
    accepted = build(tmp_path, folder, limits=ACCEPTING)
    assert some(accepted.counts) == {"added": 3, "embedded": 3}
    with GalleryIndex.open(tmp_path) as index:
        assert index.entry_by_id("cut.jpg").item.format == "JPEG (truncated)"
        assert index.entry_by_id("0000.png").item.format == "PNG"
    assert some(build(tmp_path, folder, limits=ACCEPTING).counts) == {"unchanged": 3, "reused": 3}

    refused = build(tmp_path, folder)
    fresh = build(tmp_path / "fresh", folder)
    assert some(refused.counts) == {"unchanged": 2, "reused": 2, "removed": 1, "quarantined": 1}
    assert refused.quarantined == fresh.quarantined
    assert refused.quarantined[0].path == "cut.jpg"
    assert ids_of(tmp_path) == ids_of(tmp_path / "fresh")

    again = build(tmp_path, folder, limits=ACCEPTING)
    assert some(again.counts) == {"added": 1, "embedded": 1, "unchanged": 2, "reused": 2}
    assert again.manifest.files == accepted.manifest.files


def test_a_cut_picture_in_the_journal_is_no_way_around_refuse(tmp_path):
    folder = write_folder(tmp_path / "in", 200)
    (folder / "0-cut.jpg").write_bytes(cut_picture())
    (folder / "empty.png").touch()
    with pytest.raises(SourceError, match="more than 0 bad files"):
        build(tmp_path, folder, limits=ACCEPTING, max_errors=0)
    report = build(tmp_path, folder)
    assert report.counts["reused"] > 0
    assert [entry.path for entry in report.quarantined] == ["0-cut.jpg", "empty.png"]
    assert len(ids_of(tmp_path)) == 200


def test_formats_beyond_the_default_need_leave(tmp_path):
    folder = write_folder(tmp_path / "in", 1)
    (folder / "b.bmp").write_bytes(picture(5, file_format="BMP"))
    assert build(tmp_path, folder).manifest.counts["quarantined"] == 1
    limits = DecodeLimits(formats=DecodeLimits().formats | {"BMP"})
    assert build(tmp_path, folder, limits=limits).manifest.counts["quarantined"] == 0


def test_an_export_to_text_holds_every_id_with_its_metadata(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    shutil.copy(folder / "0001.png", folder / "again.png")
    (folder / "list.jsonl").write_text(
        "".join(
            json.dumps({"path": name, "note": f'"{name}",\n'}) + "\n"
            for name in ("0000.png", "0001.png", "0002.png", "again.png")
        )
    )
    build(tmp_path, folder / "list.jsonl", views=VIEW_SETS["mirror"])
    counts = {"entries": 3, "ids": 4}
    assert export_items(tmp_path, "default", tmp_path / "out.jsonl") == counts
    assert export_items(tmp_path, "default", tmp_path / "out.csv") == counts
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one["id"] for one in lines] == ["0000.png", "0001.png", "0002.png", "again.png"]
    assert [one["entry"] for one in lines] == [0, 1, 2, 1]
    assert all(one["metadata"] == {"note": f'"{one["id"]}",\n'} for one in lines)
    with GalleryIndex.open(tmp_path) as index:
        for one in lines:
            rows = index.rows.of_entries(np.array([one["entry"]]))
            assert list(one["vectors"]) == index.views(rows)
            assert np.array_equal(np.float32(list(one["vectors"].values())), index.vectors[rows])
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, line in zip(rows, lines, strict=True):
        del line["vectors"]
        assert {**row, "metadata": json.loads(row["metadata"])} == {
            name: value if name == "metadata" else str(value) for name, value in line.items()
        }
