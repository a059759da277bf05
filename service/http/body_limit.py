"""The outermost layers, plain ASGI: bodies counted while they arrive, one line per request."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admission import ByteBudget
from service.errors import (
    INTERNAL,
    BodyTimeoutError,
    BodyTooLargeError,
    NotReadyError,
    row_of,
)
from service.http.auth import KEY_NAME
from service.http.problems import problem_response, response_of
from service.observability.metrics import Metrics
from service.observability.request_context import context_of

# How long a refused client may go on sending before we hang up: closing at once would reset the
# connection, and most clients would never see why.
LINGER_S = 10.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = structlog.stdlib.get_logger()


class CountedBody:
    """A `receive` that refuses the byte beyond the limit, and the body that takes too long.

    The declared length is checked before the first byte is asked for (a client that waits for
    `100 Continue` then sends nothing); the counted length is what decides.
    """

    def __init__(
        self,
        receive: Receive,
        headers: Headers,
        *,
        limit: int,
        timeout_s: float,
        budget: ByteBudget,
    ) -> None:
        declared = headers.get("content-length", "")
        self._receive = receive
        self._limit = limit
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        # Zeros before a number may be more digits than Python reads.
        self._declared = int(f"0{declared.lstrip('0')[:20]}") if declared.isdecimal() else 0
        self.is_complete = self._declared == 0 and "transfer-encoding" not in headers
        self._budget = budget
        self._held = 0
        self.count = 0

    async def receive(self) -> Message:
        """The next message of the body.

        Raises:
            BodyTooLargeError: more bytes are declared, or have arrived, than the limit.
            BodyTimeoutError: the body is not complete in time.
            OverloadedError: with the bodies of other requests it is more than may be held.
        """
        if self.is_complete:
            return await self._receive()
        if self._declared > self._limit:
            raise self._too_large()
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise BodyTimeoutError(
                f"the body must arrive within {self._timeout_s:g} s; {self.count} bytes came"
            ) from error
        self._count(message)
        if self.count > self._limit:
            raise self._too_large()
        size = len(message.get("body", b""))
        self._budget.take(size)
        self._held += size
        return message

    def let_go(self) -> None:
        """Count what was received as held no more."""
        self._budget.give_back(self._held)
        self._held = 0

    async def drain(self) -> None:
        """Read and forget what is left, for a short time."""
        try:
            async with asyncio.timeout(LINGER_S):
                while not self.is_complete:
                    self._count(await self._receive())
        except TimeoutError:
            return

    def _count(self, message: Message) -> None:
        self.count += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_complete = True

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body may have {self._limit} bytes at most on this route")


class BodyGuard:
    """Counts each body; an answer given before its end closes the connection, gently."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: Callable[[str, str], int],
        timeout_s: float,
        budget: ByteBudget,
    ) -> None:
        self._app = app
        self._budget = budget
        self._limit = limit
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit(scope["path"], headers.get("content-type", ""))
        body = CountedBody(
            receive, headers, limit=limit, timeout_s=self._timeout_s, budget=self._budget
        )

        async def send_gently(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_complete:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_last and not body.is_complete:
                await send({**message, "more_body": True})
                body.let_go()
                await body.drain()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            await self._app(scope, body.receive, send_gently)
        finally:
            body.let_go()


class RequestLog:
    """Gives each request an id, logs and counts its end, answers 500 for what nobody foresaw."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        method = scope["method"]
        if method == "HEAD":  # Answered as GET; the server, which knows, leaves the body out.
            scope = {**scope, "method": "GET"}
        given = Headers(scope=scope).get("x-request-id", "")
        context = context_of(scope)
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_named)
            except asyncio.CancelledError:
                # The server stops, and has waited for this request as long as it may.
                if status:
                    raise
                error = NotReadyError("the service has stopped before the request was answered")
                context.code = row_of(error).code
                await response_of(error)(scope, receive, send_named)
            except Exception:
                log.exception("unforeseen_error", method=method, path=_route(scope))
                if status:  # The answer has begun: all that is left is to break it off.
                    raise
                context.code = INTERNAL.code
                await problem_response(INTERNAL)(scope, receive, send_named)
            seconds = time.perf_counter() - begun
            self._metrics.observe_request(method, _route(scope), status, seconds)
            if context.code is not None:
                self._metrics.count_problem(context.code)
            if context.refusal is not None:
                self._metrics.count_refusal(context.refusal)
            log.info(
                "request",
                method=method,
                path=_route(scope),
                status=status,
                duration_ms=round(seconds * 1000, 3),
                **context.fields(),
                **({"key": scope[KEY_NAME]} if KEY_NAME in scope else {}),
            )


def _route(scope: Scope) -> str:
    """The route's pattern where one matched, so that logs hold no text of a client's choosing."""
    route = scope.get("route")
    return getattr(route, "path", "(none)")
