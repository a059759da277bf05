"""What this machine already knows about mirrors, handed to a build as its own and left out of it.

No address is written in this repository: Debian's mirror is the one apt uses here, and pip's
settings are the ones it has here. Folders and files that those settings name lie under `/run`
while a step runs, which is no part of an image.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

RELEASE = "bookworm"
_INSIDE = "/run/machine"
_PATH = re.compile(r"(?:file://)?(/[^\s'\",]+)")


@dataclass(frozen=True)
class Borrowed:
    """Settings of pip for a step, and what they need to see.

    Attributes:
        environment: variables of the step.
        mounts: a path here, and where it lies inside.
    """

    environment: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, str] = field(default_factory=dict)


def debian_mirrors() -> list[tuple[str, str]]:
    """(address, suite) of this machine's Debian archives, the main one first.

    `DEBIAN_MIRROR` in the environment is taken instead of all of them.
    """
    if given := os.environ.get("DEBIAN_MIRROR"):
        return [(given, RELEASE)]
    done = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split() for line in done.stdout.splitlines())
    found = {
        (address.rstrip("/"), suite)
        for kind, address, suite, component in (row for row in rows if len(row) == 4)
        if kind == "Packages" and component == "main" and suite.startswith(RELEASE)
    }
    if not any(suite == RELEASE for _, suite in found):
        raise SystemExit(f"apt knows no archive of {RELEASE} here; set DEBIAN_MIRROR")
    return sorted(found, key=lambda pair: pair[1] != RELEASE)


def pip_settings() -> Borrowed:
    """What pip is told here, with the paths as a step sees them."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    borrowed = Borrowed()
    for line in done.stdout.splitlines():
        name, _, quoted = line.partition("=")
        option = name.removeprefix(":env:").rpartition(".")[2]
        if option in {"config-file", "config_file"}:
            continue
        value = " ".join(shlex.split(quoted))
        for path in _PATH.findall(value):
            if Path(path).exists() and not path.startswith(_INSIDE):
                borrowed.mounts[_top(path)] = _INSIDE + _top(path)
        borrowed.environment["PIP_" + option.upper().replace("-", "_")] = _moved(value)
    return borrowed


def _top(path: str) -> str:
    """What is mounted: a file alone, a folder with its neighbours, as an index names those."""
    return path if Path(path).is_file() else "/".join(path.split("/")[:3])


def _moved(value: str) -> str:
    def inside(match: re.Match[str]) -> str:
        if not Path(match[1]).exists():
            return match[0]
        return match[0].replace(match[1], _INSIDE + match[1])

    return _PATH.sub(inside, value)
