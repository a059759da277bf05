"""SQLite files of a version: written aside without a journal, read immutable, errors made ours."""

import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from index_builder.errors import DiskFullError, IndexFormatError

# A full disk; a quota or limit reached; no room for the index of a write-ahead log.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}


@contextmanager
def sqlite_errors(name: str) -> Generator[None]:
    """The one boundary where SQLite's errors become ours."""
    try:
        yield
    except (sqlite3.Error, ValueError) as exc:
        if getattr(exc, "sqlite_errorcode", None) in _FULL:
            raise DiskFullError.at(name, str(exc)) from exc
        raise IndexFormatError(f"{name} is damaged: {exc}") from exc


def create_database(path: Path | str, *statements: str) -> sqlite3.Connection:
    """A new database file written in one transaction without a journal.

    The file lies in a directory that is garbage until it is renamed, so it needs no recovery of
    its own; whoever seals the version forces it to the disk.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for statement in (
        "PRAGMA journal_mode = OFF",
        "PRAGMA synchronous = OFF",
        *statements,
        "BEGIN",
    ):
        connection.execute(statement)
    return connection


class ReadOnlyDatabase:
    """One shared connection and a lock: look-ups take microseconds, threads wait in turn."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection, self._name = connection, name
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> "ReadOnlyDatabase":
        """A file of a sealed version."""
        name = f"{path.parent.name}/{path.name}"
        with sqlite_errors(name):
            uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
            return cls(sqlite3.connect(uri, uri=True, check_same_thread=False), name)

    def all(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, sqlite_errors(self._name):
            return self._connection.execute(query, parameters).fetchall()

    def iterate(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Stream rows in blocks; other look-ups go on between the blocks."""
        with self._lock, sqlite_errors(self._name):
            cursor = self._connection.execute(query, parameters)
        with closing(cursor):
            while True:
                with self._lock, sqlite_errors(self._name):
                    block = cursor.fetchmany(1000)
                if not block:
                    return
                yield from block

    def close(self) -> None:
        with self._lock:
            self._connection.close()
