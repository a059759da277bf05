"""Where the time of one request goes, stage by stage."""

import time


class Stopwatch:
    """Seconds by stage; `lap` ends the current one. One request's, so never two threads at once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under this stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def timings_ms(self) -> dict[str, float]:
        """Every stage and the time since the beginning, in milliseconds."""
        seconds = {**self.seconds, "total": time.perf_counter() - self._begun}
        return {stage: round(value * 1000, 3) for stage, value in seconds.items()}
