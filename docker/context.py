"""What a build may see: the files of the repository that `.dockerignore` lets through."""

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path


def read_ignore(path: Path) -> list[str]:
    """The patterns of a `.dockerignore`, in order."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def is_sent(name: str, patterns: list[str]) -> bool:
    """Whether the file is part of the build context: the last pattern that fits it decides."""
    sent = True
    for pattern in patterns:
        if _fits(name, pattern.removeprefix("!")):
            sent = pattern.startswith("!")
    return sent


def _fits(name: str, pattern: str) -> bool:
    """Whether the pattern names the file, or a folder above it."""
    parts = name.split("/")
    anywhere = pattern.startswith("**/")
    wanted = pattern.removeprefix("**/").split("/")
    for start in range(len(parts) if anywhere else 1):
        window = parts[start : start + len(wanted)]
        if len(window) == len(wanted) and all(map(fnmatch.fnmatchcase, window, wanted)):
            return True
    return False


def context_files(root: Path, patterns: list[str]) -> Iterator[str]:
    """The names, relative to the root, of all files that are sent, sorted."""
    names: list[str] = []
    for folder, folders, files in os.walk(root):
        # Hidden folders hold environments of gigabytes; no pattern of ours lets one through.
        folders[:] = [f for f in folders if not f.startswith(".")]
        here = Path(folder).relative_to(root)
        names += [(here / file).as_posix() for file in files]
    yield from sorted(name for name in names if is_sent(name, patterns))
