"""HTTP connections, bounded in number, in size and time of their headers, in unread answers.

uvicorn bounds none: connections that say nothing, or read nothing, would use up the process's file
descriptors, and then nobody could connect, probes included. This overrides what uvicorn may change
in any minor version; it is pinned to one.
"""

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.admission import LONGEST_RETRY_S, Admission
from service.errors import RETRY_AFTER_S, MalformedRequestError, OverloadedError
from service.http.problems import problem_of
from service.observability.logs import ThrottledWarning
from service.observability.metrics import Metrics

_CONNECTION_REFUSAL = (
    f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_S}\r\n"
    "Connection: close\r\nContent-Length: 0\r\n\r\n"
).encode()
_MAX_HEADER_BYTES = 64 * 1024

# At the end of a service: what a client that has connected still gets to send its request, and what
# a request on an idle connection gets that has arrived and is not read yet.
_LAST_REQUEST_S = 1.0
_ARRIVED_S = 0.1

# Requests that may wait on one connection for the answer to an earlier one. uvicorn knows no such
# bound, and each costs a hundred times the bytes it came in.
MOST_PIPELINED = 16

# What a client must take of an answer each time that it has for reading. Answers that nobody reads
# would hold their connection, one of so many, for ever; slow readers of long ones may go on.
_LEAST_READ_BYTES = 32 * 1024


@dataclass(frozen=True)
class ConnectionBounds:
    """What holds for every connection of a server, and where refusals are counted."""

    max_connections: int
    header_timeout_s: float
    answer_timeout_s: float
    admission: Admission
    metrics: Metrics
    connection_refusals: ThrottledWarning
    early_refusals: ThrottledWarning


class BoundedProtocol(HttpToolsProtocol):
    """One HTTP connection: refused when there are too many, closed when its headers stay away.

    The time runs from the connection's begin, and on a kept connection from the first byte of the
    next request; between requests uvicorn's own keep-alive time runs. Another time runs while the
    kernel has not taken all that we have said, since the client does not read.
    """

    def __init__(self, bounds: ConnectionBounds, **given: Any) -> None:
        super().__init__(**given)
        self._bounds = bounds
        self._header_timer: asyncio.TimerHandle | None = None
        self._reading_timer: asyncio.TimerHandle | None = None
        self._is_in_headers = False
        self._asks_for_upgrade = False
        self._has_gone_on = False
        self._held_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._bounds.max_connections:
            self.transport = transport
            self._bounds.metrics.refusals.labels("connections").inc()
            self._bounds.connection_refusals.write(max_connections=self._bounds.max_connections)
            transport.write(_CONNECTION_REFUSAL)
            transport.close()
            return
        super().connection_made(transport)
        # Or up to 64 KiB that nobody reads would go unnoticed, and hold the connection for ever.
        transport.set_write_buffer_limits(high=0)
        self._start_header_timer()

    def shutdown(self) -> None:
        """The service ends: close an idle connection; one just made has a request on its way."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_awaited = cycle is None or self._is_in_headers
        self.loop.call_later(_LAST_REQUEST_S if is_awaited else _ARRIVED_S, super().shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        _cancel(self._reading_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to count the time: the kernel takes no more of our answer now."""
        super().pause_writing()
        self._watch_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        _cancel(self._reading_timer)
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Read on; the clock runs while anything but a request's body is expected."""
        self._has_gone_on = False
        self._feed(data)
        if self.transport.is_closing():
            return
        # What belongs to no whole head and to no body is held by the parser: a header or a trailer
        # without end, for instance.
        self._held_bytes = 0 if self._has_gone_on else self._held_bytes + len(data)
        if self._held_bytes > _MAX_HEADER_BYTES:
            self.send_400_response("The request headers are too long.")
        elif self._is_in_headers or self._has_stray_bytes():
            self._start_header_timer()

    def _feed(self, data: bytes) -> None:
        """Parse bytes; a request that asks for another protocol is read as one that does not."""
        self._unset_keepalive_if_required()
        for _ in range(MOST_PIPELINED):
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                if not self.transport.is_closing():
                    self.send_400_response("Invalid HTTP request received.")
            except httptools.HttpParserUpgrade as upgrade:
                if self._asks_for_upgrade:
                    data = self._head_again() + data[upgrade.args[0] :]
                    continue
            return
        self.transport.abort()  # So many wishes at once are nobody's; each costs a parser.

    def _head_again(self) -> bytes:
        """The request's head without its wish, and a new parser for it and what stands behind it.

        The parser takes all that follows a wish for the other protocol, so that the body would be
        lost, or read as the next request. RFC 9110, 7.8: a server may ignore it.
        """
        self._asks_for_upgrade = False
        line = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # As uvicorn has it.
        return b"%b %b HTTP/%b\r\n%b\r\n" % (*line, b"".join(kept))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request, in the words of every other refusal."""
        response = problem_of(MalformedRequestError(msg))
        headers = (*response.raw_headers, (b"connection", b"close"))
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[400] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_headers = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer, which may come after a body in chunks, is read past.

        uvicorn would put it among the headers: a key, or an address, that no proxy has looked at.
        """
        if self._is_in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_headers = False
        self._has_gone_on = True
        self._stop_header_timer()
        self._check_head()
        is_connect = self.parser.get_method() == b"CONNECT"
        if self.parser.should_upgrade() and not is_connect:
            self._asks_for_upgrade = True
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            # No answer, which would stand where the answer to an earlier request belongs.
            self.transport.abort()
        if self.transport.is_closing():
            raise ConnectionAbortedError  # Ends the parser's work on what has arrived, too.
        # Either is an application to uvicorn: refusals keep their place among the answers, and wait
        # for a client that does not read.
        application: Any = self._early_answer() or cast("Any", self.config).loaded_app
        self.app = application
        super().on_headers_complete()
        # Whoever sent it must find another server for the next one.
        is_last = self._bounds.admission.is_draining or is_connect
        self.cycle.keep_alive = self.cycle.keep_alive and not is_last

    def on_body(self, body: bytes) -> None:
        self._has_gone_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_gone_on = True
        if not self._asks_for_upgrade:
            super().on_message_complete()

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > _MAX_HEADER_BYTES:
            raise MalformedRequestError("the request headers are too long")
        if [name for name, _ in self.headers].count(b"host") > 1:
            raise MalformedRequestError("the request has more than one Host")

    def _early_answer(self) -> Response | None:
        """The refusal of a full service; asked for only where an early answer cannot be lost."""
        if self.expect_100_continue or not self.parser.should_keep_alive():
            return None
        seconds = self._bounds.admission.early_refusal_s(self.parser.get_method())
        if seconds is None:
            return None
        self._bounds.metrics.refusals.labels("gate").inc()
        self._bounds.early_refusals.write()
        return _early_answer(seconds)

    def _has_stray_bytes(self) -> bool:
        """Whether bytes came that belong to no request at work, like the body of a refused one."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_at_work = cycle is not None and not cycle.response_complete
        return not is_at_work and self.timeout_keep_alive_task is None

    def _watch_reading(self, unread: int) -> None:
        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if unread - left < _LEAST_READ_BYTES:
                self._give_up()
            else:
                self._watch_reading(left)

        self._reading_timer = self.loop.call_later(self._bounds.answer_timeout_s, look)

    def _start_header_timer(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self._bounds.header_timeout_s, self._give_up)

    def _stop_header_timer(self) -> None:
        _cancel(self._header_timer)
        self._header_timer = None

    def _give_up(self) -> None:
        # Not `close`, which would wait for a client that does not read its last answer either.
        self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


@lru_cache(maxsize=LONGEST_RETRY_S)
def _early_answer(seconds: int) -> Response:
    """The whole answer to a request that is refused before it costs anything."""
    return problem_of(
        OverloadedError(
            "too many requests are in work already", reason="gate", retry_after_s=seconds
        )
    )
