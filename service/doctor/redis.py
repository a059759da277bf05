"""Redis, where one is set: does it answer, and may embeddings be kept there."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

from redis.exceptions import RedisError, ResponseError

from service.doctor.findings import Finding, ok, warning
from service.redis.client import make_client
from service.redis.link import PROBES


def check_redis(url: str | None, *, has_secret: bool, timeout_s: float) -> Iterator[Finding]:
    """Ask it once; without it the service serves all the same, so nothing here is a failure."""
    if url is None:
        yield ok("none is set: cache and quota are this process's own")
        return
    try:
        refusal = asyncio.run(_refusal_of_a_write(url, timeout_s))
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        yield warning(
            f"does not answer: {type(error).__name__}",
            "see that it runs, and LIPSIM_REDIS_URL; until then caches and quotas are local",
        )
        return
    if refusal:
        yield warning(
            f"Redis answers, and refuses to write: {refusal:.200}",
            "give it memory and the user the rights that docs/redis.md lists",
        )
    elif has_secret:
        yield ok("Redis answers and takes what is written")
    else:
        yield warning(
            "Redis answers, and no embedding is kept there",
            "set LIPSIM_CACHE_SECRET to 32 random characters, the same in every replica",
        )


async def _refusal_of_a_write(url: str, timeout_s: float) -> str:
    """Why it takes no write; empty if it does. As the service probes: few rights are enough."""
    client = make_client(url, timeout_s=timeout_s)
    try:
        for command in PROBES:
            # The library types its answers as awaitable or not.
            await cast("Any", client).execute_command(*command)
    except ResponseError as error:
        return str(error)
    finally:
        await client.aclose()
    return ""
