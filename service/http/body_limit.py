"""Bodies counted while they arrive: their bytes, their time, what all of them hold together."""

import asyncio
from dataclasses import KW_ONLY, dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.admission import ByteBudget
from service.errors import BodyTimeoutError, BodyTooLargeError
from service.http.route_specs import spec_of

# How long a refused client may go on sending before we hang up: closing at once would reset the
# connection, and most clients would never see why.
LINGER_S = 10.0


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


@dataclass(frozen=True)
class BodyLimit:
    """Counts each body; an answer given before its end closes the connection, gently.

    Attributes:
        app: what a body is passed on to.
        max_image_bytes: of one image, not encoded.
        max_batch_bytes: of a whole batch, as it is sent.
        timeout_s: longest time a body may take.
        budget: of all bodies together.
    """

    app: ASGIApp
    _: KW_ONLY
    max_image_bytes: int
    max_batch_bytes: int
    timeout_s: float
    budget: ByteBudget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = spec_of(scope["path"]).max_body_bytes(
            headers.get("content-type", ""), self.max_image_bytes, self.max_batch_bytes
        )
        body = CountedBody(
            receive, headers, limit=limit, timeout_s=self.timeout_s, budget=self.budget
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
            await self.app(scope, body.receive, send_gently)
        finally:
            body.let_go()
