"""The two SQLite files of a version: items (ids, rows, metadata) and thumbnails; writer and reader.

Readers open them read-only and immutable, so no lock or journal file ever appears beside them.
Entries are numbered (column `row`) by the first id of each, ids by code point: the content of an
index depends only on what is in it, never on the order in which it was read.

What does not fit is an IndexFormatError, an id or an entry that is not there an ItemNotFoundError.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from index_builder.errors import IndexFormatError, ItemNotFoundError
from index_builder.store.sqlite import ReadOnlyDatabase, create_database, sqlite_errors

_ITEMS_SCHEMA = """
CREATE TABLE items(
    id TEXT PRIMARY KEY NOT NULL,
    row INTEGER NOT NULL,
    content_sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    format TEXT NOT NULL,
    metadata TEXT NOT NULL
) WITHOUT ROWID
"""
_ITEMS_INDEXES = (
    "CREATE INDEX items_by_row ON items(row, id)",
    "CREATE INDEX items_by_content ON items(content_sha256)",
)
_THUMBNAILS_SCHEMA = """
CREATE TABLE thumbnails(content_sha256 TEXT PRIMARY KEY NOT NULL, jpeg BLOB NOT NULL)
"""
_COLUMNS = "id, row, content_sha256, bytes, width, height, format, metadata"
_NUMBERS_A_QUERY = 500
# Ends the stored format of a picture that was cut and accepted so: "JPEG (truncated)".
TRUNCATED = " (truncated)"


@dataclass(frozen=True)
class Item:
    """One gallery item as it is stored.

    Attributes:
        id: unique in the index.
        number: of its entry, which may have several rows of the vectors file.
        content_sha256: of the file's bytes; 64 hex digits.
        bytes: size of the file.
        width: of the decoded, upright image, in pixels.
        height: likewise.
        format: of the file's content, like "JPEG"; with `TRUNCATED` behind it where it was cut.
        metadata: what the manifest said beside id and path.
    """

    id: str
    number: int
    content_sha256: str
    bytes: int
    width: int
    height: int
    format: str
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Entry:
    """One entry as a result names it: an item, and the other ids with an equal vector."""

    item: Item
    duplicates: list[str]

    @property
    def id(self) -> str:
        return self.item.id

    @property
    def number(self) -> int:
        return self.item.number

    @property
    def metadata(self) -> dict[str, Any]:
        return self.item.metadata


def _item(columns: tuple[Any, ...]) -> Item:
    return Item(*columns[:-1], metadata=json.loads(columns[-1]))


class ItemsWriter:
    """Writes the items and thumbnails of a version that is not yet visible."""

    def __init__(self, items: Path, thumbnails: Path) -> None:
        with sqlite_errors(items.name):
            self._items = create_database(items, _ITEMS_SCHEMA)
        with sqlite_errors(thumbnails.name):
            self._thumbnails = create_database(thumbnails, _THUMBNAILS_SCHEMA)

    def add(self, item: Item) -> None:
        metadata = json.dumps(item.metadata, sort_keys=True, ensure_ascii=True, allow_nan=False)
        columns = (*astuple(item)[:-1], metadata)
        with sqlite_errors("items.sqlite"):
            self._items.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?)", columns)

    def add_thumbnail(self, content_sha256: str, jpeg: bytes) -> None:
        """Store one thumbnail; two items of equal content share it."""
        with sqlite_errors("thumbnails.sqlite"):
            self._thumbnails.execute(
                "INSERT OR IGNORE INTO thumbnails VALUES (?, ?)", (content_sha256, jpeg)
            )

    def finish(self) -> None:
        """Build the look-up indexes, commit and close."""
        with sqlite_errors("items.sqlite"):
            for statement in _ITEMS_INDEXES:
                self._items.execute(statement)
            self._items.execute("COMMIT")
        with sqlite_errors("thumbnails.sqlite"):
            self._thumbnails.execute("COMMIT")
        self.close()

    def close(self) -> None:
        self._items.close()
        self._thumbnails.close()


class ItemsReader:
    """Look-ups by row, by id and by content in a sealed version; safe to share between threads."""

    def __init__(self, items: Path, thumbnails: Path) -> None:
        self._items = ReadOnlyDatabase.open(items)
        self._thumbnails = ReadOnlyDatabase.open(thumbnails)

    def check(self, *, entries: int, ids: int) -> None:
        """Hold the tables against the manifest's numbers: each entry has an id, and no other."""
        found = self._items.all(
            "SELECT count(*), count(DISTINCT row), coalesce(min(row), 0), coalesce(max(row), -1) "
            "FROM items"
        )[0]
        if found != (ids, entries, 0, entries - 1):
            raise IndexFormatError(
                f"items.sqlite is damaged: wanted {ids} ids over entries 0 to {entries - 1}, got "
                f"{found[0]} ids over {found[1]} entries"
            )

    def check_deeply(self) -> None:
        """Let SQLite check both files, and every item's thumbnail and metadata."""
        for database in (self._items, self._thumbnails):
            result = database.all("PRAGMA integrity_check")
            if result != [("ok",)]:
                raise IndexFormatError(f"SQLite's own check fails: {result[0][0]}")
        previous_first = ""
        for row, first in self._items.iterate(
            "SELECT row, min(id) FROM items GROUP BY row ORDER BY row"
        ):
            if row > 0 and not previous_first < first:
                raise IndexFormatError(f"entry {row} is out of order: {first!r}")
            previous_first = first
        for item in self.items():
            if self.thumbnail_by_content(item.content_sha256) is None:
                raise IndexFormatError(f"item {item.id!r} has no thumbnail")

    def items(self) -> Iterator[Item]:
        """Every item, sorted by id."""
        with sqlite_errors("items.sqlite"):
            query = f"SELECT {_COLUMNS} FROM items ORDER BY id"  # noqa: S608 (fixed text)
            yield from map(_item, self._items.iterate(query))

    def page(self, after: str, limit: int) -> list[Item]:
        """The first items whose ids come after one by code point, whether that is here or not."""
        query = f"SELECT {_COLUMNS} FROM items WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 (fixed text)
        found = self._items.all(query, (after, limit))
        with sqlite_errors("items.sqlite"):
            return list(map(_item, found))

    def first_ids(self) -> list[str]:
        """The first id of every entry, in their order."""
        query = "SELECT min(id) FROM items GROUP BY row ORDER BY row"
        return [first for (first,) in self._items.iterate(query)]

    def entries(
        self, numbers: Sequence[int], passing: Sequence[Sequence[bool]] | None = None
    ) -> list[Entry]:
        """The entries of these numbers, in the order asked.

        With `passing`, which of each entry's items count, by id; one of each at least does.
        """
        found = self._of_entries(numbers)
        chosen = [found[number] for number in numbers]
        if passing is not None:
            chosen = [list(compress(*one)) for one in zip(chosen, passing, strict=True)]
        with sqlite_errors("items.sqlite"):
            # One text for all: each call of the reader costs more than what it reads.
            metadata = json.loads(f"[{','.join(first[-1] for first, *_ in chosen)}]")
            whole = list(zip(chosen, metadata, strict=True))
            return [
                Entry(Item(*first[:-1], metadata=own), [other[0] for other in others])
                for (first, *others), own in whole
            ]

    def at(self, places: Sequence[tuple[int, int]]) -> list[Item]:
        """Items by their entry's number and how many of its ids come before, in the order asked."""
        found = self._of_entries(sorted({number for number, _ in places}))
        with sqlite_errors("items.sqlite"):
            return [_item(found[number][before]) for number, before in places]

    def _of_entries(self, numbers: Sequence[int]) -> dict[int, list[tuple[Any, ...]]]:
        """What is stored of every item of these entries, by id."""
        found: dict[int, list[tuple[Any, ...]]] = {}
        for start in range(0, len(numbers), _NUMBERS_A_QUERY):
            chunk = list(numbers[start : start + _NUMBERS_A_QUERY])
            marks = ",".join("?" * len(chunk))
            query = f"SELECT {_COLUMNS} FROM items WHERE row IN ({marks}) ORDER BY row, id"  # noqa: S608 (marks are "?")
            for columns in self._items.all(query, chunk):
                found.setdefault(columns[1], []).append(columns)
        missing = [number for number in numbers if number not in found]
        if missing:
            raise ItemNotFoundError(f"no entry {missing[0]} in the index")
        return found

    def places(self, ids: Sequence[str]) -> list[tuple[int, int]]:
        """Of those ids that are here, the entry's number, and how many of its ids come before."""
        # A lone surrogate cannot be stored, nor even be asked for.
        known = [one for one in ids if one.encode(errors="ignore").decode() == one]
        found: list[tuple[int, int]] = []
        for start in range(0, len(known), _NUMBERS_A_QUERY):
            chunk = known[start : start + _NUMBERS_A_QUERY]
            marks = ",".join("?" * len(chunk))
            query = (
                "SELECT row, (SELECT count(*) FROM items AS one WHERE one.row = items.row "  # noqa: S608 (marks are "?")
                f"AND one.id < items.id) FROM items WHERE id IN ({marks})"
            )
            found += [(row, before) for row, before in self._items.all(query, chunk)]
        return found

    def entry_by_id(self, item_id: str) -> Entry:
        """The item of that id; its duplicates are all other ids of its entry."""
        item = self.by_id(item_id)
        others = self._items.all(
            "SELECT id FROM items WHERE row = ? AND id <> ? ORDER BY id", (item.number, item.id)
        )
        return Entry(item, [other for (other,) in others])

    def by_id(self, item_id: str) -> Item:
        """The item of that id."""
        # A lone surrogate cannot be stored, nor even be asked for.
        is_text = item_id.encode(errors="ignore").decode() == item_id
        item = self._one("id = ?", item_id) if is_text else None
        if item is None:
            raise ItemNotFoundError(f"no item {item_id[:200]!r} in the index")
        return item

    def by_content(self, content_sha256: str) -> Item | None:
        """Any item made from a file of these bytes."""
        return self._one("content_sha256 = ? LIMIT 1", content_sha256)

    def thumbnail_by_content(self, content_sha256: str) -> bytes | None:
        """The thumbnail of the file with these bytes."""
        found = self._thumbnails.all(
            "SELECT jpeg FROM thumbnails WHERE content_sha256 = ?", (content_sha256,)
        )
        return found[0][0] if found else None

    def close(self) -> None:
        self._items.close()
        self._thumbnails.close()

    def _one(self, condition: str, value: str) -> Item | None:
        query = f"SELECT {_COLUMNS} FROM items WHERE {condition}"  # noqa: S608 (fixed text)
        found = self._items.all(query, (value,))
        with sqlite_errors("items.sqlite"):
            return _item(found[0]) if found else None
