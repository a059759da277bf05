"""The one client of Redis: short timeouts, a circuit breaker, and writes that nobody waits for.

No client of the service ever hears of what goes wrong here, so these errors are not in its tree:

RedisTrouble
├── RedisAwayError      no answer in time, or none that is Redis's: as if there were no Redis
└── RedisRefusedError   a living Redis says no: it is full, read-only, or holds another type
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, Literal, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from service.redis.breaker import CircuitBreaker

Status = Literal["ok", "degraded", "off"]
"""Of the optional Redis; off: there is none."""
Word = bytes | str | int
Command = tuple[Word, ...]

# A connection may take longer than a command: it is made once, and mostly by a probe.
_CONNECT_TIMEOUT_S = 1.0
_CONNECTIONS = 32
_FAILURES = 3
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_HEARTBEAT_S = 5.0
# Commands that nobody waits for; more than this and Redis is too slow to be of use.
_OUTBOX = 256
_PING = (b"PING",)
_PROBE = (b"SET", b"lipsim:probe", b"1", b"PX", 60_000)

log = structlog.stdlib.get_logger()


class RedisTrouble(Exception):  # noqa: N818 - the root of two errors; each of them is named one.
    """A command had no effect that anybody may rely on."""


class RedisAwayError(RedisTrouble):
    """Redis did not answer, or is not asked for a while because it did not."""


class RedisRefusedError(RedisTrouble):
    """Redis answered that it will not do this."""


class RedisLink:
    """Used on the event loop alone.

    `ask` waits for an answer for at most `timeout_s`, and not at all while Redis is known to be
    away; `post` never waits. Probes are a task's of their own, so that no request pays for one.

    Args:
        url: of Redis.
        timeout_s: longest wait for an answer.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._client = _make_client(url, timeout_s)
        self._timeout_s = timeout_s
        self._breaker = CircuitBreaker(
            failures=_FAILURES,
            first_pause_s=_FIRST_PAUSE_S,
            longest_pause_s=_LONGEST_PAUSE_S,
            heartbeat_s=_HEARTBEAT_S,
        )
        self._refuses_writes = False
        self._outbox: asyncio.Queue[Command] = asyncio.Queue(_OUTBOX)
        self._opened = asyncio.Event()
        self._is_known = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def status(self) -> Status:
        """Whether it is of full use now."""
        return "degraded" if self._breaker.is_open or self._refuses_writes else "ok"

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._deliver())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A Redis that hangs must not hold up the end.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._client.aclose()

    async def ask(self, *command: Word) -> object:
        """The answer to one command; raises as `ask_all` does."""
        (answer,) = await self.ask_all([command])
        return answer

    async def ask_all(self, commands: Sequence[Command]) -> list[object]:
        """The answers to some commands, in one round trip.

        Raises:
            RedisAwayError: there was none in time, or it is not asked for now.
            RedisRefusedError: it says no.
        """
        if self._breaker.is_open:
            raise RedisAwayError("not asked for a while")
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            answers = await self._run(commands, self._timeout_s)
        except RedisAwayError as error:
            ended = clock()
            # Much later than the timeout: our own loop was late, which says nothing about Redis.
            is_ours = ended - begun > 2 * self._timeout_s
            if not is_ours and self._breaker.failed(begun, ended):
                self._went_away(error)
            raise
        self._breaker.succeeded()
        return answers

    def post(self, *command: Word) -> bool:
        """Have a command sent when there is time, its answer unheard; False if it is dropped."""
        if self._breaker.is_open or self._outbox.full():
            return False
        self._outbox.put_nowait(command)
        return True

    async def find_refusal(self) -> str | None:
        """Probe once, whatever the circuit breaker says: why Redis takes no writes, if it does not.

        Raises:
            RedisAwayError: it does not answer.
        """
        await self._run([_PING], _CONNECT_TIMEOUT_S)
        try:
            await self._run([_PROBE], _CONNECT_TIMEOUT_S)
        except RedisRefusedError as error:
            return str(error)
        return None

    async def _run(self, commands: Sequence[Command], limit_s: float) -> list[object]:
        # The library types neither commands nor answers.
        pipeline = cast("Any", self._client).pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        # A task, left behind when it is late: the library goes on connecting after it is cancelled.
        task = asyncio.create_task(cast("Coroutine[Any, Any, list[object]]", pipeline.execute()))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            done, _ = await asyncio.wait([task], timeout=limit_s)
        finally:
            task.cancel()
        if not done:
            raise RedisAwayError(f"no answer within {limit_s:g} s")
        try:
            return task.result()
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
            refusal = await self.find_refusal()
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


def _make_client(url: str, timeout_s: float) -> Redis:
    # The library leaves its keyword arguments untyped.
    pool: BlockingConnectionPool = cast("Any", BlockingConnectionPool).from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=timeout_s,
        protocol=2,  # Nothing of the newer one is used, and every server speaks this one.
        driver_info=None,  # No CLIENT SETINFO: more answers that may fail, and one more right.
        socket_timeout=timeout_s,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        # Only a connection that was found dead is worth a second try at once: Redis was started
        # again and nobody had told us. One that is silent would be silent twice.
        retry=Retry(NoBackoff(), retries=1, supported_errors=(RedisConnectionError,)),
    )
    return Redis.from_pool(pool)


def _describe(error: Exception) -> str:
    """An error in one short line; what a stranger sent may be in it, so it is cut and escaped."""
    return f"{type(error).__name__}: {ascii(str(error))[:200]}"
