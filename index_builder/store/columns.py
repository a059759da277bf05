"""Metadata as columns, `columns.sqlite`: of each key, which items hold which terms; both ends.

Items are counted by id, in order of code points. A column is a list of (item, code) pairs, and a
code the place of a term among those of its key, sorted: so what a clause asks becomes a range of
codes, and a million items are asked in a millisecond. What does not fit is an IndexFormatError.
"""

import sqlite3
from array import array
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from index_builder.errors import IndexFormatError
from index_builder.store.items import ItemsReader
from index_builder.store.sqlite import ReadOnlyDatabase, create_database, sqlite_errors
from index_builder.store.terms import END, Edge, Kind, Span, Term, key_of, terms_of, texts_from

COLUMNS = "columns.sqlite"

_TABLES = (
    "CREATE TABLE items(entries BLOB NOT NULL)",
    "CREATE TABLE columns(key BLOB PRIMARY KEY NOT NULL, number INTEGER NOT NULL, "
    "terms INTEGER NOT NULL, codes BLOB NOT NULL, items BLOB)",
    "CREATE TABLE terms(key INTEGER NOT NULL, kind INTEGER NOT NULL, value NOT NULL, "
    "code INTEGER NOT NULL, PRIMARY KEY (key, kind, value)) WITHOUT ROWID",
)
_ITEM = np.dtype("<u4")
# Bytes of a key or a text in a list of them: a longer one is nothing to choose from, and a key is
# named in an address.
LONGEST_LISTED = 4096
# So many comparisons of all codes take less time than a look into a table for each.
_FEW_RANGES = 4


class _Column:
    """One key while it is written: its terms as they came, and who holds them."""

    def __init__(self) -> None:
        self.terms: dict[Term, int] = {}
        self.items, self.codes = array("I"), array("I")

    def add(self, item: int, term: Term) -> None:
        self.items.append(item)
        self.codes.append(self.terms.setdefault(term, len(self.terms)))

    def sorted(self) -> tuple[list[Term], np.ndarray, np.ndarray]:
        """The terms in order, and the pairs by item, then by code."""
        terms = sorted(self.terms)
        place = np.empty(len(terms), dtype=np.int64)
        place[[self.terms[term] for term in terms]] = np.arange(len(terms))
        items, codes = np.array(self.items), place[np.array(self.codes)]
        order = np.lexsort((codes, items))
        return terms, items[order], codes[order]


class ColumnsWriter:
    """Takes the items of a version, sorted by id, and writes its columns."""

    def __init__(self) -> None:
        self._entries = array("I")
        self._columns: dict[tuple[str, ...], _Column] = {}

    def add(self, entry: int, metadata: Mapping[str, Any]) -> None:
        """Take in the next item."""
        for names, term in terms_of(metadata):
            self._columns.setdefault(names, _Column()).add(len(self._entries), term)
        self._entries.append(entry)

    def write(self, path: Path | str) -> sqlite3.Connection:
        """Write them into a new file, or ":memory:"; the caller closes it."""
        with sqlite_errors(COLUMNS):
            database = create_database(path, *_TABLES)
            entries = np.array(self._entries, dtype=_ITEM).tobytes()
            database.execute("INSERT INTO items VALUES (?)", (entries,))
            by_key = sorted((_stored(names), names) for names in self._columns)
            for number, (key, names) in enumerate(by_key):
                terms, items, codes = self._columns.pop(names).sorted()
                is_everyone = np.array_equal(items, np.arange(len(self._entries)))
                database.execute(
                    "INSERT INTO columns VALUES (?, ?, ?, ?, ?)",
                    (
                        key,
                        number,
                        len(terms),
                        codes.astype(_code_type(len(terms))).tobytes(),
                        None if is_everyone else items.astype(_ITEM).tobytes(),
                    ),
                )
                database.executemany(
                    "INSERT INTO terms VALUES (?, ?, ?, ?)",
                    ((number, int(t.kind), t.value, code) for code, t in enumerate(terms)),
                )
            database.execute("COMMIT")
        return database


def _stored(names: tuple[str, ...]) -> bytes:
    return key_of(names).encode("utf-8", "surrogatepass")


def _text_of(raw: Any) -> str:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except (AttributeError, UnicodeDecodeError) as exc:
        raise IndexFormatError(f"{COLUMNS} is damaged: {exc}") from exc


def _value_of(kind: int, value: Any) -> bool | int | float | str:
    """A term as JSON has it."""
    if kind == Kind.TEXT:
        return _text_of(value)
    if not isinstance(value, int | float):
        raise IndexFormatError(f"{COLUMNS} is damaged: wanted a number, got {type(value)}")
    return bool(value) if kind == Kind.BOOL else value


def _code_type(terms: int) -> np.dtype[Any]:
    """The smallest type that has a number for each term."""
    return np.dtype("u1" if terms <= 1 << 8 else "<u2" if terms <= 1 << 16 else "<u4")


def _is_within(
    codes: np.ndarray, terms: int, ends: list[tuple[int, int]]
) -> Bool[np.ndarray, " P"]:
    """Which codes lie in one of some ranges of terms."""
    if len(ends) <= _FEW_RANGES:
        within = np.zeros(codes.size, dtype=np.bool_)
        for low, high in ends:
            if low < high:
                # Unsigned: what is below the range wraps round to far above it.
                within |= (codes - codes.dtype.type(low)) < high - low
        return within
    wanted = np.zeros(terms, dtype=np.bool_)
    for low, high in ends:
        wanted[low:high] = True
    return wanted[codes]


class Columns:
    """Look-ups in the columns of a sealed version; safe to share between threads."""

    def __init__(self, database: ReadOnlyDatabase, *, ids: int, entries: int) -> None:
        """Check what is read once; a column is checked when it is asked.

        Raises:
            IndexFormatError: these are not the columns of so many ids over so many entries.
        """
        self._database, self.ids = database, ids
        blobs = database.all("SELECT entries FROM items")
        raw = blobs[0][0] if len(blobs) == 1 else None
        self.entries: Int64[np.ndarray, " I"] = self._array(raw, _ITEM).astype(np.int64)
        if self.entries.size != ids or self.entries.max(initial=-1) >= entries:
            raise IndexFormatError(f"{COLUMNS} is damaged: wanted {ids} items")

    @classmethod
    def open(cls, path: Path, *, ids: int, entries: int) -> "Columns":
        """The columns that a version was written with."""
        return cls(ReadOnlyDatabase.open(path), ids=ids, entries=entries)

    @classmethod
    def of_items(cls, items: ItemsReader, *, ids: int, entries: int) -> "Columns":
        """The columns of a version that was written without, from one look at every item."""
        writer = ColumnsWriter()
        for item in items.items():
            writer.add(item.number, item.metadata)
        database = ReadOnlyDatabase(writer.write(":memory:"), COLUMNS)
        return cls(database, ids=ids, entries=entries)

    @cached_property
    def by_entry(self) -> tuple[Int64[np.ndarray, " I"], Int64[np.ndarray, " N1"]]:
        """The items sorted by entry, then id; and where each entry's begin, and I behind them."""
        order, last = np.argsort(self.entries, kind="stable"), int(self.entries.max(initial=-1))
        starts = np.searchsorted(self.entries[order], np.arange(last + 2))
        return order, starts

    def holding(self, names: tuple[str, ...], spans: Iterable[Span]) -> Bool[np.ndarray, " I"]:
        """Which items hold, at this key, a term in one of the spans."""
        passing = np.zeros(self.ids, dtype=np.bool_)
        found = self._read(names)
        if found is None:
            return passing
        number, terms, codes, items = found
        ends = [
            (self._place(number, terms, low), self._place(number, terms, high))
            for low, high in spans
        ]
        try:
            held = _is_within(codes, terms, ends)
            if items is None:
                return held
            passing[items[held]] = True
        except IndexError as exc:
            raise IndexFormatError(f"{COLUMNS} is damaged: {exc}") from exc
        return passing

    def keys(self, after: str, most: int) -> list[str]:
        """The first keys after one, by byte, as filters name them; not those that are very long."""
        query = "SELECT key FROM columns WHERE key > ? AND length(key) <= ? ORDER BY key LIMIT ?"
        after_bytes = after.encode("utf-8", "surrogatepass")
        found = self._database.all(query, (after_bytes, LONGEST_LISTED, most))
        return [_text_of(key) for (key,) in found]

    def values(
        self, names: tuple[str, ...], prefix: str, most: int
    ) -> list[tuple[bool | int | float | str, int]]:
        """The first values of a key, and how many items hold each; texts that begin with a prefix.

        In the order of terms: booleans, numbers, texts. An empty prefix asks for all of them, but
        for very long texts, and whole numbers beyond every float64, which JSON could not ask for.
        """
        found = self._read(names)
        if found is None:
            return []
        number, terms, codes, _ = found
        low, high = texts_from(prefix) if prefix else (Edge(Term(Kind.BOOL, 0)), Edge(END))
        rows = self._database.all(
            "SELECT kind, value, code FROM terms WHERE key = ? AND (kind, value) >= (?, ?) "
            "AND (kind, value) < (?, ?) AND (typeof(value) <> 'real' OR abs(value) < 9e999) "
            "AND (typeof(value) <> 'blob' OR length(value) <= ?) ORDER BY kind, value LIMIT ?",
            (
                number,
                int(low.term.kind),
                low.term.value,
                int(high.term.kind),
                high.term.value,
                LONGEST_LISTED,
                most,
            ),
        )
        held = np.bincount(codes, minlength=terms)
        try:
            return [(_value_of(kind, value), int(held[code])) for kind, value, code in rows]
        except (IndexError, TypeError) as exc:
            raise IndexFormatError(f"{COLUMNS} is damaged: {exc}") from exc

    def same_as(self, other: "Columns") -> bool:
        """Whether two hold the same, table by table."""
        queries = ("SELECT * FROM items", "SELECT * FROM columns", "SELECT * FROM terms")
        return all(
            mine == theirs
            for query in queries
            for mine, theirs in zip_longest(
                self._database.iterate(query), other._database.iterate(query)
            )
        )

    def close(self) -> None:
        self._database.close()

    def _read(
        self, names: tuple[str, ...]
    ) -> tuple[int, int, np.ndarray, np.ndarray | None] | None:
        """Of a key: the number of its column, its terms, codes, and items, or None of all items."""
        found = self._database.all(
            "SELECT number, CAST(terms AS INTEGER), codes, items FROM columns WHERE key = ?",
            (_stored(names),),
        )
        if not found:
            return None
        number, terms, raw_codes, raw_items = found[0]
        codes = self._array(raw_codes, _code_type(terms))
        items = None if raw_items is None else self._array(raw_items, _ITEM)
        # Each term is held by somebody.
        if codes.size != (self.ids if items is None else items.size) or not (
            0 < terms <= codes.size
        ):
            raise IndexFormatError(f"{COLUMNS} is damaged: a column has another length")
        return number, terms, codes, items

    def _place(self, number: int, terms: int, edge: Edge) -> int:
        """How many terms of a column lie before an edge."""
        sign = ">" if edge.is_after else ">="
        query = (
            "SELECT CAST(code AS INTEGER) FROM terms "  # noqa: S608 (fixed text)
            f"WHERE key = ? AND (kind, value) {sign} (?, ?) ORDER BY kind, value LIMIT 1"
        )
        found = self._database.all(query, (number, int(edge.term.kind), edge.term.value))
        return min(max(found[0][0], 0), terms) if found else terms

    def _array(self, raw: Any, dtype: np.dtype[Any]) -> np.ndarray:
        """Numbers as they were written."""
        if not isinstance(raw, bytes) or len(raw) % dtype.itemsize:
            raise IndexFormatError(
                f"{COLUMNS} is damaged: wanted numbers of {dtype.itemsize} bytes"
            )
        return np.frombuffer(raw, dtype=dtype)
