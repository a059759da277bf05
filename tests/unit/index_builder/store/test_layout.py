import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_builder.errors import IndexFormatError, IndexNotFoundError
from index_builder.store import layout
from service.work.index_registry import IndexRegistry


@pytest.mark.parametrize("name", ["default", "a", "A-1_b.c", "0" * 64])
def test_plain_names_are_index_names(tmp_path, name):
    assert layout.index_paths(tmp_path, name).root == tmp_path / "indexes" / name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../a", "/etc", "a\\b", ".hidden", "-x", "a\n", "a\0", "é", "0" * 65],
)
def test_names_that_could_be_paths_are_no_index_names(tmp_path, name):
    with pytest.raises(IndexNotFoundError, match="an index name is"):
        layout.index_paths(tmp_path, name)


@given(st.text(max_size=70))
def test_no_name_leads_out_of_the_indexes(name):
    root = Path("/data/indexes")
    try:
        paths = layout.index_paths(Path("/data"), name)
    except IndexNotFoundError:
        return
    assert paths.root.resolve().parent == root
    assert paths.root.name == name


@pytest.mark.parametrize("version", ["", "v1", "v00001", "../v000001", "v000001/..", "v00000a"])
def test_version_names_are_checked_too(tmp_path, version):
    with pytest.raises(IndexNotFoundError, match="a version is named like v000001"):
        layout.index_paths(tmp_path, "x").version(version)


def test_current_comes_back_and_any_flipped_bit_changes_or_breaks_it(tmp_path):
    paths = layout.index_paths(tmp_path, "x")
    paths.root.mkdir(parents=True)
    current = layout.Current("v000012", "0a" * 32)
    layout.write_current(paths, current)
    assert layout.read_current(paths) == current
    raw = bytearray(paths.current.read_bytes())
    for position in range(len(raw)):
        raw[position] ^= 1
        paths.current.write_bytes(raw)
        with contextlib.suppress(IndexFormatError):
            assert layout.read_current(paths) != current
        raw[position] ^= 1


def test_a_damaged_current_says_what_to_do(tmp_path):
    paths = layout.index_paths(tmp_path, "x")
    paths.root.mkdir(parents=True)
    paths.current.write_bytes(b"v000001\n")
    with pytest.raises(IndexFormatError, match=r"CURRENT of index 'x' is damaged.*rollback --to"):
        layout.read_current(paths)


def test_an_index_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(IndexNotFoundError, match=r"python -m index_builder build SOURCE --index x"):
        layout.read_current(layout.index_paths(tmp_path, "x"))


def test_versions_are_sorted_by_number_and_strangers_are_not_listed(tmp_path):
    paths = layout.index_paths(tmp_path, "x")
    for name in ("v1000000", "v000002", "v999999", ".tmp-v000003-1", "notes", "v12"):
        (paths.versions / name).mkdir(parents=True)
    assert layout.list_versions(paths) == ["v000002", "v999999", "v1000000"]
    assert layout.next_version(paths) == "v1000001"
    layout.clean_garbage(paths)
    assert not (paths.versions / ".tmp-v000003-1").exists()
    assert (paths.versions / "notes").exists()


def test_only_indexes_with_a_served_version_are_listed(tmp_path):
    assert layout.list_indexes(tmp_path) == []
    for name in ("b", "a"):
        (tmp_path / "indexes" / name).mkdir(parents=True)
        (tmp_path / "indexes" / name / "CURRENT").touch()
    (tmp_path / "indexes" / "unfinished").mkdir()
    (tmp_path / "indexes" / ".git").mkdir()
    assert layout.list_indexes(tmp_path) == ["a", "b"]


@contextlib.contextmanager
def no_longer_root():
    """Be somebody whom file permissions hold; root is not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_index_that_may_not_be_read_is_listed_and_refused_and_the_others_go_on():
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        for name in ("default", "locked"):
            paths = layout.index_paths(data_dir, name)
            paths.root.mkdir(parents=True)
            layout.write_current(paths, layout.Current("v000001", "0a" * 32))
        data_dir.chmod(0o755)
        layout.index_paths(data_dir, "locked").root.chmod(0)
        try:
            with no_longer_root():
                assert layout.list_indexes(data_dir) == ["default", "locked"]
                assert layout.read_current(layout.index_paths(data_dir, "default")).version
                with pytest.raises(IndexFormatError, match="Permission denied"):
                    layout.read_current(layout.index_paths(data_dir, "locked"))
                registry = IndexRegistry(data_dir, "f" * 64, "lipsim-decode-1")
                registry.refresh()
                assert [entry.name for entry in registry.entries()] == ["default", "locked"]
                assert {entry.refused.code for entry in registry.entries()} >= {"index_damaged"}
        finally:
            layout.index_paths(data_dir, "locked").root.chmod(0o700)
