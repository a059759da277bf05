"""A circuit breaker: when to stop asking a server that fails, and when to ask it again."""

import math


class CircuitBreaker:
    """Open (nobody asks) from the start, and after failures in a row, until a probe succeeds.

    Failures of commands that were under way together count as one: a single hitch fails them all.

    The pause before the next probe doubles each time, and is short again only once a probe has
    found it closed: one who answers probes and nothing else is asked ever more rarely too.

    Args:
        failures: how many in a row open it.
        first_pause_s: from opening to the first probe.
        longest_pause_s: between two probes.
        heartbeat_s: between two probes while it is closed.
    """

    def __init__(
        self, *, failures: int, first_pause_s: float, longest_pause_s: float, heartbeat_s: float
    ) -> None:
        self._allowed = failures
        self._half_of_first_s = first_pause_s / 2
        self._longest_pause_s = longest_pause_s
        self._heartbeat_s = heartbeat_s
        self._failures = 0
        self._last_failure = -math.inf
        self._pause_s = self._half_of_first_s
        self.is_open = True

    @property
    def wait_s(self) -> float:
        return self._pause_s if self.is_open else self._heartbeat_s

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, begun: float, ended: float) -> bool:
        """A command was not, from when to when; whether that opened it."""
        if self.is_open or begun < self._last_failure:
            return False
        self._last_failure = ended
        self._failures += 1
        if self._failures < self._allowed:
            return False
        self.probe_failed()
        return True

    def probe_succeeded(self) -> None:
        if not self.is_open:
            self._pause_s = self._half_of_first_s
        self.is_open = False
        self._failures = 0

    def probe_failed(self) -> None:
        """The probe was not: open, or stay so for longer."""
        self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
        self.is_open = True
