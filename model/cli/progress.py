"""Telling a person how far something is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBar
from rich.text import Text

Advance = Callable[[], None]
"""Says that one more part is done."""

_SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


class Progress:
    """What a command tells while it works.

    Where the stream is a terminal: a bar with rate and remaining time. Elsewhere: a line when
    something begins, one now and then, and one when it is done.

    Args:
        stream: where to, most likely stderr; None tells nothing.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        is_terminal = stream is not None and stream.isatty()
        self._console = Console(file=stream) if is_terminal else None

    def step(self, text: str) -> None:
        """Something begins, or is worth knowing: a line, above the bar if there is one."""
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, emoji=False)
        elif self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()

    def counting(self, text: str, items: Iterable[T], total: int | None) -> Iterator[T]:
        """The items, counted as they pass."""
        with self.counter(text, total) as advance:
            for item in items:
                yield item
                advance()

    @contextlib.contextmanager
    def counter(self, text: str, total: int | None, unit: str = "") -> Generator[Advance]:
        """Something of many parts begins, and ends with the context.

        Args:
            text: what it is.
            total: how many parts; None where nobody knows.
            unit: what the parts are, for the lines.
        """
        if self._console is not None:
            with _bar(self._console) as bar:
                task = bar.add_task(text, total=total)
                yield lambda: bar.advance(task)
        elif self._stream is not None:
            lines = _Lines(self.step, text, total, unit)
            yield lines.advance
            lines.end()
        else:
            yield lambda: None


class _Lines:
    """How far something is, in lines."""

    def __init__(
        self, tell: Callable[[str], None], text: str, total: int | None, unit: str
    ) -> None:
        self._tell, self._text, self._total = tell, text, total
        self._unit = f" {unit}" if unit else ""
        self._done = 0
        self._start = self._told = time.monotonic()
        tell(f"{text}: {'?' if total is None else total}{self._unit}")

    def advance(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told, rate = now, self._done / (now - self._start)
            left = (
                "" if self._total is None else f", {(self._total - self._done) / rate:.0f} s left"
            )
            self._tell(f"{self._text}: {self._count()}, {rate:.1f}/s{left}")

    def end(self) -> None:
        """All are."""
        seconds = time.monotonic() - self._start
        self._tell(f"{self._text}: {self._count()} done in {seconds:.1f} s")

    def _count(self) -> str:
        of = "" if self._total is None else f" of {self._total}"
        return f"{self._done}{of}{self._unit}"


class _Rate(ProgressColumn):
    """Parts a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


def _bar(console: Console) -> RichBar:
    return RichBar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
