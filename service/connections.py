"""Connections, bounded in number and in the time that their request headers may take.

uvicorn bounds neither: silent connections would use up the process's file descriptors, and then
nobody could connect, probes included.
"""

import asyncio
import resource
import socket
import time
from typing import Any

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import RETRY_AFTER_S

# Descriptors for everything that is no connection: indexes (two versions of each during a swap),
# the event loop, logs, and connections that are accepted only to be refused.
RESERVED_FILES = 128

# Connections accepted in one turn of the event loop. asyncio takes the backlog for this, and a
# connection lives for about four turns before it is refused: all of them must fit in the reserve.
_ACCEPTED_A_TURN = 8
_BACKLOG = 2048

_REFUSAL = (
    f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_S}\r\n"
    "Connection: close\r\nContent-Length: 0\r\n\r\n"
).encode()

log = structlog.stdlib.get_logger()


class BoundedServer(uvicorn.Server):
    """uvicorn with both bounds; `make_server` configures it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a burst of clients waits in the kernel, not in descriptors of ours."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
                    same.listen(_BACKLOG)


class BoundedProtocol(H11Protocol):
    """One HTTP connection: refused when there are too many, closed when its headers stay away.

    The time runs from the connection's begin, and on a kept connection from the first byte of the
    next request; between requests uvicorn's own keep-alive time runs.
    """

    header_timeout_s: float
    max_connections: int
    refusals: "RareLine"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it at once."""
        self._header_timer: asyncio.TimerHandle | None = None
        if len(self.connections) >= self.max_connections:
            self.transport = transport
            self.refusals.write(max_connections=self.max_connections)
            transport.write(_REFUSAL)
            transport.close()
            return
        super().connection_made(transport)
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        """Read on; the clock runs while a request has begun whose headers are incomplete."""
        super().data_received(data)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _watch_headers(self) -> None:
        # Also when the bytes were the rest of a body refused: they ended the keep-alive time.
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        # Not `close`, which would wait for a client that does not read its last answer either.
        self.transport.abort()


class RareLine:
    """A log line written once a second at most, with the number of times it was due."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._due = 0
        self._written = float("-inf")

    def write(self, **values: Any) -> None:
        """Write the line, or only count it."""
        self._due += 1
        now = time.monotonic()
        if now - self._written >= 1.0:
            log.warning(self._event, count=self._due, **values)
            self._due, self._written = 0, now


def make_server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    header_timeout_s: float,
    max_connections: int,
    shutdown_timeout_s: int,
) -> BoundedServer:
    """A server of one application; it keeps `max_connections` below the process's file limit."""

    class Protocol(BoundedProtocol):
        pass

    Protocol.header_timeout_s = header_timeout_s
    Protocol.max_connections = bound_connections(max_connections)
    Protocol.refusals = RareLine("connection_refused")
    return BoundedServer(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="asyncio",
            http=Protocol,
            ws="none",
            backlog=_ACCEPTED_A_TURN,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=shutdown_timeout_s,
        )
    )


def bound_connections(wanted: int) -> int:
    """As many connections as wanted, or as the soft limit on open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    allowed = max(1, min(wanted, soft - RESERVED_FILES))
    if allowed < wanted:
        log.warning("connections_bounded_by_open_files", wanted=wanted, allowed=allowed, files=soft)
    return allowed
