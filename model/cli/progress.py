"""Telling a person how far something is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, ProgressColumn, Task
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

    The stream is most likely stderr; None tells nothing.
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

        A total of None is known to nobody; lines name the unit.
        """
        if self._console is not None:
            columns = (*RichBar.get_default_columns(), MofNCompleteColumn(), _Rate())
            with RichBar(*columns, console=self._console) as bar:
                task = bar.add_task(text, total=total)
                yield lambda: bar.advance(task)
        else:
            with self._lines(text, total, unit and f" {unit}") as advance:
                yield advance

    @contextlib.contextmanager
    def _lines(self, text: str, total: int | None, unit: str) -> Generator[Advance]:
        """How far something is, in lines."""
        of = "" if total is None else f" of {total}"
        done, start = 0, time.monotonic()
        told = start

        def advance() -> None:
            nonlocal done, told
            done += 1
            now = time.monotonic()
            if now - told >= _SECONDS_BETWEEN_LINES:
                told, rate = now, done / (now - start)
                left = "" if total is None else f", {(total - done) / rate:.0f} s left"
                self.step(f"{text}: {done}{of}{unit}, {rate:.1f}/s{left}")

        self.step(f"{text}: {'?' if total is None else total}{unit}")
        yield advance
        self.step(f"{text}: {done}{of}{unit} done in {time.monotonic() - start:.1f} s")


class _Rate(ProgressColumn):
    """Parts a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")
