"""Telling a person how far a corpus is: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBar

_SECONDS_BETWEEN_LINES = 20.0

T = TypeVar("T")


class Progress:
    """Where the stream is a terminal a bar with rate and remaining time, else lines.

    Args:
        stream: where to; None tells nothing.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def step(self, text: str) -> None:
        """One line."""
        if self._stream is not None:
            self._stream.write(text + "\n")
            self._stream.flush()

    def counting(self, text: str, items: Iterable[T], total: int) -> Iterator[T]:
        """The items, counted as they pass."""
        if self._stream is None:
            yield from items
        elif self._stream.isatty():
            yield from self._bar(text, items, total)
        else:
            yield from self._lines(text, items, total)

    def _bar(self, text: str, items: Iterable[T], total: int) -> Iterator[T]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(show_speed=True),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichBar(*columns, console=Console(file=self._stream)) as bar:
            yield from bar.track(items, total=total, description=text)

    def _lines(self, text: str, items: Iterable[T], total: int) -> Iterator[T]:
        self.step(f"{text}: {total}")
        start = told = time.monotonic()
        count = 0
        for count, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - told >= _SECONDS_BETWEEN_LINES:
                told, rate = now, count / (now - start)
                left = (total - count) / rate
                self.step(f"{text}: {count} of {total}, {rate:.1f}/s, {left:.0f} s left")
        self.step(f"{text}: {count} done in {time.monotonic() - start:.1f} s")
