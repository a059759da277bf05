"""Ctrl-C and SIGTERM, kept until a step is whole."""

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any


class Interrupts:
    """While open, a first Ctrl-C or SIGTERM is noted; a second one does not wait.

    Attributes:
        came: whether one came.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        """Takes the signals over; only the main thread may, so elsewhere nothing changes."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Gives them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.came:
            raise KeyboardInterrupt
        self.came = True


@contextlib.contextmanager
def stopped_as_interrupted() -> Generator[None]:
    """While open, SIGTERM ends the work as Ctrl-C does: what an interrupt clears away, it does."""
    if threading.current_thread() is not threading.main_thread():  # only that one may
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
