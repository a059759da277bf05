import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from typer.testing import CliRunner

from service.__main__ import cli
from service.errors import KeysFileError
from service.keys.keys import (
    Key,
    KeyRing,
    Scope,
    add_entry,
    digest_of,
    new_key,
    read_keys,
    remove_entry,
)


def key_named(name: str, key: str = "") -> Key:
    return Key(name=name, scope=Scope.READ, sha256=digest_of((key or name).encode()))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_long_random_and_safe_in_a_header():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        # 43 digits of 6 bits hold 256 bits.
        assert re.fullmatch(r"lipsim_[A-Za-z0-9_-]{43}", key)


def test_entries_come_back_as_they_were_and_the_file_is_its_owners_alone(tmp_path: Path):
    path = tmp_path / "keys.json"
    old_mask = os.umask(0)
    try:
        add_entry(path, key_named("a"))
        assert mode_of(path) == 0o600
        path.chmod(0o664)
        add_entry(path, key_named("b"))
    finally:
        os.umask(old_mask)
    assert mode_of(path) == 0o600
    assert read_keys(path) == (key_named("a"), key_named("b"))
    remove_entry(path, "a")
    assert mode_of(path) == 0o600
    assert read_keys(path) == (key_named("b"),)
    assert [p.name for p in tmp_path.iterdir()] == ["keys.json"]


def test_a_file_that_everybody_could_write_to_is_not_taken_over(tmp_path: Path):
    """What stands in it may be anybody's: to write it again as ours would make it good."""
    path = tmp_path / "keys.json"
    add_entry(path, key_named("a"))
    path.chmod(0o666)
    with pytest.raises(KeysFileError, match="everybody may write"):
        add_entry(path, key_named("b"))
    assert mode_of(path) == 0o666


def test_a_name_is_given_once(tmp_path: Path):
    add_entry(tmp_path / "keys", key_named("a", "1"))
    before = (tmp_path / "keys").read_bytes()
    with pytest.raises(KeysFileError, match="a key a already"):
        add_entry(tmp_path / "keys", key_named("a", "2"))
    with pytest.raises(KeysFileError, match=r"no key in .* has that name"):
        remove_entry(tmp_path / "keys", "b")
    assert (tmp_path / "keys").read_bytes() == before


def test_a_damaged_file_is_not_written_over(tmp_path: Path):
    path = tmp_path / "keys"
    path.write_text("somebody's notes")
    for change in (lambda: add_entry(path, key_named("a")), lambda: remove_entry(path, "a")):
        with pytest.raises(KeysFileError, match="is damaged"):
            change()
    assert path.read_text() == "somebody's notes"


def test_a_link_to_the_file_stays_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "keys"
    link.symlink_to(tmp_path / "real" / "keys")
    add_entry(link, key_named("a"))
    add_entry(link, key_named("b"))
    assert link.is_symlink()
    assert len(read_keys(tmp_path / "real" / "keys")) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_file_stays_its_owners_when_root_changes_it(tmp_path: Path):
    path = tmp_path / "keys"
    add_entry(path, key_named("a"))
    os.chown(path, 12345, 12346)
    add_entry(path, key_named("b"))
    assert (path.stat().st_uid, path.stat().st_gid, mode_of(path)) == (12345, 12346, 0o600)


def test_changes_at_once_lose_nothing_and_readers_never_see_half(tmp_path: Path):
    path = tmp_path / "keys"
    add_entry(path, key_named("first"))
    ring = KeyRing(path)
    done = Event()

    def read() -> int:
        reads = 0
        while not done.is_set() or reads == 0:
            read_keys(path)
            assert ring.find(b"first") is not None
            reads += 1
        return reads

    with ThreadPoolExecutor(9) as threads:
        reader = threads.submit(read)
        try:
            list(threads.map(lambda i: add_entry(path, key_named(f"k{i}")), range(40)))
        finally:
            done.set()
        assert reader.result() > 0
    assert {key.name for key in read_keys(path)} == {"first", *(f"k{i}" for i in range(40))}


def run(path: Path, *arguments: str):
    return CliRunner().invoke(cli, arguments, env={"LIPSIM_KEYS_FILE": str(path)})


def test_the_command_shows_a_key_once_and_keeps_its_hash_alone(tmp_path: Path):
    path = tmp_path / "keys"
    made = run(path, "key", "bob", "--scope", "admin", "--expires", "2999-01-31")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert made.stdout == f"{key}\n"
    assert key not in path.read_text()
    ring_key = KeyRing(path).find(key.encode())
    assert ring_key is not None
    assert (ring_key.name, ring_key.scope) == ("bob", Scope.ADMIN)
    listed = run(path, "keys")
    assert listed.exit_code == 0
    assert "bob" in listed.stdout
    assert "admin" in listed.stdout
    assert "2999-01-31" in listed.stdout
    assert key not in listed.output
    assert digest_of(key.encode()) not in listed.output


def test_the_same_name_twice_is_refused_and_the_first_key_lives(tmp_path: Path):
    path = tmp_path / "keys"
    key = run(path, "key", "bob").stdout.strip()
    again = run(path, "key", "bob")
    assert again.exit_code == 1
    assert again.stdout == ""
    assert "choose another name" in again.stderr
    assert KeyRing(path).find(key.encode()) is not None
    assert run(path, "revoke", "bob").exit_code == 0
    assert KeyRing(path).find(key.encode()) is None
    assert run(path, "revoke", "bob").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bob\n"], "a name is 1 to 64"),
        (["../bob"], "a name is 1 to 64"),
        (["[red]bob"], "a name is 1 to 64"),
        (["bob", "--scope", "write"], "write"),
        (["bob", "--rate-limit", "0/minute"], "a rate is like"),
        (["bob", "--expires", "soon"], "expires is a day like"),
        (["bob", "--expires", "2999-01-31T12:00:00"], "expires is a day like"),
        (["bob", "--expires", "2001-01-31"], "is past"),
    ],
)
def test_what_the_file_could_not_hold_is_refused_before_it_is_written(
    tmp_path: Path, arguments: list[str], said: str
):
    done = run(tmp_path / "keys", "key", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "lipsim_" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_said_in_one_line(tmp_path: Path):
    for command in (["key", "bob"], ["keys"], ["revoke", "bob"]):
        done = run(tmp_path / "no" / "keys", *command)
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 1
    without = CliRunner().invoke(cli, ["keys"], env={"LIPSIM_KEYS_FILE": ""})
    assert without.exit_code == 2
    assert "LIPSIM_KEYS_FILE" in without.stderr
