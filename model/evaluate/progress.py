"""How far a run is: a bar with rate and remaining time on a terminal, lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Generator
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[], None]

_SECONDS_BETWEEN_LINES = 10.0


class _Rate(ProgressColumn):
    """Parts a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


class Reporter:
    """Tells a person on a stream, most likely stderr, how far a run is."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def step(self, text: str) -> None:
        """One line."""
        self._file.write(text + "\n")
        self._file.flush()

    @contextlib.contextmanager
    def counting(self, text: str, total: int) -> Generator[Advance]:
        """A bar or lines while `total` parts are being done."""
        if self._file.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=Console(file=self._file)) as bar:
                task = bar.add_task(text, total=total)
                yield lambda: bar.advance(task)
            return
        yield self._line_counter(text, total)

    def _line_counter(self, text: str, total: int) -> Advance:
        start = last = time.monotonic()
        done = 0

        def advance() -> None:
            nonlocal done, last
            done += 1
            now = time.monotonic()
            if done == total or now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                rate = done / max(now - start, 1e-9)
                left = (total - done) / rate
                self.step(f"{text}: {done} of {total}, {rate:.1f}/s, {left:.0f} s left")

        return advance
