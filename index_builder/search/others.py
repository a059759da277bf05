"""A gallery without one of its entries, as a search sees it: for queries that are that entry."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from index_builder.search.certified import SearchableIndex
from model.certificate.pairs import Candidates


@dataclass(frozen=True)
class OtherEntries:
    """All entries of an index but one; what is proved of the others needs no look at it.

    `everything` copies the other rows: their map is cut in two.
    """

    index: SearchableIndex
    entry: int

    @property
    def vector_count(self) -> int:
        return self.index.vector_count - self._own_rows

    @property
    def size(self) -> int:
        return self.index.size - 1

    @property
    def most_views(self) -> int:
        return self.index.most_views

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """At least the m best other rows of each query."""
        found = self.index.search(queries, m + self._own_rows)
        return [without_entry(one, self.entry, self._own_rows) for one in found]

    def everything(self) -> Candidates:
        return without_entry(self.index.everything(), self.entry, self._own_rows)

    def of_items(self, items: Int64[np.ndarray, " I"]) -> Candidates:
        return without_entry(self.index.of_items(items), self.entry, self._own_rows)

    @property
    def _own_rows(self) -> int:
        return self.index.of_items(np.array([self.entry])).rows.size


def without_entry(candidates: Candidates, entry: int, rows: int) -> Candidates:
    """The same candidates of a gallery that has not this entry, of so many rows."""
    is_other = candidates.numbers != entry
    return replace(
        candidates,
        rows=candidates.rows[is_other],
        vectors=np.asarray(candidates.vectors)[is_other],
        items=None if candidates.items is None else candidates.items[is_other],
        size=candidates.size - rows,
        item_count=candidates.items_in_gallery - 1,
    )
