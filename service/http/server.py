"""The server: one socket, connections with bounds, and a stop that lets nobody down."""

import asyncio
import contextvars
import functools
import resource
import select
import signal
import socket
import time
from types import FrameType
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from service.admission import Admission
from service.http.connections import BoundedProtocol, ConnectionBounds
from service.observability.logs import ThrottledWarning
from service.settings import Settings

# Descriptors for everything that is no connection: indexes (two versions of each during a swap),
# the event loop, logs, and connections that are accepted only to be refused.
RESERVED_FILES = 128

# Connections accepted in one turn of the event loop. asyncio takes the backlog for this, and a
# connection lives for about four turns before it is refused: all of them must fit in the reserve.
_ACCEPTED_A_TURN = 8
_BACKLOG = 2048
# Turns with nobody new after which nobody is half-way between the kernel and a protocol.
_QUIET_TURNS = 4
_LAST_CALL_S = 0.5

log = structlog.stdlib.get_logger()


class BoundedServer(uvicorn.Server):
    """uvicorn with both bounds, and a time between "not ready" and the end; see `make_server`."""

    def __init__(self, config: uvicorn.Config, admission: Admission, drain_delay_s: float) -> None:
        super().__init__(config)
        self._admission = admission
        self._drain_delay_s = drain_delay_s
        self._ends_at: float | None = None
        self._first_signal = signal.SIGTERM

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        was_draining = self._admission.is_draining
        self._admission.is_draining = True
        if was_draining or self._drain_delay_s == 0.0:
            super().handle_exit(sig, frame)
            return
        self._first_signal = signal.Signals(sig)
        self._ends_at = time.monotonic() + self._drain_delay_s
        # The signal came in the middle of some request, whose id is no matter of this line.
        contextvars.Context().run(log.info, "draining", seconds=self._drain_delay_s)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to stop."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._ends_at = None
            super().handle_exit(self._first_signal, None)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a burst of clients waits in the kernel, not in descriptors of ours."""
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
                    same.listen(_BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take who has connected already, then stop: closing a listener resets its queue."""
        waiting = select.poll()
        for server in self.servers:
            for listener in server.sockets:
                waiting.register(listener.fileno(), select.POLLIN)
        ends_at = time.monotonic() + _LAST_CALL_S
        quiet = 0
        while quiet < _QUIET_TURNS and time.monotonic() < ends_at:
            await asyncio.sleep(0)
            quiet = 0 if waiting.poll(0) else quiet + 1
        await super().shutdown(sockets)


def make_server(app: FastAPI, settings: Settings) -> BoundedServer:
    """A server of an application that `create_app` has made of the same settings.

    It keeps connections below the process's limit on open files. Nobody's `X-Forwarded-For` and
    `X-Forwarded-Proto` count unless `trusted_proxies` names them: uvicorn's own default believes
    everybody on this machine.
    """
    admission: Admission = app.state.admission
    bounds = ConnectionBounds(
        max_connections=bound_connections(settings.max_connections),
        header_timeout_s=settings.header_timeout_s,
        answer_timeout_s=settings.answer_timeout_s,
        admission=admission,
        metrics=app.state.metrics,
        connection_refusals=ThrottledWarning("connection_refused"),
        early_refusals=ThrottledWarning("requests_refused"),
    )
    return BoundedServer(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="asyncio",
            # uvicorn only calls it, and types it as a class.
            http=cast("type[asyncio.Protocol]", functools.partial(BoundedProtocol, bounds)),
            ws="none",
            backlog=_ACCEPTED_A_TURN,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        ),
        admission,
        settings.drain_delay_s,
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
