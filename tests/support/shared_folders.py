"""Folders that take long to make and that no test changes: the processes of a run share them."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

MakeOnce = Callable[[str, Callable[[Path], None]], Path]
"""The folder of a name, filled by whoever asks first; who asks meanwhile waits."""


def making_once_in(shared: Path) -> MakeOnce:
    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, is_made = shared / name, shared / f"{name}.made"
        with FileLock(shared / f"{name}.lock"):
            if not is_made.exists():
                folder.mkdir()
                fill(folder)
                is_made.touch()
        return folder

    return make
