"""How far a build is, told through Redis to the replicas that will serve it. A hint, and no more.

A build never waits for Redis: it is told once a second at most, with little patience, and not at
all for a while after it has failed.
"""

import contextlib
import json
import time
from collections.abc import Generator
from typing import Any, cast

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from model.cli.progress import Advance, Progress

CHANNEL = "lipsim:index-changed"
"""Where a new version is announced; what a message says is not read."""

_TIMEOUT_S = 0.5
_SECONDS_BETWEEN = 1.0
_REST_S = 30.0
# A builder that was killed is forgotten after so long.
_EXPIRES_S = 60


def progress_key(index: str) -> str:
    """Where the progress of an index's build stands."""
    return f"lipsim:build:{index}"


class SharedProgress(Progress):
    """Progress that a terminal or log sees, and Redis too.

    Args:
        stream: as for `Progress`.
        url: of Redis.
        index: name of the index that is built.

    Raises:
        ValueError: the URL is none of Redis.
    """

    def __init__(self, stream: Any, url: str, index: str) -> None:
        super().__init__(stream)
        self._key = progress_key(index)
        # The library leaves its keyword arguments untyped.
        self._client: Redis = cast("Any", Redis).from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._started = time.time()
        self._due = self._rests_until = 0.0
        self._is_told = False

    @contextlib.contextmanager
    def counter(self, text: str, total: int | None, unit: str = "") -> Generator[Advance]:
        """As `Progress.counter`; each part counts for Redis too."""
        done = 0
        with super().counter(text, total, unit) as advance:

            def count() -> None:
                nonlocal done
                done += 1
                advance()
                self._tell(text, done, total)

            self._tell(text, done, total)
            yield count
        self._due = 0.0
        self._tell(text, done, total)

    def end(self, *, has_new_version: bool) -> None:
        """Take the progress away, and say that there is a version to look for."""
        if self._is_told and time.monotonic() >= self._rests_until:
            with contextlib.suppress(RedisError, OSError):
                self._ask("UNLINK", self._key)
                if has_new_version:
                    self._ask("PUBLISH", CHANNEL, "look")
        self._client.close()

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now < max(self._due, self._rests_until):
            return
        self._due = now + _SECONDS_BETWEEN
        fields = {"stage": stage, "done": done, "total": total, "started": self._started}
        try:
            self._ask("SET", self._key, json.dumps(fields), "EX", _EXPIRES_S)
            self._is_told = True
        except (RedisError, OSError) as error:
            self._rests_until = time.monotonic() + _REST_S
            self.step(f"Redis was not told how far this is ({type(error).__name__}); it goes on")

    def _ask(self, *command: str | int) -> None:
        # The library types what it answers as awaitable or not.
        cast("Any", self._client).execute_command(*command)
