"""model/cli/files.py: what is written is there whole, or what was there before stays."""

import os
from pathlib import Path

import pytest

from model.cli.files import sha256_of, write_aside


def test_a_file_is_replaced_by_what_was_written(tmp_path: Path):
    target = tmp_path / "results.json"
    target.write_bytes(b"old")
    with write_aside(target) as aside:
        aside.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["results.json"]


def test_what_a_link_leads_to_is_replaced_and_a_pipe_never(tmp_path: Path):
    (tmp_path / "real").write_bytes(b"old")
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("real")
    os.mkfifo(pipe)
    with write_aside(link) as aside:
        aside.write_bytes(b"new")
    assert link.is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    with (
        pytest.raises(FileExistsError, match="neither a file nor a folder"),
        write_aside(pipe) as aside,
    ):
        aside.write_bytes(b"new")
    assert pipe.is_fifo()


def test_a_pipe_that_has_no_path_is_none_to_write_to():
    reading, writing = os.pipe()
    with (
        os.fdopen(reading),
        os.fdopen(writing),
        pytest.raises(FileExistsError, match="neither a file nor a folder"),
        write_aside(Path(f"/proc/self/fd/{writing}")),
    ):
        pass


def test_an_error_names_what_was_to_be_written(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("back")
    (tmp_path / "back").symlink_to("circle")
    (tmp_path / "astray").symlink_to("nowhere/file")
    for name, named, words in (
        ("folder", "folder", "Is a directory"),
        ("circle", "circle", "Too many levels of symbolic links"),
        ("astray", "nowhere/file", "No such file or directory"),
        ("none/file", "none/file", "No such file or directory"),
    ):
        with pytest.raises(OSError, match=words) as caught, write_aside(tmp_path / name) as aside:
            aside.write_bytes(b"new")
        assert caught.value.filename == str(tmp_path / named)
    assert sorted(os.listdir(tmp_path)) == ["astray", "back", "circle", "folder"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = tmp_path / "results.json"
    target.write_bytes(b"old")

    def fail_halfway() -> None:
        with write_aside(target) as aside:
            aside.write_bytes(b"ne")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fail_halfway()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path):
    with write_aside(tmp_path / "corpus") as aside:
        (aside / "train").mkdir(parents=True)
        (aside / "train" / "a.webp").write_bytes(b"picture")
        assert not (tmp_path / "corpus").exists()
    assert (tmp_path / "corpus" / "train" / "a.webp").read_bytes() == b"picture"


def test_a_folder_may_hold_a_link_that_leads_nowhere(tmp_path: Path):
    with write_aside(tmp_path / "folder") as aside:
        aside.mkdir()
        (aside / "link").symlink_to(tmp_path / "nowhere")
    assert (tmp_path / "folder" / "link").is_symlink()


def test_a_folder_with_something_in_it_is_never_replaced(tmp_path: Path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine").write_bytes(b"mine")
    with pytest.raises(OSError, match="not empty"), write_aside(tmp_path / "corpus") as aside:
        aside.mkdir()
    assert (tmp_path / "corpus" / "mine").read_bytes() == b"mine"


def test_what_was_written_is_flushed_before_it_is_renamed(tmp_path: Path, monkeypatch):
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        events.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    with write_aside(tmp_path / "part.npy") as aside:
        aside.write_bytes(b"rows")
    assert events == ["part.npy", "renamed", tmp_path.name]


def test_the_hash_is_of_the_bytes(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea")
