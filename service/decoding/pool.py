"""The service's side of decoding: a free process for each image, killed when it takes too long."""

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog

from model.errors import EmptyImageError, ImageDecodeError
from model.pixels.decode import DecodeLimits
from service.decoding.protocol import ANSWER, MAX_HEADER_BYTES, Question, unpack
from service.decoding.query_image import QueryImage
from service.decoding.worker import limits_as_json
from service.errors import DecodeTimeoutError, OverloadedError
from service.observability.metrics import Metrics
from service.observability.stopwatch import Stopwatch

_PIECE_BYTES = 1 << 20
_ROOT = Path(__file__).parents[2]
# A library's own threads would make each other wait, and one image must not take every core.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# glibc gives memory back to the kernel and takes it again, image by image, until it has learnt not
# to: a third of a thumbnail's decoding. This is where its own learning ends.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
# Nothing else of the service's environment is needed there, least of all its keys.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "TMPDIR", "VIRTUAL_ENV")

_NOTHING = Question(b"")

log = structlog.stdlib.get_logger()


class DecodePool:
    """A fixed number of decode processes; images beyond that wait their turn.

    Whoever stops waiting for an image does not stop its decoding, which its time limit ends: a
    client that hangs up again and again would otherwise cost a new process each time.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        size: int,
        processes: int,
        timeout_s: float,
        metrics: Metrics,
    ) -> None:
        self._processes = [_DecodeProcess(limits, size, metrics) for _ in range(processes)]
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._waiting: asyncio.Queue[_Turn] = asyncio.Queue()
        self._busy = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def size(self) -> int:
        return len(self._processes)

    @property
    def busy(self) -> int:
        return self._busy

    async def start(self) -> None:
        """Begin every process, and see that each answers.

        Raises:
            ImageDecodeError: one does not.
            DependencyError: one lacks a library that a format needs.
        """
        await asyncio.gather(*(process.check() for process in self._processes))
        self._tasks = [asyncio.create_task(self._serve(process)) for process in self._processes]

    async def prepare(
        self,
        data: bytes,
        *,
        watch: Stopwatch,
        patience_s: float,
        wants_pixels: bool = False,
        wants_trim: bool = False,
        wants_image: bool = False,
    ) -> QueryImage:
        """The image of a file's bytes, ready for the network.

        Args:
            data: the file, whole.
            watch: gets the time until a process was free, and that of decoding.
            patience_s: longest wait for a free process.
            wants_pixels: hash the decoded pixels too.
            wants_trim: look for borders, and prepare what is left without them too.
            wants_image: bring the decoded pixels themselves: three bytes each.

        Raises:
            ImageError: the bytes are no image that the decode policy accepts, or decoding them
                ended the process.
            OverloadedError: no process was free in time.
            DecodeTimeoutError: decoding took too long, and was ended.
        """
        image: asyncio.Future[QueryImage] = asyncio.get_running_loop().create_future()
        turn = _Turn(Question(data, wants_pixels, wants_trim, wants_image), watch, image)
        if self._busy + self._waiting.qsize() >= len(self._tasks):
            turn.wait_at_most(patience_s)
        self._waiting.put_nowait(turn)
        try:
            return await image
        finally:
            # It may be in the queue for a while yet, but not its file, nor a traceback that has it.
            turn.let_go()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        while not self._waiting.empty():
            self._waiting.get_nowait().cancel()
        await asyncio.gather(*(process.end() for process in self._processes))

    async def _serve(self, process: "_DecodeProcess") -> None:
        """Have one process decode what waits, one image after the other."""
        while True:
            turn = await self._waiting.get()
            if turn.is_over:
                continue
            turn.begin()
            self._busy += 1
            try:
                image = await self._decode(process, turn.question)
            except Exception as error:  # Whatever it is, it is the image's own.
                turn.end(error)
            else:
                turn.end(image)
            finally:
                self._busy -= 1
                turn.cancel()  # Of a pool that is closed; nothing, where it has ended.

    async def _decode(self, process: "_DecodeProcess", question: Question) -> QueryImage:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await process.prepare(question)
        except TimeoutError as error:
            await process.end()
            await process.start()
            self._metrics.decode_timeouts.inc()
            log.warning("decode_timeout", limit_s=self._timeout_s)
            raise DecodeTimeoutError(
                f"the image took longer than {self._timeout_s:g} s to decode"
            ) from error


@dataclass(eq=False)
class _Turn:
    """One image on its way through the pool, and who waits for it."""

    question: Question
    watch: Stopwatch
    image: "asyncio.Future[QueryImage] | None"
    _timer: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        """It has an answer, waited too long, or its client has gone."""
        return self.image is None or self.image.done()

    def wait_at_most(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def let_go(self) -> None:
        self.question, self.image = _NOTHING, None
        if self._timer is not None:
            self._timer.cancel()

    def cancel(self) -> None:
        if self.image is not None:
            self.image.cancel()

    def begin(self) -> None:
        self.watch.lap("queue")
        if self._timer is not None:
            self._timer.cancel()

    def end(self, found: QueryImage | Exception) -> None:
        if not self.is_over:
            self.watch.lap("decode")
            self._answer(found)

    def _give_up(self) -> None:
        why = "no decode process was free in time"
        self._answer(OverloadedError(why, reason="queue_timeout"))

    def _answer(self, found: QueryImage | Exception) -> None:
        if self.image is None or self.image.done():
            return
        if isinstance(found, Exception):
            self.image.set_exception(found)
        else:
            self.image.set_result(found)


class _DecodeProcess:
    """One decode process; it serves one image at a time."""

    def __init__(self, limits: DecodeLimits, size: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._arguments = limits_as_json(limits, size)
        self._size = size
        self._most_pixel_bytes = 3 * limits.max_pixels
        self._process: asyncio.subprocess.Process | None = None
        self._is_proven = False

    async def start(self) -> None:
        """Begin the process, if there is none."""
        if self._process is not None and self._process.returncode is None:
            return
        self._is_proven = False
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service.decoding.worker",
            self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
            cwd=_ROOT,
            env={name: os.environ[name] for name in _KEPT if name in os.environ}
            | _ONE_THREAD
            | _KEEP_MEMORY,
            # Ctrl-C at the terminal is the service's to act on. Not a session of its own: Linux
            # shares the cores out by session first, and decoding would wait for the network.
            process_group=0,
        )

    async def check(self) -> None:
        """See that the process does its work: it must refuse an empty file."""
        with contextlib.suppress(EmptyImageError):
            await self.prepare(Question(b""))

    async def prepare(self, question: Question) -> QueryImage:
        """As `DecodePool.prepare`; an image is blamed only for ending a process that just began."""
        while True:
            was_proven = self._is_proven
            try:
                return await self._ask(question)
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                self._metrics.decode_deaths.inc()
                log.warning("decode_process_ended", exit_code=await self.end(), why=repr(error))
                if not was_proven:
                    raise ImageDecodeError(
                        "decoding the image ended the program that did it"
                    ) from error

    async def end(self) -> int | None:
        """Kill the process, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.returncode is None:
            process.kill()
        return await process.wait()

    async def _ask(self, question: Question) -> QueryImage:
        await self.start()
        process = self._process
        assert process is not None  # noqa: S101 - `start` has made one.
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(question.head)
        process.stdin.write(question.data)
        await process.stdin.drain()
        head = await process.stdout.readexactly(ANSWER.size)
        header_length, array_length = ANSWER.unpack(head)
        length = 24 * self._size**2
        is_plain = array_length in (0, length, 2 * length)
        most = 2 * length + self._most_pixel_bytes if question.wants_image else 0
        if header_length > MAX_HEADER_BYTES or not (is_plain or array_length <= most):
            raise ValueError("an answer of a decode process has a wrong length")
        header = await process.stdout.readexactly(header_length)
        array = await _read(process.stdout, array_length)
        self._is_proven = True
        return unpack(
            header,
            array,
            self._size,
            wants_trim=question.wants_trim,
            wants_image=question.wants_image,
        )


async def _read(stream: asyncio.StreamReader, length: int) -> bytes | bytearray:
    """So many bytes; many of them in pieces, as `readexactly` would hold two copies at its end."""
    if length <= _PIECE_BYTES:
        return await stream.readexactly(length)
    found = bytearray(length)
    for start in range(0, length, _PIECE_BYTES):
        end = min(start + _PIECE_BYTES, length)
        found[start:end] = await stream.readexactly(end - start)
    return found
