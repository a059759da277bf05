"""Telling a person how far a build is: a bar on a terminal, a line a step elsewhere."""

import contextlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Protocol, TextIO, runtime_checkable

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


@runtime_checkable
class Progress(Protocol):
    """What a build tells."""

    def step(self, text: str) -> None:
        """Something begins, or is worth knowing."""
        ...

    def counting(
        self, text: str, total: int | None, unit: str = "files"
    ) -> AbstractContextManager[Callable[[], None]]:
        """Something of many parts begins; the callable given says that one is done."""
        ...


class Silent:
    """Tells nothing."""

    def step(self, text: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def counting(
        self,
        text: str,  # noqa: ARG002
        total: int | None,  # noqa: ARG002
        unit: str = "files",  # noqa: ARG002
    ) -> Generator[Callable[[], None]]:
        """Nothing."""
        yield lambda: None


class Lines:
    """One line when a step begins and one when its parts are done; for logs."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def step(self, text: str) -> None:
        """A line."""
        self._file.write(text + "\n")
        self._file.flush()

    @contextlib.contextmanager
    def counting(
        self, text: str, total: int | None, unit: str = "files"
    ) -> Generator[Callable[[], None]]:
        """A line before and one after."""
        self.step(f"{text}: {'?' if total is None else total} {unit}")
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1

        yield advance
        self.step(f"{text}: {done} {unit} done")


class _Rate(ProgressColumn):
    """Parts a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


class Bar:
    """A bar with rate and remaining time."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def step(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    @contextlib.contextmanager
    def counting(
        self,
        text: str,
        total: int | None,
        unit: str = "files",  # noqa: ARG002 (the bar's own columns say how many)
    ) -> Generator[Callable[[], None]]:
        """The bar, while its parts are being done."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichBar(*columns, console=self._console) as bar:
            task = bar.add_task(text, total=total)
            yield lambda: bar.advance(task)


def progress_for(file: TextIO) -> Progress:
    """A bar where the file is a terminal, lines where it is not."""
    return Bar(Console(file=file)) if file.isatty() else Lines(file)
