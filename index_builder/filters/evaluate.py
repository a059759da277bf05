"""Which items of an index pass a filter, and the sets that are kept for those who ask again."""

import threading
from collections import OrderedDict

import numpy as np
from jaxtyping import Bool, UInt8

from index_builder.filters.language import (
    ANYTHING,
    Clause,
    Filter,
    Group,
    HasId,
    Holds,
    HoldsNone,
    Not,
)
from index_builder.store.columns import Columns
from index_builder.store.items import ItemsReader

Mask = Bool[np.ndarray, " I"]

# What an entry of a cache takes beside its bits and its text.
_OVERHEAD_BYTES = 500


def passing_items(wanted: Filter, columns: Columns, items: ItemsReader) -> Mask:
    """Which items pass, by id in order of code points, (I,)."""
    return _passing(wanted.root, columns, items)


def _passing(clause: Clause, columns: Columns, items: ItemsReader) -> Mask:
    match clause:
        case Holds():
            return columns.holding(clause.key, clause.spans)
        case HoldsNone():
            there = columns.holding(clause.key, (ANYTHING,))
            return there & ~columns.holding(clause.key, clause.spans)
        case Not():
            return ~_passing(clause.clause, columns, items)
        case HasId():
            return _of_ids(clause.ids, columns, items)
        case Group():
            return _of_group(clause, columns, items)


def _of_group(group: Group, columns: Columns, items: ItemsReader) -> Mask:
    passing = np.ones(columns.ids, dtype=np.bool_)
    for clause in group.must:
        passing &= _passing(clause, columns, items)
    for clause in group.must_not:
        passing &= ~_passing(clause, columns, items)
    if group.should:
        passing &= np.logical_or.reduce([_passing(one, columns, items) for one in group.should])
    return passing


def _of_ids(ids: tuple[str, ...], columns: Columns, items: ItemsReader) -> Mask:
    passing = np.zeros(columns.ids, dtype=np.bool_)
    places = np.array(items.places(ids), dtype=np.int64).reshape(-1, 2)
    by_entry, starts = columns.by_entry
    passing[by_entry[starts[places[:, 0]] + places[:, 1]]] = True
    return passing


class FilterCache:
    """Sets of passing items as bitmaps, those asked for last; safe to share between threads."""

    def __init__(self, max_bytes: int) -> None:
        """A cache that forgets, beyond so many bytes, what was not asked for the longest."""
        self._max_bytes = max_bytes
        self._sets: OrderedDict[tuple[str, str], UInt8[np.ndarray, " P"]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def passing_items(
        self, seal: str, wanted: Filter, columns: Columns, items: ItemsReader
    ) -> Mask:
        """As the function of that name; `seal` tells the version of the index from any other."""
        key = (seal, wanted.text)
        with self._lock:
            bits = self._sets.get(key)
            if bits is not None:
                self._sets.move_to_end(key)
        if bits is not None:
            return np.unpackbits(bits, count=columns.ids).view(np.bool_)
        passing = passing_items(wanted, columns, items)
        self._keep(key, np.packbits(passing))
        return passing

    def _keep(self, key: tuple[str, str], bits: UInt8[np.ndarray, " P"]) -> None:
        with self._lock:
            if key not in self._sets:
                self._sets[key] = bits
                self._bytes += _size(key, bits)
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._sets.popitem(last=False))


def _size(key: tuple[str, str], bits: UInt8[np.ndarray, " P"]) -> int:
    return bits.nbytes + 4 * len(key[1]) + _OVERHEAD_BYTES
