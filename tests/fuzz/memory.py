"""The memory that one piece of work takes at its peak, asked of Linux."""

import os
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), "/proc/self/clear_refs"
_RESET_PEAK = b"5"  # proc(5): since Linux 4.0.


class PeakMeter:
    """Resident memory between a start and now: what was added at the highest point."""

    def __init__(self) -> None:
        self._clear = os.open(_CLEAR, os.O_WRONLY)
        self._before = 0

    def start(self) -> None:
        """Forget the peak so far."""
        os.write(self._clear, _RESET_PEAK)
        self._before = _kibibytes("VmRSS")

    def growth(self) -> int:
        """Bytes by which the peak since the start is above it."""
        return max(0, _kibibytes("VmHWM") - self._before) << 10


def _kibibytes(name: str) -> int:
    text = _STATUS.read_text()
    return int(text[text.index(name) + len(name) + 1 :].split(maxsplit=1)[0])
