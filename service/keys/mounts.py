"""Whether a path is a mount of its own: such a file never shows what is renamed over it."""

import re
from pathlib import Path

MOUNTED_FILE = (
    "a file mounted by itself stays the old one when another takes its name: keys that are revoked "
    "go on working; mount its directory instead"
)

_TABLE = Path("/proc/self/mountinfo")


def is_mount_point(path: Path, table: Path = _TABLE) -> bool:
    """Whether a file system, or a part of one, is mounted exactly here.

    A file can be one too, which `os.path.ismount` does not see. Without Linux's table: False.
    """
    try:
        rows = table.read_bytes().splitlines()
    except OSError:
        return False
    here = bytes(path.resolve())
    # The fifth field of proc_pid_mountinfo(5); white space and backslashes stand there in octal.
    return any(_unescaped(row.split(b" ")[4]) == here for row in rows)


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)
