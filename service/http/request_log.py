"""Around all routes: an id for each request, one log line and its counts when it ends."""

import asyncio
import re
import time
import uuid
from dataclasses import KW_ONLY, dataclass

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problems import answer_error
from service.observability.metrics import Metrics
from service.observability.request_context import context_of, route_of

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = structlog.stdlib.get_logger()


@dataclass(frozen=True)
class RequestLog:
    """Logs and counts each request, and answers what no layer below has answered."""

    app: ASGIApp
    _: KW_ONLY
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        method = scope["method"]
        if method == "HEAD":  # Answered as GET; the server, which knows, leaves the body out.
            scope = {**scope, "method": "GET"}
        context = context_of(scope)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        own_headers = [
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *own_headers]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_named)
            except (asyncio.CancelledError, Exception) as error:
                answer = answer_error(error, scope)
                if status:  # The answer has begun: all that is left is to break it off.
                    raise
                await answer(scope, receive, send_named)
            seconds = time.perf_counter() - begun
            route = route_of(scope)
            self.metrics.observe_request(method, route, status, seconds)
            if context.code is not None:
                self.metrics.problems.labels(context.code).inc()
            if context.refusal is not None:
                self.metrics.refusals.labels(context.refusal).inc()
            log.info(
                "request",
                method=method,
                path=route,
                status=status,
                duration_ms=round(seconds * 1000, 3),
                **context.fields(),
            )
