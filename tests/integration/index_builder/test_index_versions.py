"""Versions of an index: when one is made, which is served, which may go."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from index_tools import build, ids_of, picture, some, write_folder

from index_builder.build.build import remove_items
from index_builder.build.maintenance import prune, roll_back, verify_index
from index_builder.errors import IndexFormatError, IndexNotFoundError, ItemNotFoundError
from index_builder.search.gallery import GalleryIndex, current_version


def test_a_build_of_what_is_served_writes_nothing(tmp_path):
    folder = write_folder(tmp_path / "in", 30)
    shutil.copy(folder / "0003.png", folder / "copy.png")
    (folder / "bad.png").write_bytes(b"bad")
    first = build(tmp_path, folder)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "indexes/default").rglob("*")}
    for union in (False, True):
        report = build(tmp_path, folder, union=union)
        assert some(report.counts) == {
            "unchanged": 31,
            "reused": 31,
            "quarantined": 1,
            "duplicates": 1,
        }
        assert (report.manifest, report.changed) == (first.manifest, False)
        assert [q.path for q in report.quarantined] == ["bad.png"]
    root = tmp_path / "indexes/default"
    after = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    # The journal came and went.
    assert {p for p in before if before[p] != after.get(p)} <= {root, root / "lock"}
    assert set(after) == set(before)


@pytest.mark.parametrize(
    "change", ["quarantine", "reason", "metadata", "model", "rollback", "moved"]
)
def test_the_least_change_is_a_new_version(tmp_path, change):
    folder = write_folder(tmp_path / "in", 3)
    (folder / "bad.png").write_bytes(b"bad")
    manifest = tmp_path / "m.jsonl"

    def write(flag):
        lines = [{"id": p.name, "path": f"in/{p.name}", "flag": flag} for p in folder.iterdir()]
        manifest.write_text("\n".join(map(json.dumps, lines)))

    write(1)
    build(tmp_path, manifest)
    if change == "quarantine":
        (folder / "bad.png").unlink()
    elif change == "reason":
        (folder / "bad.png").write_bytes(b"")
    elif change == "moved":
        (folder / "0001.png").rename(folder / "0009.png")
    elif change == "rollback":
        write(2)
        build(tmp_path, manifest)
        roll_back(tmp_path, "default", "v000001")
    # To Python, true and 1 are equal.
    write({"metadata": True, "rollback": 2}.get(change, 1))
    report = build(tmp_path, manifest, seed=change == "model")
    assert report.changed
    assert current_version(tmp_path) == ("v000003" if change == "rollback" else "v000002")
    verify_index(tmp_path, "default")
    assert not build(tmp_path, manifest, seed=change == "model").changed


def test_an_unchanged_build_over_a_damaged_version_writes_a_new_one(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    build(tmp_path, folder)
    (tmp_path / "indexes/default/CURRENT").write_text("v000001 " + "0" * 64 + "\n")
    assert build(tmp_path, folder).manifest.version == "v000002"
    verify_index(tmp_path, "default")


def test_a_build_over_a_damaged_version_repairs_the_index(tmp_path):
    folder = write_folder(tmp_path / "in", 4)
    build(tmp_path, folder)
    vectors = tmp_path / "indexes/default/versions/v000001/vectors.npy"
    raw = bytearray(vectors.read_bytes())
    raw[-1] ^= 1
    vectors.write_bytes(raw)
    with pytest.raises(IndexFormatError, match=r"v000001/vectors\.npy is damaged"):
        build(tmp_path, folder, union=True)
    report = build(tmp_path, folder)
    assert report.manifest.counts["embedded"] == 4
    verify_index(tmp_path, "default")


def test_nothing_of_a_build_stays_but_its_version(tmp_path):
    build(tmp_path, write_folder(tmp_path / "in", 3))
    root = Path(tmp_path / "indexes/default")
    assert sorted(p.name for p in root.iterdir()) == ["CURRENT", "lock", "versions"]
    assert [p.name for p in (root / "versions").iterdir()] == ["v000001"]


def test_remove_takes_all_or_nothing(tmp_path):
    build(tmp_path, write_folder(tmp_path / "in", 5))
    with pytest.raises(
        ItemNotFoundError, match=r"no item 'nope' in the index; nothing was removed"
    ):
        remove_items(tmp_path, "default", ["0001.png", "nope"])
    assert current_version(tmp_path) == "v000001"
    report = remove_items(tmp_path, "default", ["0001.png", "0003.png", "0001.png"])
    assert some(report.manifest.counts) == {"removed": 2, "unchanged": 3}
    assert ids_of(tmp_path) == ["0000.png", "0002.png", "0004.png"]
    verify_index(tmp_path, "default")
    with pytest.raises(IndexNotFoundError, match="no index 'other'"):
        remove_items(tmp_path, "other", ["x"])
    assert not (tmp_path / "indexes" / "other").exists()


def test_rollback_serves_an_older_version_and_names_are_never_used_twice(tmp_path):
    folder = write_folder(tmp_path / "in", 1)
    for n in range(1, 4):
        (folder / f"more{n}.png").write_bytes(picture(n))
        build(tmp_path, folder)
    assert roll_back(tmp_path, "default").version == "v000002"
    assert roll_back(tmp_path, "default").version == "v000001"
    with pytest.raises(IndexNotFoundError, match="no version older than v000001"):
        roll_back(tmp_path, "default")
    assert roll_back(tmp_path, "default", "v000003").version == current_version(tmp_path)
    with pytest.raises(IndexNotFoundError, match=r"no version v000009; it has: v000001, v000002"):
        roll_back(tmp_path, "default", "v000009")
    roll_back(tmp_path, "default", "v000001")
    assert build(tmp_path, folder).manifest.version == "v000004"


def test_rollback_refuses_a_damaged_version_and_repairs_a_damaged_current(tmp_path):
    folder = write_folder(tmp_path / "in", 2)
    build(tmp_path, folder)
    build(tmp_path, write_folder(folder, 3))
    vectors = tmp_path / "indexes/default/versions/v000001/vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(IndexFormatError, match=r"v000001/vectors\.npy is damaged"):
        roll_back(tmp_path, "default")
    assert current_version(tmp_path) == "v000002"
    (tmp_path / "indexes/default/CURRENT").write_bytes(b"")
    with pytest.raises(IndexFormatError, match="CURRENT"):
        roll_back(tmp_path, "default")
    assert roll_back(tmp_path, "default", "v000002").version == current_version(tmp_path)


def test_prune_spares_the_served_the_newest_and_what_is_being_read(tmp_path):
    folder = write_folder(tmp_path / "in", 2)
    for count in range(2, 8):
        build(tmp_path, write_folder(folder, count))
    roll_back(tmp_path, "default", "v000002")
    reader = GalleryIndex.open(tmp_path, version="v000003")
    assert prune(tmp_path, "default", 2) == (["v000001", "v000004"], ["v000003"])
    assert reader.search(np.ones((1, 24)), 1)[0].rows.size == 1
    reader.close()
    reader.close()
    assert prune(tmp_path, "default", 1) == (["v000003", "v000005"], [])
    versions = tmp_path / "indexes/default/versions"
    assert sorted(p.name for p in versions.iterdir()) == ["v000002", "v000006"]
    verify_index(tmp_path, "default")
