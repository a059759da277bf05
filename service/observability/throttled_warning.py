"""A log line that an outsider may cause often, and that is written seldom."""

import time
from typing import Any

import structlog

log = structlog.stdlib.get_logger()


class RareLine:
    """A warning written once in some seconds at most, with the number of times it was due.

    Args:
        event: the line's name.
        every_s: seconds between two lines, at least.
    """

    def __init__(self, event: str, *, every_s: float = 1.0) -> None:
        self._event = event
        self._every_s = every_s
        self._due = 0
        self._written = float("-inf")

    def write(self, **values: Any) -> None:
        """Write the line, or only count it."""
        self._due += 1
        now = time.monotonic()
        if now - self._written >= self._every_s:
            log.warning(self._event, count=self._due, **values)
            self._due, self._written = 0, now
