"""The operator's side of the keys file: a key made, an entry added or taken away, atomically."""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import KeysFileError
from service.keys.keys import Key, KeysFile, read_keys

# Says at sight, and to scanners of leaked secrets, whose key it is.
PREFIX = "lipsim_"
_RANDOM_BYTES = 32


def new_key() -> str:
    """A fresh random key; 256 bits after the prefix."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def add_entry(path: Path, entry: Key) -> None:
    """Append an entry; the file is made when there is none, and has mode 0600 afterwards.

    Raises:
        KeysFileError: the name is taken, or the file cannot be read or written.
    """
    with _locked(path) as keys:
        if any(key.name == entry.name for key in keys):
            raise KeysFileError(
                f"there is a key {entry.name} already: choose another name (say, {entry.name}-2), "
                "move its users, then revoke the old one"
            )
        _replace(path, (*keys, entry))


def remove_entry(path: Path, name: str) -> None:
    """Take an entry away; a running service refuses its key from the next request on.

    Raises:
        KeysFileError: no key has that name, or the file cannot be read or written.
    """
    with _locked(path) as keys:
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise KeysFileError(f"no key in {path} has that name")
        _replace(path, left)


@contextmanager
def _locked(path: Path) -> Generator[tuple[Key, ...]]:
    """The entries now, while nobody else changes them; the directory is the lock."""
    try:
        directory = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeysFileError(f"{path.parent} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield read_keys(path) if path.exists() else ()
        os.fsync(directory)
    finally:
        os.close(directory)


def _replace(path: Path, keys: tuple[Key, ...]) -> None:
    """Write beside the file, then rename: a reader sees the old keys or the new ones."""
    # A link stays a link, and what it points to is replaced.
    target = path.resolve()
    content = KeysFile(keys=keys).model_dump_json(indent=2, exclude_none=True) + "\n"
    aside = None
    try:
        # mkstemp makes it readable for its owner alone.
        handle, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            _keep_owner(target, file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    except OSError as error:
        if aside is not None:
            with suppress(OSError):
                os.unlink(aside)
        raise KeysFileError(f"{path} cannot be written: {error.strerror}") from error


def _keep_owner(target: Path, handle: int) -> None:
    """Root may run the command, and the service, who owns the file, must still be able to read."""
    with suppress(FileNotFoundError):
        before = target.stat()
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(handle, before.st_uid, before.st_gid)
