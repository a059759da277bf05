"""Counters of quotas that replicas share, as a storage of the library `limits`."""

import asyncio
import contextlib
import math
import time
from typing import Any, cast

from limits.aio.storage import RedisStorage
from redis.asyncio import Redis

from service.redis.client import CONNECT_TIMEOUT_S, patience

_SCHEMES = {"redis": "async+redis", "rediss": "async+rediss", "unix": "async+redis+unix"}
_NO_END = -1


class SharedCounters(RedisStorage):
    """The library's storage in Redis, which tells to the millisecond when a window ends.

    The library asks in whole seconds: in the last half of one a window looked as if it had ended,
    and a counter without an end, which somebody else has put there, looked the same.

    Args:
        url: of Redis.
        timeout_s: longest wait for an answer.
    """

    # Of its own, or the library would hand this class out for its own schemes.
    STORAGE_SCHEME = ["async+lipsim+redis"]  # noqa: RUF012 - as the base class types it

    def __init__(self, url: str, *, timeout_s: float) -> None:
        scheme, _, rest = url.partition("://")
        super().__init__(
            f"{_SCHEMES[scheme]}://{rest}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="lipsim:quota",
            **cast("dict[str, Any]", patience(timeout_s)),
        )

    async def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since the epoch; now if it just did, inf if never."""
        left_ms: int = await self._client.pttl(self.bridge.prefixed_key(key))
        return math.inf if left_ms == _NO_END else time.time() + max(0, left_ms) / 1000

    async def close(self) -> None:
        """Close the connections."""
        # A Redis that hangs must not hold up the end.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._client.aclose()

    @property
    def _client(self) -> Redis:
        # The library does not type it.
        return cast("Any", self.bridge).get_connection()
