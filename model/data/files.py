"""Files of a data set: read whole, bounded, and only where they are allowed to lie."""

import os
import stat
from pathlib import Path, PurePosixPath

from model.errors import DataError


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The bytes of one regular file.

    Opened without blocking, so that a pipe put in a file's place cannot hang a run.

    Raises:
        DataError: it is missing, no regular file, larger than max_bytes, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DataError(f"a regular file was wanted at {path}")
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise DataError(f"there is no file {path}") from exc
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(data) > max_bytes:
        raise DataError(f"at most {max_bytes} bytes are accepted in {path}, more came")
    return data


def name_problem(name: str) -> str | None:
    """Why a name cannot be a relative POSIX path that stays where it is, or None."""
    if not name or len(name.encode("utf-8", errors="surrogatepass")) > 4096:
        return "a name has 1 to 4096 bytes"
    if not name.isprintable():
        return "the name holds characters that cannot be printed"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        return "the name leads outside"
    return None
