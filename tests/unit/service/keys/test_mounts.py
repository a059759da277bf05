"""A keys file that is mounted by itself, under real mounts where this may make them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.app import _log_keys
from service.keys.file import add_entry, new_key, remove_entry
from service.keys.keys import Key, KeyRing, Scope, digest_of
from service.keys.mounts import is_mount_point

# In a mount namespace of its own: argv has the folder on the host, and what to mount of it.
CONTAINER = """
import json, sys
from pathlib import Path
import subprocess
from structlog.testing import capture_logs
from service.app import _log_keys
from service.doctor.access import check_keys
from service.keys.file import remove_entry
from service.keys.keys import KeyRing

host, inside = Path(sys.argv[1]), Path(sys.argv[2])
part = "keys.json" if sys.argv[3] == "file" else "."
subprocess.run(["mount", "--bind", host / part, inside / part], check=True)
with capture_logs() as lines:
    ring = KeyRing(inside / "keys.json")
    _log_keys(ring, "0.0.0.0")
    doctor = [finding.outcome for finding in check_keys(inside / "keys.json")]
    remove_entry(host / "keys.json", "shop")
    found = ring.find(sys.argv[4].encode())
name = None if found is None else found.name
print(json.dumps([name, [line["event"] for line in lines], doctor]))
"""


def can_mount() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def revoked(tmp_path: Path):
    """Revoke a key on the host while a container reads the file; what the container did."""
    if os.geteuid() != 0 or not can_mount():
        pytest.skip("a bind mount takes root, and `unshare -m`")
    host, inside = tmp_path / "host with blanks", tmp_path / "in side"
    host.mkdir()
    inside.mkdir()
    (inside / "keys.json").touch()
    key = new_key()
    add_entry(
        host / "keys.json", Key(name="shop", scope=Scope.READ, sha256=digest_of(key.encode()))
    )

    def run(what: str) -> tuple[str | None, list[str], list[str]]:
        command = ["unshare", "-m", sys.executable, "-c", CONTAINER, host, inside, what, key]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        name, events, doctor = json.loads(done.stdout)
        return name, events, doctor

    return run


def test_a_key_that_is_revoked_outside_is_refused_where_the_folder_is_mounted(revoked):
    assert revoked("folder") == (None, ["keys_in_force", "keys_file_read"], ["ok"])


def test_a_file_mounted_by_itself_is_warned_of_at_the_start_and_when_it_is_left_behind(revoked):
    name, events, doctor = revoked("file")
    assert name == "shop", "the kernel shows renames after all: then the warnings can go"
    assert events == [
        *("keys_in_force", "keys_file_is_a_mount"),
        *("keys_file_read", "keys_file_left_behind"),
    ]
    assert doctor == ["warning", "ok"]


def test_a_mount_is_found_by_its_whole_path_with_its_escapes(tmp_path: Path):
    table = tmp_path / "mountinfo"
    row = "36 35 98:0 /keys.json {} rw,noatime shared:1 - ext4 /dev/root rw\n"
    where = tmp_path / "with blank" / "keys.json"
    table.write_text(row.format("/") + row.format(str(where).replace(" ", "\\040")))
    assert is_mount_point(where, table)
    assert not is_mount_point(where.parent, table)
    assert not is_mount_point(tmp_path / "keys.json", table)
    assert not is_mount_point(where, tmp_path / "none")


def test_a_plain_file_is_no_mount_and_nothing_is_said(tmp_path: Path):
    path = tmp_path / "keys.json"
    for name in ("a", "b"):
        add_entry(path, Key(name=name, scope=Scope.READ, sha256=digest_of(name.encode())))
    with capture_logs() as lines:
        ring = KeyRing(path)
        _log_keys(ring, "0.0.0.0")
        remove_entry(path, "a")
        assert ring.find(b"a") is None
    assert [line["event"] for line in lines] == ["keys_in_force", "keys_file_read"]
