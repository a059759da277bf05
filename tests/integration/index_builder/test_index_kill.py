"""A builder is killed at many moments: what was served stays, what was done is kept."""

import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from forked import Forked
from index_tools import build, build_slowly, write_folder

from index_builder.build.build import remove_items
from index_builder.build.journal import Journal
from index_builder.build.maintenance import prune, roll_back, verify_index
from index_builder.errors import IndexLockedError, IndexNotFoundError
from index_builder.search.gallery import GalleryIndex, current_version
from index_builder.store import layout


def start(data_dir, source, seconds_a_batch):
    return Forked(build_slowly, data_dir, source, seconds_a_batch, output=Path(os.devnull))


def test_a_build_killed_at_any_moment_loses_nothing_served_and_leaves_only_garbage(tmp_path):
    build(tmp_path / "base", write_folder(tmp_path / "old", 30))
    served = verify_index(tmp_path / "base", "default")
    new = write_folder(tmp_path / "new", 80)
    started = time.monotonic()
    shutil.copytree(tmp_path / "base", tmp_path / "timed")
    assert start(tmp_path / "timed", new, 0.05).wait(120) == 0
    whole = time.monotonic() - started
    dice = random.Random(7)
    kills = 0
    for attempt in range(60):
        if kills == 10:  # Some builds are through before it comes to that.
            break
        data_dir = tmp_path / f"try{attempt}"
        shutil.copytree(tmp_path / "base", data_dir)
        process = start(data_dir, new, 0.05)
        if attempt % 2:  # any moment
            time.sleep(whole * dice.uniform(0.0, 1.0))
        else:  # while the version is being written, sealed and swapped in
            versions = data_dir / "indexes/default/versions"
            while process.poll() is None and not any(versions.glob(".tmp-*")):
                time.sleep(0.0005)
            time.sleep(dice.uniform(0.0, 0.05))
        process.kill()
        process.wait(60)
        kills += process.returncode == -signal.SIGKILL
        manifest = verify_index(data_dir, "default")
        with GalleryIndex.open(data_dir) as index:
            assert index.version == manifest.version == current_version(data_dir)
        assert manifest == served or (manifest.ids == 80 and manifest.version == "v000002")
        counts = build(data_dir, new).counts
        assert counts["embedded"] + counts["reused"] == 80
        assert verify_index(data_dir, "default").ids == 80
        root = data_dir / "indexes/default"
        assert {p.name for p in root.iterdir()} == {"CURRENT", "lock", "versions"}
        assert not list((root / "versions").glob(".*"))
    assert kills == 10


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_resumed_build_embeds_nothing_twice(tmp_path, how):
    source = write_folder(tmp_path / "in", 320)
    done = 0
    for _ in range(3):
        process = start(tmp_path, source, 0.15)
        journal = tmp_path / "indexes/default/journal.sqlite"
        while _kept(journal) < done + 30:
            assert process.poll() is None, "the build ended before it could be interrupted"
            time.sleep(0.01)
        process.send_signal(how)
        process.wait(60)
        assert process.returncode != 0
        assert _kept(journal) >= done + 30
        done = _kept(journal)
    with pytest.raises(IndexNotFoundError):
        current_version(tmp_path)
    counts = build(tmp_path, source).counts
    assert counts["embedded"] == 320 - done
    assert counts["reused"] == done
    assert verify_index(tmp_path, "default").ids == 320
    assert not journal.exists()


def _kept(journal):
    import sqlite3  # noqa: PLC0415

    if not journal.exists():
        return 0
    connection = sqlite3.connect(journal)
    try:
        return connection.execute("SELECT count(*) FROM embedded_views").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def test_a_resumed_build_does_not_trust_a_journal_that_was_damaged(tmp_path):
    source = write_folder(tmp_path / "in", 100)
    process = start(tmp_path, source, 0.4)
    journal = tmp_path / "indexes/default/journal.sqlite"
    while _kept(journal) < 16:
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait(60)
    Journal(journal, model="x", dim=1).close()  # folds the write-ahead log into the file
    raw = bytearray(journal.read_bytes())
    for position in range(200, len(raw), 97):
        raw[position] ^= 0xFF
    journal.write_bytes(raw)
    report = build(tmp_path, source)
    clean = build(tmp_path / "clean", source)
    assert report.manifest.files["vectors.npy"] == clean.manifest.files["vectors.npy"]
    verify_index(tmp_path, "default")


def test_a_second_writer_is_refused_at_once_and_named_the_lock(tmp_path):
    source = write_folder(tmp_path / "in", 100)
    build(tmp_path, write_folder(tmp_path / "small", 2))
    process = start(tmp_path, source, 0.3)
    journal = tmp_path / "indexes/default/journal.sqlite"
    while not journal.exists():
        assert process.poll() is None
        time.sleep(0.01)
    lock = str(tmp_path / "indexes/default/lock")
    for write in (
        lambda: build(tmp_path, source),
        lambda: remove_items(tmp_path, "default", ["0000.png"]),
        lambda: roll_back(tmp_path, "default", "v000001"),
        lambda: prune(tmp_path, "default", 1),
    ):
        with pytest.raises(
            IndexLockedError, match="is being written by another process"
        ) as refusal:
            write()
        assert lock in str(refusal.value)
    process.kill()
    process.wait(60)
    assert build(tmp_path, source).manifest.ids == 100


def test_readers_see_whole_versions_while_builds_swap_and_prune_them(tmp_path):
    sources = [write_folder(tmp_path / f"in{n}", 5 + n, first=100 * n) for n in range(3)]
    build(tmp_path, sources[0])
    stop = threading.Event()
    seen, failures = set(), []

    def read():
        while not stop.is_set():
            try:
                with GalleryIndex.open(tmp_path) as index:
                    firsts = {int(item.id[:2]) for item in index.items.items()}
                    seen.add((index.version, index.size))
                    if len(firsts) != 1 or index.size != 5 + firsts.pop():
                        failures.append(index.version)
            except Exception as error:
                failures.append(error)
            stop.wait(0.002)  # Leaves the builds their share of this interpreter.

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(12):
        build(tmp_path, sources[n % 3])
        prune(tmp_path, "default", 1)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(seen) > 5


def test_a_current_that_names_a_version_of_another_seal_is_refused(tmp_path):
    source = write_folder(tmp_path / "in", 3)
    build(tmp_path, source)
    build(tmp_path, write_folder(source, 4))
    paths = layout.index_paths(tmp_path, "default")
    current = layout.read_current(paths)
    layout.write_current(paths, layout.Current("v000001", current.seal))
    with pytest.raises(Exception, match="names v000001 with another seal"):
        GalleryIndex.open(tmp_path)
