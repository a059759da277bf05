"""Log lines on stderr, JSON or for people: our own by structlog, and those of uvicorn beside them.

Neither form lets text from outside break a line or steer a terminal: JSON escapes it by itself, and
for the console `escape_controls` does.
"""

import logging
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["json", "console"]

log = structlog.stdlib.get_logger()

# Whatever a terminal acts on or that looks like a new line: C0, DEL, C1, line and paragraph
# separators, marks that turn the direction of writing, and lone surrogates.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


# A message of several lines cannot pass for lines of the log: its own begin with this.
_BELOW = "\n    | "
_CONSOLE = structlog.dev.ConsoleRenderer(
    colors=False, exception_formatter=structlog.dev.plain_traceback
)


def configure_logs(
    level: str, style: LogFormat = "json", *, extra: Sequence[Processor] = ()
) -> None:
    """Write every line from this level on; never what an image holds.

    Args:
        level: the least severe that is written.
        style: one JSON object a line, or words for people.
        extra: processors that add fields to every line.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        *extra,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_writers(style)],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    # No line of ours says which thread or process wrote it, and finding out takes long.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    # It logs each malformed body at WARNING: a client would choose how much we write.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def _writers(style: LogFormat) -> list[Processor]:
    if style == "json":
        return [structlog.processors.JSONRenderer()]
    return [escape_controls, _CONSOLE]


def escape_controls(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Write control characters of every text as escapes; a traceback keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = _BELOW.join(_CONTROLS.sub(_escape, line) for line in lines)
    return event


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class ThrottledWarning:
    """A warning that an outsider may cause often, written once in some seconds with its count.

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
