"""Items of several rows: the views of one picture, which stand in an answer as one.

An item's score is the best of its rows'. Item p is before item q as soon as for every row b of q
some row a of p is ahead, and that a may depend on b. So what holds of pairs of rows becomes what
holds of pairs of items as the least over b of the largest over a.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped


@dataclass(frozen=True, eq=False)
class ItemRows:
    """Rows of several items among some candidates, all rows of one item together.

    Attributes:
        positions: of the rows among the candidates, (A,).
        starts: where each item's rows begin, (K,); None where every item has one.
    """

    positions: Int64[np.ndarray, " A"]
    starts: Int64[np.ndarray, " K"] | None

    @classmethod
    def sorted_by(
        cls, keys: Int64[np.ndarray, " A"], positions: Int64[np.ndarray, " A"]
    ) -> "ItemRows":
        """Rows grouped by a key each that is equal for those of one item, in its order."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: ordered.size])
        return cls(positions[order], starts)

    @property
    def count(self) -> int:
        """Number of items, K."""
        return self.positions.size if self.starts is None else self.starts.size

    @property
    def first(self) -> Int64[np.ndarray, " K"]:
        """Position of one row of each item."""
        return self.positions if self.starts is None else self.positions[self.starts]

    def largest(self, values: Float64[np.ndarray, "A ..."]) -> Float64[np.ndarray, "K ..."]:
        """Of numbers of rows, along the first axis, the largest of each item."""
        if self.starts is None or values.size == 0:
            return values[: self.count]
        return np.maximum.reduceat(values, self.starts, axis=0)

    def smallest(self, values: Float64[np.ndarray, "... A"]) -> Float64[np.ndarray, "... K"]:
        """Of numbers of rows, along the last axis, the smallest of each item."""
        if self.starts is None or values.size == 0:
            return values[..., : self.count]
        return np.minimum.reduceat(values, self.starts, axis=-1)

    def spread(self, values: Shaped[np.ndarray, " K"]) -> Shaped[np.ndarray, " A"]:
        """Of what is said of items, what is said of their rows."""
        return values if self.starts is None else np.repeat(values, self._lengths())

    def take(self, items: Bool[np.ndarray, " K"]) -> "ItemRows":
        """Some of the items."""
        positions = self.positions[self.spread(items)]
        if self.starts is None:
            return ItemRows(positions, None)
        lengths = self._lengths()[items]
        return ItemRows(positions, np.cumsum(lengths) - lengths)

    def blocks(self, rows: int) -> Iterator["ItemRows"]:
        """In order, parts of about so many rows, at least one item each."""
        if self.starts is None:
            for start in range(0, self.positions.size, rows):
                yield ItemRows(self.positions[start : start + rows], None)
            return
        ends = np.append(self.starts[1:], self.positions.size)
        item = 0
        while item < self.starts.size:
            start = int(self.starts[item])
            after = max(item + 1, int(np.searchsorted(ends, start + rows, side="right")))
            starts = self.starts[item:after] - start
            yield ItemRows(self.positions[start : int(ends[after - 1])], starts)
            item = after

    def _lengths(self) -> Int64[np.ndarray, " K"]:
        assert self.starts is not None  # noqa: S101 - asked only of items of several rows.
        return np.diff(np.append(self.starts, self.positions.size))
