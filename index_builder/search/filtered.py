"""A part of a gallery, chosen by a filter, as an index of its own: what a search of it needs.

Entries are numbered by their first passing id and rows by entry, as in an index built of the
passing items alone: so ranks, ties, counts and certificates are those of that index.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from index_builder.filters.evaluate import FilterCache
from index_builder.filters.language import Filter
from index_builder.search.faiss_flat import CpuFlatSearch
from index_builder.search.gallery import GalleryIndex
from index_builder.search.unseen import float32_query, unseen_bound
from index_builder.store.items import Entry, Item
from index_builder.store.vectors import Rows
from model.certificate.pairs import Candidates

# Below this share of the rows it takes less time to fetch them than to scan the gallery and drop
# what does not pass.
_GATHER_BELOW = 1 / 12

_BLOCK_BYTES = 1 << 24


class FilteredIndex:
    """The entries of a gallery of which an item passes; a `SearchableIndex`.

    Attributes:
        gallery: the whole of it.
        matching_ids: how many items pass.
        numbers: of the gallery, of each entry here, (n,).
    """

    def __init__(self, gallery: GalleryIndex, passing: Bool[np.ndarray, " I"]) -> None:
        """The part of a gallery that holds the passing items, by id in order of code points."""
        self.gallery, self._passing = gallery, passing
        items = np.flatnonzero(passing)
        self.matching_ids = items.size
        if gallery.manifest.ids == gallery.size:
            self.numbers: Int64[np.ndarray, " n"] = items
        else:
            first = np.full(gallery.size, -1)
            # Backwards, so that the first of an entry's items is written last, and stays.
            first[gallery.columns.entries[items[::-1]]] = items[::-1]
            entries = np.flatnonzero(first >= 0)
            self.numbers = entries[np.argsort(first[entries], kind="stable")]
        self._rows = gallery.rows.of_entries(self.numbers)

    @classmethod
    def of(cls, gallery: GalleryIndex, wanted: Filter, cache: FilterCache) -> "FilteredIndex":
        """The part of a gallery that passes a filter."""
        seal = gallery.manifest.seal
        return cls(gallery, cache.passing_items(seal, wanted, gallery.columns, gallery.items))

    @property
    def name(self) -> str:
        """That of the gallery."""
        return self.gallery.name

    @property
    def size(self) -> int:
        """Entries of which an item passes."""
        return self.numbers.size

    @property
    def vector_count(self) -> int:
        """Rows of these entries."""
        return self._rows.size

    @property
    def most_views(self) -> int:
        """The most rows that one of the gallery's entries has."""
        return self.gallery.most_views

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """The m rows of largest score for each query, or some more or less, and a bound on others.

        Where few rows pass, they alone are scanned. Else the whole gallery is asked for more and
        what does not pass is dropped: no row that was not brought back scores above the last that
        was. A query whose neighbourhood does not pass has the passing rows scanned after all.
        """
        if m >= self.vector_count:
            return [self.everything()] * len(queries)
        share = self.vector_count / self.gallery.vector_count
        depth = int(m / share) + 1
        if share < _GATHER_BELOW or depth >= self.gallery.vector_count:
            return self._gather(queries, m)
        found: dict[int, Candidates] = {}
        for place, best in enumerate(self.gallery.best_rows(queries, depth)):
            if best is not None:
                rows = self._place_of[best[0]]
                passing = rows[rows >= 0]
                if passing.size >= m // 2:
                    found[place] = self._candidates(passing, best[1])
        poor = [place for place in range(len(queries)) if place not in found]
        if poor:
            found.update(zip(poor, self._gather(queries[poor], m), strict=True))
        return [found[place] for place in range(len(queries))]

    def everything(self) -> Candidates:
        """All rows: a full scan, with nothing unseen."""
        return self._candidates(np.arange(self.vector_count), -np.inf)

    def of_items(self, items: Int[np.ndarray, " n"]) -> Candidates:
        """Every row of these entries."""
        return self._candidates(self._own.of_entries(items), -np.inf)

    def entries(self, numbers: Sequence[int] | Int[np.ndarray, " E"]) -> list[Entry]:
        """Entries by what of them passes: the first id with its metadata, and the other ids."""
        entries = [int(self.numbers[number]) for number in numbers]
        order, starts = self.gallery.columns.by_entry
        passing = [self._passing[order[starts[one] : starts[one + 1]]].tolist() for one in entries]
        return self.gallery.items.entries(entries, passing)

    def views(self, rows: Int[np.ndarray, " A"]) -> list[str]:
        """The name of the view that each of these rows is of."""
        return self.gallery.views(self._rows[rows])

    def page(self, after: str, limit: int) -> list[Item]:
        """The first passing items whose ids come after one by code point."""
        items = np.flatnonzero(self._passing)
        start = bisect_right(items, after, key=lambda item: self._at([int(item)])[0].id)
        return self._at(items[start : start + limit].tolist())

    def _at(self, items: list[int]) -> list[Item]:
        """Items of the gallery, as columns count them."""
        columns, (order, starts) = self.gallery.columns, self.gallery.columns.by_entry
        places: list[tuple[int, int]] = []
        for item in items:
            entry = int(columns.entries[item])
            own = order[starts[entry] : starts[entry + 1]]
            places.append((entry, int(np.searchsorted(own, item))))
        return self.gallery.items.at(places)

    @cached_property
    def _own(self) -> Rows:
        """The rows, numbered as here."""
        rows = self.gallery.rows
        counts = rows.starts[self.numbers + 1] - rows.starts[self.numbers]
        return Rows(
            np.repeat(np.arange(self.size), counts),
            rows.views[self._rows],
            rows.embedding_norms[self._rows],
        )

    @cached_property
    def _place_of(self) -> Int64[np.ndarray, " R"]:
        """The number here of each row of the gallery; -1 of those that do not pass."""
        places = np.full(self.gallery.vector_count, -1)
        places[self._rows] = np.arange(self._rows.size)
        return places

    def _gather(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """The m best of a scan of the passing rows, which are fetched a block at a time."""
        scaled = [float32_query(query) for query in queries]
        asked, vectors = np.stack([query.vector for query in scaled]), self.gallery.vectors
        length = max(1, _BLOCK_BYTES // (4 * self.gallery.dim))
        blocks: list[tuple[np.ndarray, np.ndarray]] = []
        for start in range(0, self._rows.size, length):
            block = CpuFlatSearch(vectors[self._rows[start : start + length]])
            scores, rows = block.search(asked, m)
            blocks.append((scores, np.where(rows < 0, rows, rows + start)))
        scores, rows = (np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :m]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        return [
            self.everything()
            if found.min() < 0
            else self._candidates(
                found, unseen_bound(query, float(score.min()), self.gallery.norm_deviation)
            )
            for query, score, found in zip(scaled, scores, rows, strict=True)
        ]

    def _candidates(self, rows: Int[np.ndarray, " A"], unseen_score: float) -> Candidates:
        return replace(
            self.gallery.everything(),
            rows=rows,
            vectors=self.gallery.vectors[self._rows[rows]],
            unseen_score=unseen_score,
            size=self.vector_count,
            items=None if self.most_views == 1 else self._own.entries[rows],
            item_count=self.size,
        )


Searched = GalleryIndex | FilteredIndex
