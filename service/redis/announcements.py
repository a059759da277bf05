"""Replicas tell each other that an index has a new version. A hint to look, and nothing more."""

import asyncio
import contextlib
from typing import Any, cast

import structlog

from index_builder.build.shared_progress import CHANNEL
from service.redis.link import RedisLink

# However many hints come, looks are at least so far apart.
_LEAST_PAUSE_S = 0.25
# How long the listener waits before it looks whether it still should, and after a failure.
_QUIET_S = 5.0

log = structlog.stdlib.get_logger()


class Announcements:
    """The pause between two looks at the disk, which a hint from another replica cuts short.

    What a message holds is never read. Without Redis, or with one that is away, the pause is what
    was asked for.

    Args:
        link: Redis; None: there is none.
    """

    def __init__(self, link: RedisLink | None) -> None:
        self._link = link
        self._heard = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen; returns at once."""
        if self._link is not None:
            self._listener = asyncio.create_task(self._listen(self._link))

    async def stop(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    def tell(self) -> None:
        """Let the other replicas look; whether any hears is not known."""
        if self._link is not None:
            self._link.post(b"PUBLISH", CHANNEL, b"look")

    async def pause(self, longest_s: float) -> None:
        """Wait for a hint, at most so long."""
        least_s = min(_LEAST_PAUSE_S, longest_s)
        await asyncio.sleep(least_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s - least_s):
                await self._heard.wait()
        self._heard.clear()

    async def _listen(self, link: RedisLink) -> None:
        while True:
            await link.until_up()
            try:
                await self._listen_once(link)
            except Exception as error:  # The link logs that Redis went away; it decides, not this.
                log.debug("announcements_lost", why=repr(error)[:200])
                await asyncio.sleep(_LEAST_PAUSE_S)

    async def _listen_once(self, link: RedisLink) -> None:
        """Listen until the connection or Redis is lost."""
        # The library types neither messages nor arguments here.
        channel = cast("Any", link.client).pubsub()
        try:
            await channel.subscribe(CHANNEL)
            self._heard.set()  # Something may have been said while nobody listened.
            while link.is_up:
                message = await channel.get_message(
                    ignore_subscribe_messages=True, timeout=_QUIET_S
                )
                if message is not None:
                    self._heard.set()
        finally:
            with contextlib.suppress(Exception):
                await channel.aclose()
