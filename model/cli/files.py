"""Files that appear whole or not at all, and their hashes."""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def write_aside(path: Path) -> Generator[Path]:
    """A path to write to; what is there in the end replaces `path`, whole, or not at all.

    What is written, a file or a folder, is on the disk before it has its name, so that not even a
    power cut leaves half of it there. A folder replaces none but an empty one; what a link leads to
    is replaced, not the link.

    Raises:
        OSError: the disk refuses, a device or pipe is there, or links that lead in a circle.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode  # Before the link is resolved: what an open file is has no path.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise FileExistsError(errno.EEXIST, "neither a file nor a folder is there", str(path))
    path = path.resolve() if path.is_symlink() else path
    with _errors_name(path):
        scratch = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    with scratch as folder:
        aside = Path(folder) / path.name
        yield aside
        for written in [*aside.rglob("*"), aside] if aside.is_dir() else [aside]:
            if not written.is_symlink():  # it lies in its folder, and may lead nowhere
                _flush(written)
        with _errors_name(path):
            aside.replace(path)
    _flush(path.parent)


@contextlib.contextmanager
def _errors_name(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(path)) from exc


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
