"""How this service talks to Redis: short timeouts, few connections, at most one second try."""

from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

# A connection may take longer than a command: it is made once, and mostly by a probe.
CONNECT_TIMEOUT_S = 1.0
_CONNECTIONS = 32


def make_client(url: str, *, timeout_s: float) -> Redis:
    """A client of the Redis at a URL; it connects when it is first asked.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: longest wait for an answer, and for a free connection.
    """
    # The library leaves its keyword arguments untyped.
    pool: BlockingConnectionPool = cast("Any", BlockingConnectionPool).from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=timeout_s,
        protocol=2,  # Nothing of the newer one is used, and every server speaks this one.
        **patience(timeout_s),
    )
    return Redis.from_pool(pool)


def patience(timeout_s: float) -> dict[str, object]:
    """How long a client of redis-py waits, and how often it tries."""
    # Only a connection that was found dead is worth a second try at once: Redis was started again
    # and nobody had told us. One that is silent would be silent twice.
    retry = Retry(NoBackoff(), retries=1, supported_errors=(RedisConnectionError,))
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": retry,
    }
