"""One Redis that may be gone, hang, be full or be somebody else: asked so that it never matters."""

import asyncio
import contextlib
from typing import Any, Literal, cast

import structlog
from redis.exceptions import NoPermissionError, ResponseError

from service.redis.breaker import Breaker
from service.redis.client import CONNECT_TIMEOUT_S, make_client
from service.redis.errors import RedisAwayError, RedisRefusedError, RedisTrouble

Status = Literal["ok", "degraded", "off"]
"""Of the optional Redis; off: there is none."""
Word = bytes | str | int

_FAILURES = 3
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_HEARTBEAT_S = 5.0
# Commands that nobody waits for; more than this and Redis is too slow to be of use.
_OUTBOX = 256
_PING = (b"PING",)
_PROBE = (b"SET", b"lipsim:probe", b"1", b"PX", 60_000)
PROBES = (_PING, _PROBE)

log = structlog.stdlib.get_logger()


class RedisLink:
    """Used on the event loop alone.

    `ask` waits for an answer for at most `timeout_s`, and not at all while Redis is known to be
    away; `post` never waits. Probes are a task's of their own, so that no request pays for one.

    Args:
        url: of Redis.
        timeout_s: longest wait for an answer.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._client = make_client(url, timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._breaker = Breaker(
            failures=_FAILURES,
            first_pause_s=_FIRST_PAUSE_S,
            longest_pause_s=_LONGEST_PAUSE_S,
            heartbeat_s=_HEARTBEAT_S,
        )
        self._refuses_writes = False
        self._outbox: asyncio.Queue[tuple[Word, ...]] = asyncio.Queue(_OUTBOX)
        self._opened = asyncio.Event()
        self._is_known = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def status(self) -> Status:
        """Whether it is of full use now."""
        return "degraded" if self._breaker.is_open or self._refuses_writes else "ok"

    def start(self) -> None:
        """Begin to probe and to deliver; returns at once."""
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._deliver())]

    async def stop(self) -> None:
        """Close every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A Redis that hangs must not hold up the end.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._client.aclose()

    async def ask(self, *command: Word) -> object:
        """The answer to one command.

        Raises:
            RedisAwayError: there was none in time, or it is not asked for now.
            RedisRefusedError: it says no.
        """
        if self._breaker.is_open:
            raise RedisAwayError("not asked for a while")
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            answer = await self._run(command, self._timeout_s)
        except RedisAwayError as error:
            ended = clock()
            # Much later than the timeout: our own loop was late, which says nothing about Redis.
            is_ours = ended - begun > 2 * self._timeout_s
            if not is_ours and self._breaker.failed(begun, ended):
                self._went_away(error)
            raise
        self._breaker.succeeded()
        return answer

    def post(self, *command: Word) -> bool:
        """Have a command sent when there is time, its answer unheard; False if it is dropped."""
        if self._breaker.is_open or self._outbox.full():
            return False
        self._outbox.put_nowait(command)
        return True

    async def _run(self, command: tuple[Word, ...], limit_s: float) -> object:
        try:
            async with asyncio.timeout(limit_s):
                return await cast("Any", self._client).execute_command(*command)
        except NoPermissionError as error:
            raise RedisAwayError(_describe(error)) from error
        except ResponseError as error:
            raise RedisRefusedError(str(error)) from error
        except Exception as error:  # A stranger on that port can make the library raise anything.
            raise RedisAwayError(_describe(error)) from error

    async def _keep(self) -> None:
        """Probe: now and then while it is up, after a growing pause while it is away."""
        while True:
            await self._probe()
            self._opened.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._breaker.wait_s):
                    await self._opened.wait()
                # Opened by commands: the pause begins now.
                await asyncio.sleep(self._breaker.wait_s)

    async def _probe(self) -> None:
        try:
            await self._run(_PING, CONNECT_TIMEOUT_S)
            refusal = await self._refusal_of(_PROBE, CONNECT_TIMEOUT_S)
        except RedisTrouble as error:
            was_open = self._breaker.is_open and self._is_known
            self._breaker.probe_failed()
            if not was_open:
                self._went_away(error)
            return
        if self._breaker.is_open:
            log.info("redis_here")
        self._is_known = True
        self._breaker.probe_succeeded()
        self._note_write(refusal)

    async def _deliver(self) -> None:
        while True:
            command = await self._outbox.get()
            try:
                await self.ask(*command)
                refusal = None
            except RedisAwayError:
                continue
            except RedisRefusedError as error:
                refusal = str(error)
            if command[0] == b"SET":
                self._note_write(refusal)

    async def _refusal_of(self, command: tuple[Word, ...], limit_s: float) -> str | None:
        """What Redis has against a command; None if it did it."""
        try:
            await self._run(command, limit_s)
        except RedisRefusedError as error:
            return str(error)
        return None

    def _went_away(self, error: RedisTrouble) -> None:
        self._is_known = True
        self._opened.set()
        log.warning("redis_away", why=str(error))

    def _note_write(self, refusal: str | None) -> None:
        """Log, once each way, whether Redis takes what is written."""
        refuses = refusal is not None
        if refuses and not self._refuses_writes:
            log.warning("redis_refuses_writes", why=refusal[:200])
        elif self._refuses_writes and not refuses:
            log.info("redis_takes_writes")
        self._refuses_writes = refuses


def _describe(error: Exception) -> str:
    """An error in one short line; what a stranger sent may be in it, so it is cut and escaped."""
    return f"{type(error).__name__}: {ascii(str(error))[:200]}"
