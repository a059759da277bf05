"""The counters of one process, as a storage of the library `limits`, bounded in number."""

import time
from collections import OrderedDict

from limits.aio.storage import MemoryStorage

_FIRST_SWEEP = 1024
MOST_COUNTERS = 65_536
"""Counters held at a time: 15 MB."""


class LocalCounters(MemoryStorage):
    """The library's storage in memory, without its look through all counters at each request.

    With 20,000 callers that look takes 3 ms of the event loop, each time. Here what has expired is
    thrown away when the counters have doubled in number: a share of a look for each request.

    Windows end by the monotonic clock: a machine's clock that is set back by a day would otherwise
    keep a caller out for a day, and one that is set forward would let it in too early.

    Whoever asks from very many addresses makes as many counters, and none of them expires before
    its window ends. One too many takes the place of the one whose window began longest ago. Nobody
    is refused for it, and nothing is lost that was worth something: who has so many addresses has
    so many quotas already.
    """

    # Of its own, or the library would hand this class out for its own `async+memory`.
    STORAGE_SCHEME = ["async+lipsim"]  # noqa: RUF012 - as the base class types it

    def __init__(self) -> None:
        super().__init__()
        self._sweep_at = _FIRST_SWEEP
        # In the order in which their windows began; a plain dict is slow to give its first away.
        self._ends: OrderedDict[str, float] = OrderedDict()
        self.expirations = self._ends

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; a window begins with the first count in it.

        Nothing is awaited in between, so that no two requests get the same number.
        """
        now = time.monotonic()
        if self._ends.get(key, 0.0) <= now:
            self._ends[key] = now + expiry
            self._ends.move_to_end(key)
            self.storage[key] = 0
        self.storage[key] += amount
        count = self.storage[key]
        if len(self._ends) >= self._sweep_at:
            self._sweep(now)
        if len(self._ends) > MOST_COUNTERS:
            oldest, _ = self._ends.popitem(last=False)
            del self.storage[oldest]
        return count

    async def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since the epoch by the clock as it is set now."""
        return time.time() + max(0.0, self._ends.get(key, 0.0) - time.monotonic())

    async def close(self) -> None:
        """Nothing to close: they are in memory."""

    def _sweep(self, now: float) -> None:
        for key in [key for key, end in self._ends.items() if end <= now]:
            del self._ends[key], self.storage[key]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._ends))
