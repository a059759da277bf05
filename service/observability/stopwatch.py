"""Where the time of one request goes, stage by stage."""

import time
from typing import NamedTuple

from service.schemas.common import Stage


class Lap(NamedTuple):
    """One stretch of time, in seconds of `time.perf_counter`."""

    stage: Stage
    begun: float
    ended: float


class Stopwatch:
    """Seconds by stage; `lap` ends the current one. One request's, so never two threads at once.

    Attributes:
        seconds: by stage, as far as it has ended.
        laps: the same, lap by lap; a stage may have several.
        shared_by: requests that shared the pass through the network, this one too; 0 before it.
    """

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}
        self.laps: list[Lap] = []
        self.shared_by = 0
        self._begun = self._last = time.perf_counter()

    def lap(self, stage: Stage) -> None:
        """Book the time since the last lap under this stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self.laps.append(Lap(stage, self._last, now))
        self._last = now

    def skip(self, stage: Stage) -> None:
        """Book no time under this stage: it was not needed."""
        self.seconds.setdefault(stage, 0.0)

    def stages_ms(self) -> dict[str, float]:
        """Every stage that has ended, in milliseconds."""
        # A copy first: a worker may still be at it when a request is given up.
        return {stage: round(value * 1000, 3) for stage, value in dict(self.seconds).items()}

    def timings_ms(self) -> dict[str, float]:
        """Every stage and the time since the beginning, in milliseconds."""
        total = time.perf_counter() - self._begun
        return {**self.stages_ms(), "total": round(total * 1000, 3)}
