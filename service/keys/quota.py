"""Requests per fixed window of time for each caller, counted in Redis for all replicas or here."""

import math
import time
from collections import OrderedDict
from typing import NamedTuple

from limits import RateLimitItem

from service.errors import QuotaError
from service.observability.logs import ThrottledWarning
from service.redis.link import RedisAwayError, RedisLink, RedisRefusedError

MOST_WINDOWS = 65_536
"""Windows held in the process at a time: 15 MB."""

_FIRST_SWEEP = 1024
_LOG_EVERY_S = 60.0
# Named as the library `limits` names them: replicas of earlier versions count in the same windows.
_PREFIX = "lipsim:quota:"
_NO_KEY = -2
# Between the beginning of a window and our look at its end.
_CLOCK_SLACK_MS = 1000


class Allowance(NamedTuple):
    """Where a caller stands after one of its requests was counted."""

    is_exceeded: bool
    limit: int
    remaining: int
    reset_s: int

    def check(self, count: int = 1) -> None:
        """Refuse the request that was one too many, or the so many that were.

        Raises:
            QuotaError: it was.
        """
        if self.is_exceeded:
            used = f"{self.limit} requests are used up"
            if count > 1:
                used = f"{count} more requests are wanted, {self.remaining} are left"
            raise QuotaError(
                f"{used}; the next {self.limit} begin in {self.reset_s} s",
                retry_after_s=self.reset_s,
            )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As an answer tells it; seconds, from now."""
        return [
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % self.remaining),
            (b"ratelimit-reset", b"%d" % self.reset_s),
        ]


class Meter:
    """What one request uses of its caller's quota: one from its headers, the rest once known.

    Attributes:
        allowance: where the caller stood when something was last counted.
    """

    def __init__(self, quota: "Quota", caller: str, rate: RateLimitItem) -> None:
        self._quota, self._caller, self._rate = quota, caller, rate
        self.allowance: Allowance | None = None

    async def charge(self, count: int = 1) -> None:
        """Count so many requests, all or none.

        Raises:
            QuotaError: they are more than are left.
        """
        self.allowance = await self._quota.take(self._caller, self._rate, count)
        self.allowance.check(count)


class Quota:
    """Counts requests in fixed windows; a caller's window begins with its first request.

    One increment, which is atomic in Redis as in the process, decides: among any number of requests
    at once, exactly as many are let in as the rate says. Refused requests count too, without a
    consequence, as the window ends all the same. While Redis is away, requests are counted in this
    process: a caller may then have its rate once more for each process, and not without end.

    Args:
        link: Redis, which replicas share; None: this process counts alone.
    """

    def __init__(self, link: RedisLink | None = None) -> None:
        self._link = link
        self._local = LocalWindows()
        self._refused = ThrottledWarning("quota_storage_failed", every_s=_LOG_EVERY_S)

    async def take(self, caller: str, rate: RateLimitItem, count: int = 1) -> Allowance:
        """Count one request, or one that is worth several: all of them, or none.

        Args:
            caller: whose; of bounded length.
            rate: what this caller has.
            count: what the request is worth.

        Returns:
            Where the caller stands; `is_exceeded` says that this request was one too many.
        """
        name, window_s = rate.key_for(caller), rate.get_expiry()
        used, left_s = await self._add(name, window_s, count)
        is_exceeded = used > rate.amount
        if is_exceeded and count > 1:  # What is not done is not charged; others may still ask.
            used, left_s = await self._add(name, window_s, -count)
        # Rounded up, so that who waits this long is in the next window; but not for what a
        # difference of two large floats is too large.
        reset_s = max(1, math.ceil(round(left_s, 6)))
        return Allowance(is_exceeded, rate.amount, max(0, rate.amount - used), reset_s)

    async def _add(self, name: str, window_s: int, count: int) -> tuple[int, float]:
        """What is used of a window after so many more, and the seconds it lasts."""
        link = self._link
        counted = None if link is None else await self._count(link, name, window_s, count)
        return counted or self._local.count(name, window_s, count)

    async def _count(
        self, link: RedisLink, name: str, window_s: int, by: int
    ) -> tuple[int, float] | None:
        """Count, and seconds left, of the window in Redis; None if there can be none.

        What somebody else wrote there, so that it is no counter of ours, is deleted.
        """
        key = _PREFIX + name
        try:
            # The second decides; a window that ends between the first and it has no end, and goes.
            _, count, left_ms = await link.ask_all(
                [
                    (b"SET", key, 0, b"EX", window_s, b"NX"),
                    (b"INCRBY", key, by),
                    (b"PTTL", key),
                ]
            )
        except RedisAwayError:  # The link logs it.
            return None
        except RedisRefusedError as error:
            problem = str(error)
        else:
            if isinstance(count, int) and isinstance(left_ms, int) and count >= 1:
                if left_ms == _NO_KEY:  # It ended while it was asked about.
                    return count, 0.0
                if 0 <= left_ms <= 1000 * window_s + _CLOCK_SLACK_MS:
                    return count, left_ms / 1000
            problem = f"no counter: {count!r:.40}, {left_ms!r:.40} ms left"
        self._refused.write(problem=problem[:200], counted="in this process")
        link.post(b"UNLINK", key)
        return None


class LocalWindows:
    """The windows of one process, bounded in number. Used on the event loop alone.

    They end by the monotonic clock: a machine's clock that is set back by a day would otherwise
    keep a caller out for a day, and one that is set forward would let it in too early. Those that
    have ended are thrown away when the windows have doubled in number: a share of a look for each
    request.

    Whoever asks from very many addresses makes as many windows. One too many takes the place of the
    one that began longest ago: nobody is refused for it, and one client of very many addresses has
    very many quotas anyway.
    """

    def __init__(self) -> None:
        self._sweep_at = _FIRST_SWEEP
        # End and count, in the order in which they began; a plain dict is slow to pop its first.
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def count(self, name: str, window_s: float, by: int = 1) -> tuple[int, float]:
        """Count requests; gives how many there were in the window, and the seconds it lasts."""
        now = time.monotonic()
        end, count = self._windows.get(name, (-math.inf, 0))
        if end <= now:
            self._windows.pop(name, None)
            end, count = now + window_s, 0
        count = max(0, count + by)
        self._windows[name] = end, count
        if len(self._windows) >= self._sweep_at:
            self._sweep(now)
        if len(self._windows) > MOST_WINDOWS:
            self._windows.popitem(last=False)
        return count, end - now

    def _sweep(self, now: float) -> None:
        for name in [name for name, (end, _) in self._windows.items() if end <= now]:
            del self._windows[name]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._windows))
