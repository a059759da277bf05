"""Files that appear whole or not at all, and their hashes."""

import contextlib
import errno
import hashlib
import os
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
        OSError: the disk refuses, or a device or pipe is there.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FileExistsError(errno.EEXIST, "neither a file nor a folder is there", str(path))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        aside = Path(folder) / path.name
        yield aside
        for written in [*aside.rglob("*"), aside] if aside.is_dir() else [aside]:
            if not written.is_symlink():  # it lies in its folder, and may lead nowhere
                _flush(written)
        aside.replace(path)
    _flush(path.parent)


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
