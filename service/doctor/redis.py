"""Redis, where one is set: does it answer, and may embeddings be kept there."""

import asyncio
from collections.abc import Iterator

from redis.exceptions import RedisError

from service.doctor.findings import Finding, ok, warning
from service.remote.client import make_client


def check_redis(url: str | None, *, has_secret: bool, timeout_s: float) -> Iterator[Finding]:
    """Ask it once; without it the service serves all the same, so nothing here is a failure."""
    if url is None:
        yield ok("none is set: cache and quota are this process's own")
        return
    try:
        version = asyncio.run(_version(url, timeout_s))
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        yield warning(
            f"does not answer: {type(error).__name__}",
            "see that it runs, and LIPSIM_REDIS_URL; until then caches and quotas are local",
        )
        return
    if has_secret:
        yield ok(f"Redis {version} answers")
    else:
        yield warning(
            f"Redis {version} answers, and no embedding is kept there",
            "set LIPSIM_CACHE_SECRET to 32 random characters, the same in every replica",
        )


async def _version(url: str, timeout_s: float) -> str:
    client = make_client(url, timeout_s=timeout_s)
    try:
        # The library types its answers as awaitable or not.
        info = await client.info("server")  # pyright: ignore[reportUnknownMemberType]
        return str(info.get("redis_version", "of unknown version"))
    finally:
        await client.aclose()
