"""HTTP connections, bounded in number, in size and time of their headers, in unread answers.

uvicorn bounds none: connections that say nothing, or read nothing, would use up the process's file
descriptors, and then nobody could connect, probes included.
"""

import asyncio
from functools import lru_cache
from typing import cast

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.errors import RETRY_AFTER_S, MalformedRequestError, OverloadedError
from service.http.drain import Drain
from service.http.early_refusal import Gate
from service.http.problems import response_of
from service.observability.logs import ThrottledWarning
from service.observability.metrics import Metrics

_CONNECTION_REFUSAL = (
    f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_S}\r\n"
    "Connection: close\r\nContent-Length: 0\r\n\r\n"
).encode()
_MAX_HEADER_BYTES = 64 * 1024

# Requests that may wait on one connection for the answer to an earlier one. uvicorn knows no such
# bound, and each costs a hundred times the bytes it came in.
MOST_PIPELINED = 16

# What a client must take of an answer each time that it has for reading. Answers that nobody reads
# would hold their connection, one of so many, for ever; slow readers of long ones may go on.
_LEAST_READ_BYTES = 32 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """One HTTP connection: refused when there are too many, closed when its headers stay away.

    The time runs from the connection's begin, and on a kept connection from the first byte of the
    next request; between requests uvicorn's own keep-alive time runs. A request that the service
    has no place for is refused as soon as its headers are read, before it costs a task. Another
    time runs while the kernel has not taken all that we have said, since the client does not read.
    """

    header_timeout_s: float
    answer_timeout_s: float
    max_connections: int
    gate: Gate
    drain: Drain
    metrics: Metrics
    connection_refusals: ThrottledWarning
    request_refusals: ThrottledWarning

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it at once."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_in_headers = False
        self._header_bytes = 0
        self._has_host = False
        self._has_gone_on = False
        self._held_bytes = 0
        self._reading_timer: asyncio.TimerHandle | None = None
        self._asks_for_upgrade = False
        if len(self.connections) >= self.max_connections:
            self.transport = transport
            self.metrics.count_refusal("connections")
            self.connection_refusals.write(max_connections=self.max_connections)
            transport.write(_CONNECTION_REFUSAL)
            transport.close()
            return
        super().connection_made(transport)
        # Or up to 64 KiB that nobody reads would go unnoticed, and hold the connection for ever.
        transport.set_write_buffer_limits(high=0)
        self._start_timer()

    def pause_writing(self) -> None:
        """Begin to count the time: the kernel takes no more of our answer now."""
        super().pause_writing()
        self._watch_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop counting: the kernel has taken all of it."""
        self._stop_watching()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Read on; the clock runs while anything but a request's body is expected."""
        self._has_gone_on = False
        self._feed(data)
        if self.transport.is_closing():
            return
        # What belongs to no whole header and to no body is held by the parser: a header or a
        # trailer without end, for instance.
        self._held_bytes = 0 if self._has_gone_on else self._held_bytes + len(data)
        if self._held_bytes > _MAX_HEADER_BYTES:
            self.send_400_response("The request headers are too long.")
            return
        if self._is_in_headers or self._has_unanswered_bytes():
            self._start_timer()

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
        self.transport.write(whole_answer(response_of(MalformedRequestError(msg)), closes=True))
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count the headers of a request."""
        super().on_message_begin()
        self._is_in_headers, self._has_host = True, False
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the first line."""
        self._count_headers(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer, which may come after a body in chunks, is read past.

        uvicorn would put it among the headers: a key, or an address, that no proxy has looked at.
        """
        if not self._is_in_headers:
            return
        self._count_headers(len(name) + len(value))
        if name.lower() == b"host":
            if self._has_host:
                raise MalformedRequestError("the request has more than one Host")
            self._has_host = True
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Serve the request, or refuse it at the gate."""
        self._is_in_headers = False
        self._has_gone_on = True
        self._stop_timer()
        is_connect = self.parser.get_method() == b"CONNECT"
        if self.parser.should_upgrade() and not is_connect:
            self._asks_for_upgrade = True
            return
        if self.transport.is_closing():
            raise ConnectionAbortedError  # What has been said goes out; nobody waits for more.
        if len(self.pipeline) >= MOST_PIPELINED or self._is_unread():
            # No answer, which would stand where the answer to an earlier request belongs.
            self.transport.abort()
            raise ConnectionAbortedError  # Ends the parser's work on what has arrived, too.
        seconds = self._seconds_to_come_back()
        if seconds is None:
            super().on_headers_complete()
            # Whoever sent it must find another server for the next one.
            is_last = self.drain.has_begun or is_connect
            self.cycle.keep_alive = self.cycle.keep_alive and not is_last
        else:
            self.cycle = _RefusedCycle()
            self.metrics.count_refusal("gate")
            self.request_refusals.write()
            self.transport.write(refusal(seconds))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._has_gone_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body; that of a refused request is followed by the keep-alive time."""
        self._has_gone_on = True
        if self._asks_for_upgrade:
            return
        if isinstance(self.cycle, _RefusedCycle):
            self.on_response_complete()
        else:
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._stop_watching()
        super().connection_lost(exc)

    def _count_headers(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise MalformedRequestError("the request headers are too long")

    def _seconds_to_come_back(self) -> int | None:
        """What the gate says; it is only asked where an early answer cannot be lost."""
        parser = cast("httptools.HttpRequestParser | None", self.parser)
        if parser is None or self.expect_100_continue or self._is_at_work():
            return None
        return self.gate(parser.get_method(), self.url) if parser.should_keep_alive() else None

    def _is_unread(self) -> bool:
        """Whether the client leaves refusals unread; those of the gate wait for nobody to read."""
        return isinstance(self.cycle, _RefusedCycle) and self.flow.write_paused

    def _is_at_work(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _has_unanswered_bytes(self) -> bool:
        """Whether bytes came that belong to no request at work, like the body of a refused one."""
        return not self._is_at_work() and self.timeout_keep_alive_task is None

    def _watch_reading(self, unread: int) -> None:
        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if unread - left < _LEAST_READ_BYTES:
                self._give_up()
            else:
                self._watch_reading(left)

        self._reading_timer = self.loop.call_later(self.answer_timeout_s, look)

    def _stop_watching(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.header_timeout_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        # Not `close`, which would wait for a client that does not read its last answer either.
        self.transport.abort()


class _RefusedCycle(RequestResponseCycle):
    """Stands for a request that was answered by the protocol itself: its body is read past."""

    def __init__(self) -> None:
        self.response_complete = True
        self.disconnected = False
        self.message_event = asyncio.Event()


@lru_cache(maxsize=64)
def refusal(seconds: int) -> bytes:
    """The whole answer to a request that is refused before it costs anything."""
    error = OverloadedError(
        "too many requests are in work already", reason="gate", retry_after_s=seconds
    )
    return whole_answer(response_of(error))


def whole_answer(response: Response, *, closes: bool = False) -> bytes:
    """A response as it goes over the wire."""
    headers = [*response.raw_headers, *([(b"connection", b"close")] if closes else ())]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return STATUS_LINE[response.status_code] + lines + b"\r\n" + bytes(response.body)
