"""API keys: the keys file, read again when it changes and replaced atomically, and who has a key.

The file holds SHA-256 digests, never keys. No salt and no slow hash: a key is 256 random bits that
nobody guesses, however fast a guess is tried; no two are equal; and a slow hash would be work that
any stranger could ask of us before we know who asks.
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from model.cli.files import write_aside
from service.errors import KeysFileError
from service.settings import Rate

# Names stand in log lines and in the names of counters.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

# Says at sight, and to scanners of leaked secrets, whose key it is.
PREFIX = "lipsim_"
_RANDOM_BYTES = 32

log = structlog.stdlib.get_logger()


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    ADMIN = "admin"

    def covers(self, needed: "Scope") -> bool:
        """Whether a key of this scope may do what needs the other; admin may do everything."""
        return self in (needed, Scope.ADMIN)


class Key(BaseModel):
    """One entry of the keys file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=f"^{NAME}$")
    scope: Scope
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires: AwareDatetime | None = None
    rate_limit: Rate | None = None

    def is_expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


class KeysFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...]


def digest_of(key: bytes) -> str:
    """What the file keeps of a key: SHA-256, in lower-case hexadecimal digits."""
    return hashlib.sha256(key).hexdigest()


def parse_keys(content: bytes) -> tuple[Key, ...]:
    """The entries of a keys file.

    Raises:
        KeysFileError: it is not of the form we write, or a name or a digest is there twice.
    """
    try:
        keys = KeysFile.model_validate_json(content).keys
    except ValidationError as error:
        # The place and the rule, never the content: somebody may have written a key into the file.
        first = error.errors(include_input=False, include_url=False)[0]
        known = {"keys", *Key.model_fields}
        where = ".".join(
            str(part) for part in first["loc"] if isinstance(part, int) or part in known
        )
        where = where or "the file"
        raise KeysFileError(f"{where}: {first['msg']}") from None
    for what, values in (("name", [k.name for k in keys]), ("digest", [k.sha256 for k in keys])):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise KeysFileError(f"the {what} {twice[0]} is there twice")
    return keys


def read_keys(path: Path) -> tuple[Key, ...]:
    """The entries of the keys file at a path.

    Raises:
        KeysFileError: it cannot be read, is damaged, or everybody may write to it.
    """
    try:
        with path.open("rb") as file:
            is_everybodys = os.fstat(file.fileno()).st_mode & stat.S_IWOTH
            content = file.read()
    except OSError as error:
        advice = ": `python -m service key NAME` makes it" if not path.exists() else ""
        raise KeysFileError(f"{path} cannot be read: {error.strerror}{advice}") from error
    if is_everybodys:
        raise KeysFileError(f"everybody may write to {path}, and so make keys: chmod o-w")
    try:
        return parse_keys(content)
    except KeysFileError as error:
        raise KeysFileError(f"{path} is damaged: {error}") from error


def utc_now() -> datetime:
    return datetime.now(UTC)


class KeyRing:
    """The keys in force; a change of the file counts from the next request on.

    A file that went away or is damaged is logged, once for each change, and the keys read last
    stay in force: a slip of an editor locks nobody out, and lets nobody in.

    Args:
        path: the keys file.
        clock: what time it is, with its zone.

    Raises:
        KeysFileError: the file cannot be read, or is damaged, already now.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self._clock = clock
        self._seen = self._look()
        self.keys = read_keys(path)

    def find(self, presented: bytes) -> Key | None:
        """The live entry of a presented key; None if there is none, or it has expired.

        Every entry is compared, in a time that does not depend on what the digests hold.
        """
        self._reload()
        digest = digest_of(presented)
        found: Key | None = None
        for key in self.keys:
            is_same = hmac.compare_digest(digest, key.sha256)
            found = key if is_same else found
        return None if found is None or found.is_expired(self._clock()) else found

    def _reload(self) -> None:
        # One `stat` a request, two microseconds: a key that was taken away is refused at once.
        now_there = self._look()
        if now_there == self._seen:
            return
        self._seen = now_there
        try:
            self.keys = read_keys(self.path)
        except KeysFileError as error:
            log.error("keys_file_refused", problem=str(error), keys_in_force=len(self.keys))  # noqa: TRY400 - the message says it all
        else:
            log.info("keys_file_read", keys=len(self.keys))

    def _look(self) -> tuple[int, ...] | None:
        """What changes when the file does; taken before it is read, so no change is missed."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None


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
    """The entries now, while nobody else changes them.

    The directory is the lock: a file of root's would keep the service's user out.
    """
    try:
        directory = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise KeysFileError(f"{path.parent} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield read_keys(path) if path.exists() else ()
    finally:
        os.close(directory)


def _replace(path: Path, keys: tuple[Key, ...]) -> None:
    """Write beside the file, then rename: a reader sees the old keys or the new ones."""
    # A link stays a link, and what it points to is replaced.
    target = path.resolve()
    content = KeysFile(keys=keys).model_dump_json(indent=2, exclude_none=True) + "\n"
    try:
        with write_aside(target) as aside:
            aside.touch(0o600)
            _keep_owner(target, aside)
            aside.write_text(content, encoding="utf-8")
    except OSError as error:
        raise KeysFileError(f"{path} cannot be written: {error.strerror}") from error


def _keep_owner(target: Path, aside: Path) -> None:
    """Root may run the command, and the service, who owns the file, must still be able to read."""
    with suppress(FileNotFoundError):
        before = target.stat()
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(aside, before.st_uid, before.st_gid)
