import dataclasses
import shutil
import sqlite3

import pytest

from index_builder.build.journal import EmbeddedImage, Journal

IMAGE = EmbeddedImage(
    "cc" * 32, b"\0\0\x80\x3f" * 6, b"\0\2", b"norm-onenorm-two", 5, 6, "PNG", b"thumbnail"
)


def opened(path, model="m", dim=3):
    return Journal(path, model=model, dim=dim)


def test_what_was_added_is_there_after_reopening(tmp_path):
    journal = opened(tmp_path / "j")
    journal.add([IMAGE])
    journal.close()
    journal = opened(tmp_path / "j")
    assert journal.get(IMAGE.content_sha256) == IMAGE
    assert journal.get("dd" * 32) is None
    journal.close()


def test_another_model_or_dimension_does_not_see_it(tmp_path):
    journal = opened(tmp_path / "j")
    journal.add([IMAGE])
    journal.close()
    for changes in ({"model": "other"}, {"dim": 4}):
        journal = opened(tmp_path / "j", **changes)
        assert journal.get(IMAGE.content_sha256) is None
        journal.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("vectors", b"\0\0\x80\x40" * 6),
        ("vectors", b"\0\0\x80\x3f" * 3),
        ("views", b"\0\1"),
        ("views", b""),
        ("norms", b"norm-twonorm-one"),
        ("width", 7),
        ("format", "JPEG"),
        ("thumbnail", b""),
        ("digest", b""),
    ],
)
def test_a_record_that_was_changed_is_as_good_as_absent(tmp_path, column, value):
    journal = opened(tmp_path / "j")
    journal.add([IMAGE, dataclasses.replace(IMAGE, content_sha256="dd" * 32)])
    journal.close()
    connection = sqlite3.connect(tmp_path / "j")
    with connection:
        connection.execute(
            f"UPDATE embedded_views SET {column} = ? WHERE content_sha256 = ?",
            (value, IMAGE.content_sha256),
        )
    connection.close()
    journal = opened(tmp_path / "j")
    assert journal.get(IMAGE.content_sha256) is None
    assert journal.get("dd" * 32) is not None
    journal.close()


def test_a_file_that_is_no_database_is_started_anew(tmp_path):
    (tmp_path / "j").write_bytes(b"garbage" * 1000)
    journal = opened(tmp_path / "j")
    assert journal.get(IMAGE.content_sha256) is None
    journal.add([IMAGE])
    assert journal.get(IMAGE.content_sha256) == IMAGE
    journal.delete()
    assert list(tmp_path.iterdir()) == []


def test_one_that_takes_more_than_the_disk_has_left_is_started_anew(tmp_path):
    journal = opened(tmp_path / "j")
    journal.add([IMAGE])
    journal.close()
    # A file of holes has any size and takes no space.
    with (tmp_path / "j-wal").open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).free * 2)
    journal = opened(tmp_path / "j")
    assert journal.get(IMAGE.content_sha256) is None
    journal.add([IMAGE])
    assert journal.get(IMAGE.content_sha256) == IMAGE
    journal.delete()


@pytest.mark.parametrize("byte", range(0, 60, 7))
def test_a_journal_whose_schema_is_no_text_is_started_anew(tmp_path, byte):
    path = tmp_path / "j"
    opened(path).close()
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"content_sha256 TEXT") + byte] = 0xD3
    path.write_bytes(raw)
    journal = opened(path)
    journal.add([IMAGE])
    assert journal.get(IMAGE.content_sha256) == IMAGE
    journal.close()
