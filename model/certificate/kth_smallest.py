"""The k smallest of numbers that arrive in blocks."""

import numpy as np
from jaxtyping import Float64


class KthSmallest:
    """The k smallest numbers of each of several rows that arrive in blocks."""

    def __init__(self, k: int, count: int) -> None:
        self._k, self._count, self._width = k, count, 0
        self._parts: list[Float64[np.ndarray, "K B"]] = []
        self._is_settled = False
        # Upper bound of the k-th smallest so far, (K,); inf while fewer have come.
        self.limit: Float64[np.ndarray, " K"] | float = np.inf

    def add(self, block: Float64[np.ndarray, "K B"]) -> None:
        """Take in more columns; what can no longer be among the k smallest is forgotten at times.

        Not at each block: to part k + B numbers for B new ones would cost more than they do.
        """
        self._parts.append(block)
        self._width += block.shape[1]
        self._is_settled = False
        if self._width >= self._k + self._k // 2:
            self._settle()

    def kth(self, k: int | None = None) -> Float64[np.ndarray, " K"]:
        """The k-th smallest of each row, (K,); inf where there were fewer.

        Args:
            k: at most the one given at the start, which is the default.
        """
        wanted = self._k if k is None else k
        if self._width < wanted:
            return np.full(self._count, np.inf)
        smallest = self._settle()
        if wanted == smallest.shape[1]:
            return smallest.max(axis=1)
        return np.partition(smallest, wanted - 1, axis=1)[:, wanted - 1]

    def _settle(self) -> Float64[np.ndarray, "K W"]:
        if self._is_settled:
            return self._parts[0]
        seen = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)
        if seen.shape[1] > self._k:
            seen = np.partition(seen, self._k - 1, axis=1)[:, : self._k]
            self.limit = seen[:, -1]
        elif seen.shape[1] == self._k:
            self.limit = seen.max(axis=1)
        self._parts, self._width, self._is_settled = [seen], seen.shape[1], True
        return seen
