"""The counters of one process, as a storage of the library `limits`."""

import time

from limits.aio.storage import MemoryStorage

_FIRST_SWEEP = 1024


class LocalCounters(MemoryStorage):
    """The library's storage in memory, without its look through all counters at each request.

    With 20,000 callers that look takes 3 ms of the event loop, each time. Here what has expired is
    thrown away when the counters have doubled in number: a share of a look for each request.

    Windows end by the monotonic clock: a machine's clock that is set back by a day would otherwise
    keep a caller out for a day, and one that is set forward would let it in too early.
    """

    # Of its own, or the library would hand this class out for its own `async+memory`.
    STORAGE_SCHEME = ["async+lipsim"]  # noqa: RUF012 - as the base class types it

    def __init__(self) -> None:
        super().__init__()
        self._sweep_at = _FIRST_SWEEP

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; a window begins with the first count in it.

        Nothing is awaited in between, so that no two requests get the same number.
        """
        now = time.monotonic()
        if self.expirations.get(key, 0.0) <= now:
            self.expirations[key] = now + expiry
            self.storage[key] = 0
        self.storage[key] += amount
        count = self.storage[key]
        if len(self.expirations) >= self._sweep_at:
            self._sweep(now)
        return count

    async def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since the epoch by the clock as it is set now."""
        return time.time() + max(0.0, self.expirations.get(key, 0.0) - time.monotonic())

    def _sweep(self, now: float) -> None:
        for key in [key for key, end in self.expirations.items() if end <= now]:
            del self.expirations[key], self.storage[key]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self.expirations))
