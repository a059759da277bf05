"""What the next version shall hold, collected while a source is read."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import astuple

from index_builder.build.writer import Planned
from index_builder.store.sqlite import sqlite_errors

_SCHEMA = """
CREATE TABLE plan(
    id TEXT PRIMARY KEY NOT NULL,
    path TEXT NOT NULL,
    content_sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    metadata TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX plan_by_content ON plan(content_sha256);
"""


class Plan:
    """What the new version shall hold; a private table that leaves memory when it grows."""

    def __init__(self) -> None:
        # The name "" makes a temporary file that SQLite deletes, whatever happens.
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.executescript(_SCHEMA)
        self._connection.execute("BEGIN")

    def put(self, item: Planned) -> None:
        """Plan an item; one of the same id is replaced."""
        self._insert("REPLACE", item)

    def fill(self, items: Iterable[Planned]) -> None:
        """Plan these items too, but for ids that are planned."""
        for item in items:
            self._insert("IGNORE", item)

    def remove(self, item_id: str) -> None:
        self._connection.execute("DELETE FROM plan WHERE id = ?", (item_id,))

    def get(self, item_id: str) -> Planned | None:
        return next(self._select("WHERE id = ?", item_id), None)

    def holds_content(self, content_sha256: str) -> bool:
        return any(self._select("WHERE content_sha256 = ? LIMIT 1", content_sha256))

    def by_content(self, content_sha256: str) -> list[Planned]:
        return list(self._select("WHERE content_sha256 = ?", content_sha256))

    def sorted(self) -> Iterator[Planned]:
        """Every planned item, sorted by id."""
        return self._select("ORDER BY id")

    def size(self) -> int:
        return self._connection.execute("SELECT count(*) FROM plan").fetchone()[0]

    def close(self) -> None:
        self._connection.close()

    def _insert(self, on_conflict: str, item: Planned) -> None:
        *columns, metadata = astuple(item)
        with sqlite_errors("the build's temporary table, where SQLITE_TMPDIR says,"):
            self._connection.execute(
                f"INSERT OR {on_conflict} INTO plan VALUES (?, ?, ?, ?, ?)",  # noqa: S608 (fixed text)
                (*columns, json.dumps(metadata)),
            )

    def _select(self, clause: str, *parameters: str) -> Iterator[Planned]:
        query = f"SELECT id, path, content_sha256, bytes, metadata FROM plan {clause}"  # noqa: S608 (fixed text)
        for *columns, metadata in self._connection.execute(query, parameters):
            yield Planned(*columns, metadata=json.loads(metadata))
