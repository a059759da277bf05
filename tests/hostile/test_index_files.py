import fcntl
import os
import random
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from index_tools import build, write_folder

from index_builder.build.maintenance import verify_index
from index_builder.errors import GalleryIndexError, IndexFormatError
from index_builder.search.gallery import GalleryIndex
from index_builder.store.manifest import read_manifest


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("pristine")
    folder = write_folder(root / "in", 12)
    (folder / "bad.png").write_bytes(b"bad")
    build(root, folder)
    return root / "indexes"


@pytest.fixture
def data_dir(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "indexes")
    return tmp_path


FILES = ["manifest.json", "vectors.npy", "items.sqlite", "thumbnails.sqlite", "quarantine.jsonl"]
FILES += ["columns.sqlite"]


def version_of(data_dir):
    return data_dir / "indexes/default/versions/v000001"


def refused(data_dir, name):
    """Both the reader and `verify` refuse the index, and say which file it is."""
    for use in (lambda: GalleryIndex.open(data_dir), lambda: verify_index(data_dir, "default")):
        with pytest.raises(GalleryIndexError) as refusal:
            use()
        assert name in str(refusal.value)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_in_a_file_is_refused_by_name(data_dir, name):
    path = version_of(data_dir) / name
    raw = bytearray(path.read_bytes())
    dice = random.Random(name)
    for position in [0, len(raw) - 1, *(dice.randrange(len(raw)) for _ in range(40))]:
        bit = 1 << dice.randrange(8)
        raw[position] ^= bit
        path.write_bytes(raw)
        refused(data_dir, name)
        raw[position] ^= bit
    path.write_bytes(raw)
    GalleryIndex.open(data_dir).close()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["truncated", "longer", "empty", "missing", "folder"])
def test_a_file_of_another_length_or_none_is_refused_by_name(data_dir, name, change):
    path = version_of(data_dir) / name
    raw = path.read_bytes()
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "missing":
        path.write_bytes({"truncated": raw[:-1], "longer": raw + b"\0", "empty": b""}[change])
    refused(data_dir, name)


def test_a_manifest_that_claims_rows_nearer_to_unit_norm_than_they_are_is_not_believed(data_dir):
    """Its own seal is made to fit: only measuring the rows can tell."""
    path = version_of(data_dir) / "manifest.json"
    with GalleryIndex.open(data_dir) as index:
        measured, vectors = index.norm_deviation, index.vectors.astype(np.float64)
    worst = np.abs(np.sqrt((vectors**2).sum(axis=1)) - 1.0).max()
    assert measured >= worst > 1e-10
    lying = replace(read_manifest(path.parent), norm_deviation=0.0)
    path.write_bytes(lying.to_bytes())
    with GalleryIndex.open(data_dir, version="v000001") as index:
        assert index.manifest.norm_deviation == 0.0
        assert index.norm_deviation == measured
        assert index.everything().norm_deviation == measured
        assert index.search(np.ones((1, index.dim)), 3)[0].norm_deviation == measured


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [*FILES, "CURRENT"])
def test_a_pipe_in_a_files_place_is_refused_and_never_waited_for(tmp_path, name):
    # Nothing is quarantined: an empty list has the size of a pipe.
    build(tmp_path, write_folder(tmp_path / "in", 3))
    path = (
        version_of(tmp_path) / name if name != "CURRENT" else tmp_path / "indexes/default/CURRENT"
    )
    path.unlink()
    os.mkfifo(path)
    refused(tmp_path, name)


@pytest.mark.parametrize("name", [*FILES, "CURRENT", "versions", "versions/v000001"])
def test_a_link_inside_an_index_is_refused_and_what_it_leads_to_is_not_quoted(
    data_dir, tmp_path, name
):
    inside = "versions/v000001/" + name if name in FILES else name
    path, elsewhere = data_dir / "indexes/default" / inside, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    refused(data_dir, "link, which is not followed")
    if elsewhere.is_file():
        elsewhere.write_text("a stranger's secret")
        for use in (lambda: GalleryIndex.open(data_dir), lambda: verify_index(data_dir, "default")):
            with pytest.raises(IndexFormatError) as refusal:
                use()
            assert "secret" not in str(refusal.value)


def test_a_damaged_current_is_not_quoted(data_dir):
    (data_dir / "indexes/default/CURRENT").write_text("a stranger's secret")
    with pytest.raises(IndexFormatError, match="got 19 other bytes") as refusal:
        GalleryIndex.open(data_dir)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("name", ["versions", "lock", "journal.sqlite"])
def test_a_writer_touches_nothing_behind_a_link_inside_an_index(data_dir, tmp_path, name):
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    (home / "notes").write_text("precious")
    path = data_dir / "indexes/default" / name
    target = home if name == "versions" else home / "notes"
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(target)
    with pytest.raises(IndexFormatError, match="link"):
        build(data_dir, write_folder(tmp_path / "more", 1))
    assert sorted(entry.name for entry in home.iterdir()) == [".config", "notes"]
    assert (home / "notes").read_text() == "precious"


@pytest.mark.parametrize("linked", ["", "indexes", "indexes/default"])
def test_an_operator_may_link_an_index_or_the_data_directory(pristine, tmp_path, linked):
    shutil.copytree(pristine, tmp_path / "disk/indexes")
    link = tmp_path / "data" / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "disk" / linked)
    GalleryIndex.open(tmp_path / "data").close()
    assert build(tmp_path / "data", write_folder(tmp_path / "in", 2, first=50)).changed
    assert verify_index(tmp_path / "data", "default").version == "v000002"


def test_a_strangers_lock_does_not_stall_a_reader(data_dir):
    with (version_of(data_dir) / "manifest.json").open("rb") as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        started = time.monotonic()
        with GalleryIndex.open(data_dir) as index:
            assert index.size == 12
        assert time.monotonic() - started < 5


def test_a_lock_held_for_a_moment_is_waited_for(data_dir):
    """As `prune` holds it: the reader has its own lock afterwards."""
    manifest = version_of(data_dir) / "manifest.json"
    with manifest.open("rb") as pruning, manifest.open("rb") as later:
        fcntl.flock(pruning, fcntl.LOCK_EX)
        release = threading.Timer(0.02, fcntl.flock, (pruning, fcntl.LOCK_UN))
        release.start()
        with GalleryIndex.open(data_dir), pytest.raises(BlockingIOError):
            fcntl.flock(later, fcntl.LOCK_EX | fcntl.LOCK_NB)
        release.join()
        fcntl.flock(later, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_surplus_file_is_refused_by_name(data_dir):
    (version_of(data_dir) / "items.sqlite-wal").write_bytes(b"")
    refused(data_dir, "items.sqlite-wal")


def test_a_version_under_another_name_is_refused(data_dir):
    shutil.copytree(version_of(data_dir), version_of(data_dir).with_name("v000002"))
    with pytest.raises(IndexFormatError, match=r"v000002/manifest\.json describes v000001"):
        GalleryIndex.open(data_dir, version="v000002")


def test_any_flipped_bit_of_current_is_refused(data_dir):
    path = data_dir / "indexes/default/CURRENT"
    raw = bytearray(path.read_bytes())
    for position in range(len(raw)):
        for bit in range(8):
            raw[position] ^= 1 << bit
            path.write_bytes(raw)
            with pytest.raises(GalleryIndexError):
                GalleryIndex.open(data_dir)
            raw[position] ^= 1 << bit


@pytest.mark.parametrize("name", ["", "..", "../default", "default/", "/", "a" * 300, "x\0y"])
def test_no_name_from_outside_becomes_a_path(data_dir, name):
    with pytest.raises(GalleryIndexError, match="an index name is"):
        GalleryIndex.open(data_dir, name)
    with pytest.raises(GalleryIndexError, match="a version is named like"):
        GalleryIndex.open(data_dir, version=name or "v")
