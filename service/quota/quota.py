"""Requests per window, counted for each caller in a storage that several processes may share."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from limits import RateLimitItem
from limits.aio.storage import Storage
from limits.errors import StorageError
from redis.exceptions import ResponseError

from service.observability.throttled_warning import RareLine
from service.quota.local import LocalCounters

# A storage that does not answer is given up, for this one request and for some time after.
_STORAGE_TIMEOUT_S = 0.5
_STORAGE_REST_S = 5.0
_LOG_EVERY_S = 60.0
# Between the storage's look at its clock and ours at our own.
_CLOCKS_DIFFER_S = 1.0


class Allowance(NamedTuple):
    """Where a caller stands after one of its requests was counted."""

    is_exceeded: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As an answer tells it; seconds, from now."""
        return [
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % self.remaining),
            (b"ratelimit-reset", b"%d" % self.reset_s),
        ]


class Quota:
    """Counts requests in fixed windows; a caller's window begins with its first request.

    One increment, which a storage does atomically, decides: among any number of requests at once,
    exactly as many are let in as the rate says. Refused requests count too, without a consequence,
    as the window ends all the same. While the storage fails, the requests are counted in this
    process: a caller may then have its rate once more for each process, and not without end. A
    counter that somebody else wrote to, so that it can be none, is thrown away.

    Args:
        storage: of the library `limits`; shared by all processes that share the quota.
        clock: seconds since the epoch, as the storage counts them.
        monotonic: seconds of the clock that says when a failed storage is tried again.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._local = LocalCounters()
        self._clock = clock
        self._monotonic = monotonic
        self._rests_until = float("-inf")
        self._failures = RareLine("quota_storage_failed", every_s=_LOG_EVERY_S)

    async def take(self, caller: str, rate: RateLimitItem) -> Allowance:
        """Count one request.

        Args:
            caller: whose; of bounded length.
            rate: what this caller has.

        Returns:
            Where the caller stands; `is_exceeded` says that this request was one too many.
        """
        count, ends_at = await self._count(rate.key_for(caller), rate.get_expiry())
        # Rounded up, so that who waits this long is in the next window.
        reset_s = max(1, math.ceil(ends_at - self._clock()))
        left = rate.amount - count
        return Allowance(left < 0, rate.amount, max(0, left), reset_s)

    async def _count(self, name: str, window_s: int) -> tuple[int, float]:
        if self._monotonic() >= self._rests_until:
            try:
                async with asyncio.timeout(_STORAGE_TIMEOUT_S):
                    count, ends_at = await _increment(self._storage, name, window_s)
                    # A window that ended while it was asked about is one of ours, too.
                    left_s = ends_at - self._clock()
                    if count >= 1 and -_CLOCKS_DIFFER_S <= left_s <= window_s + _CLOCKS_DIFFER_S:
                        return count, ends_at
                    # No counter of ours: below nothing, without an end, or with one too far away.
                    await self._storage.clear(name)
            # Each kind of storage has errors of its own.
            except Exception as error:
                self._rests_until = self._monotonic() + _STORAGE_REST_S
                self._failures.write(problem=repr(error), counted="in this process")
                if isinstance(error, StorageError) and isinstance(
                    error.storage_error, ResponseError
                ):
                    await self._forget(name)
        return await _increment(self._local, name, window_s)

    async def _forget(self, name: str) -> None:
        """Throw away what stands in a counter's place and cannot be counted up."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STORAGE_TIMEOUT_S):
                await self._storage.clear(name)


async def _increment(storage: Storage, name: str, window_s: int) -> tuple[int, float]:
    count = await storage.incr(name, window_s)
    return count, await storage.get_expiry(name)
