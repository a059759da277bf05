import hashlib
import hmac
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.errors import KeysFileError
from service.keys.keys import KeyRing, Scope, new_key, parse_keys


def entry(name: str, key: str, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {"name": name, "scope": "read", "sha256": digest, **more}


def write(path: Path, *entries: dict[str, Any]) -> None:
    """As careful tools do: a new file under the old name."""
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps({"keys": entries}))
    os.replace(aside, path)


def found(ring: KeyRing, key: str) -> str | None:
    key_found = ring.find(key.encode())
    return None if key_found is None else key_found.name


def test_admin_covers_all_and_read_itself():
    assert [Scope.ADMIN.covers(needed) for needed in Scope] == [True, True]
    assert [Scope.READ.covers(needed) for needed in Scope] == [True, False]


def test_each_key_is_found_by_itself_alone(tmp_path: Path):
    given = {f"k{i}": new_key() for i in range(5)}
    write(tmp_path / "keys", *(entry(name, key) for name, key in given.items()))
    ring = KeyRing(tmp_path / "keys")
    for name, key in given.items():
        assert found(ring, key) == name
        for other in (key[:-1], key + "x", key.upper(), f" {key}", hashed(key), ""):
            assert found(ring, other) is None


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_a_key_ends_at_its_time_and_not_before(tmp_path: Path):
    end = datetime(2030, 1, 1, tzinfo=UTC)
    write(tmp_path / "keys", entry("k", "secret", expires="2030-01-01T02:00:00+02:00"))
    for now, is_found in ((end - timedelta(microseconds=1), True), (end, False)):
        ring = KeyRing(tmp_path / "keys", clock=lambda now=now: now)
        assert (found(ring, "secret") == "k") is is_found


def test_every_entry_is_compared_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The work tells nothing: the first key, the last, an expired one, a wrong one and none."""
    past = "2001-01-01T00:00:00Z"
    write(
        tmp_path / "keys",
        entry("first", "1"),
        entry("past", "2", expires=past),
        entry("mid", "3"),
        entry("last", "4"),
    )
    ring = KeyRing(tmp_path / "keys")
    compared = 0
    real = hmac.compare_digest

    def count(a: str, b: str) -> bool:
        nonlocal compared
        compared += 1
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", count)
    work = []
    for key in ("1", "2", "4", "wrong", ""):
        compared = 0
        ring.find(key.encode())
        work.append(compared)
    assert work == [4, 4, 4, 4, 4]


def test_a_changed_file_counts_from_the_next_request_on(tmp_path: Path):
    path = tmp_path / "keys"
    write(path, entry("old", "1"))
    ring = KeyRing(path)
    write(path, entry("old", "1"), entry("new", "2"))
    assert (found(ring, "1"), found(ring, "2")) == ("old", "new")
    write(path, entry("new", "2"))
    assert (found(ring, "1"), found(ring, "2")) == (None, "new")
    write(path)
    assert found(ring, "2") is None


SHA = "0" * 64
DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b'{"keys": {}}',
    b'{"keys": [], "more": 1}',
    b'{"keys": [{"name": "a"}]}',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    *(
        json.dumps({"keys": [{"name": "a", "scope": "read", "sha256": SHA, **wrong}]}).encode()
        for wrong in (
            {"name": ""},
            {"name": "a\nb"},
            {"name": "a\n"},
            {"name": 'a", "level": "error'},
            {"name": "\x1b[31m"},
            {"name": "ключ"},
            {"name": "a" * 65},
            {"scope": "write"},
            {"scope": "READ"},
            {"sha256": "0" * 63},
            {"sha256": "0" * 64 + "\n"},
            {"sha256": "G" * 64},
            {"sha256": "lipsim_a-real-key-by-mistake"},
            {"expires": "2030-01-01T00:00:00"},
            {"expires": "soon"},
            {"rate_limit": "many"},
            {"rate_limit": "1/second;100/second"},
            {"key": "lipsim_a-real-key-by-mistake"},
            {"lipsim_a-real-key-by-mistake": 1},
        )
    ),
    json.dumps({"keys": [entry("a", "1"), entry("a", "2")]}).encode(),
    json.dumps({"keys": [entry("a", "1"), entry("b", "1")]}).encode(),
]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda c: repr(c[:60]))
def test_a_damaged_file_keeps_the_old_keys_in_force_and_is_logged_once(
    tmp_path: Path, content: bytes
):
    path = tmp_path / "keys"
    write(path, entry("old", "1"))
    ring = KeyRing(path)
    path.write_bytes(content)
    with capture_logs() as lines:
        for _ in range(5):
            assert found(ring, "1") == "old"
            assert found(ring, "2") is None
    assert [line["event"] for line in lines] == ["keys_file_refused"]
    assert "a-real-key" not in repr(lines)
    write(path, entry("new", "2"))
    assert (found(ring, "1"), found(ring, "2")) == (None, "new")


@pytest.mark.parametrize("content", DAMAGED, ids=lambda c: repr(c[:60]))
def test_a_damaged_file_is_refused_at_the_start(tmp_path: Path, content: bytes):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(KeysFileError, match="is damaged") as caught:
        KeyRing(tmp_path / "keys")
    assert "a-real-key" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_everybody_may_write_to_makes_no_keys(tmp_path: Path):
    path = tmp_path / "keys"
    write(path, entry("a", "1"))
    ring = KeyRing(path)
    write(path, entry("a", "1"), entry("stranger", "2"))
    path.chmod(0o602)
    with pytest.raises(KeysFileError, match="everybody may write"):
        KeyRing(path)
    with capture_logs() as lines:
        assert [found(ring, key) for key in "12"] == ["a", None]
    assert [line["event"] for line in lines] == ["keys_file_refused"]
    path.chmod(0o660)
    assert [found(ring, key) for key in "12"] == ["a", "stranger"]


def test_a_file_that_went_away_takes_no_key_with_it(tmp_path: Path):
    path = tmp_path / "keys"
    write(path, entry("old", "1"))
    ring = KeyRing(path)
    path.unlink()
    with capture_logs() as lines:
        assert [found(ring, "1") for _ in range(3)] == ["old"] * 3
    assert [line["event"] for line in lines] == ["keys_file_refused"]
    with pytest.raises(KeysFileError, match="cannot be read"):
        KeyRing(path)


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path):
    write(tmp_path / "keys")
    ring = KeyRing(tmp_path / "keys")
    assert ring.keys == ()
    assert found(ring, "") is None


def test_what_is_wrong_is_said_with_its_place():
    with pytest.raises(KeysFileError, match=r"keys\.1\.scope: .*'read' or 'admin'"):
        parse_keys(json.dumps({"keys": [entry("a", "1"), entry("b", "2", scope="x")]}).encode())
