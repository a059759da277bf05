import asyncio
from typing import Any

import pytest
from starlette.datastructures import Headers

from service.admission import ByteBudget
from service.errors import BodyTimeoutError, BodyTooLargeError
from service.http import body_limit as guard
from service.http.body_limit import BodyLimit, CountedBody
from service.http.request_log import RequestLog
from service.http.route_specs import SPECS
from service.observability.metrics import Metrics


def messages(*chunks: bytes, is_complete: bool = True) -> list[dict[str, Any]]:
    found = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if is_complete and found:
        found[-1]["more_body"] = False
    return found


class Wire:
    """One side of an ASGI conversation: what arrives, and what was sent back."""

    def __init__(self, arriving: list[dict[str, Any]]) -> None:
        self.arriving = list(arriving)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.arriving:
            await asyncio.sleep(60)
        return self.arriving.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def counted(wire: Wire, limit: int, timeout_s: float = 5.0, **headers: str) -> CountedBody:
    given = headers or {"transfer_encoding": "chunked"}
    named = Headers({name.replace("_", "-"): value for name, value in given.items()})
    return CountedBody(
        wire.receive, named, limit=limit, timeout_s=timeout_s, budget=ByteBudget(1000)
    )


async def read_all(body: CountedBody) -> int:
    count = 0
    while not body.is_complete:
        count += len((await body.receive())["body"])
    return count


def test_the_limit_itself_is_allowed_and_the_byte_beyond_is_not():
    assert asyncio.run(read_all(counted(Wire(messages(b"xx", b"xxx")), 5))) == 5
    with pytest.raises(BodyTooLargeError, match="5 bytes at most"):
        asyncio.run(read_all(counted(Wire(messages(b"xx", b"xxxx")), 5)))


def test_a_length_that_lies_is_counted_anyway():
    body = counted(Wire(messages(b"x" * 100)), 5, content_length="3")
    with pytest.raises(BodyTooLargeError):
        asyncio.run(read_all(body))


def test_a_length_beyond_the_limit_is_refused_without_asking_for_a_byte():
    wire = Wire(messages(b"x"))
    with pytest.raises(BodyTooLargeError):
        asyncio.run(counted(wire, 5, content_length="6").receive())
    assert len(wire.arriving) == 1


def test_a_body_that_stops_is_given_up():
    with pytest.raises(BodyTimeoutError, match="2 bytes came"):
        asyncio.run(read_all(counted(Wire(messages(b"xx", is_complete=False)), 5, timeout_s=0.05)))


async def respond(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 415, "headers": []})
    await send({"type": "http.response.body", "body": b"no"})


def serve(app: Any, wire: Wire, *headers: tuple[bytes, bytes]) -> list[dict[str, Any]]:
    scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": list(headers)}
    asyncio.run(app(scope, wire.receive, wire.send))
    return wire.sent


def bounded() -> BodyLimit:
    """A layer that lets nothing pass but what stands around an image, and answers at once."""
    return BodyLimit(
        respond, max_image_bytes=1, max_batch_bytes=1, timeout_s=1, budget=ByteBudget(1_000_000)
    )


CHUNKED = (b"transfer-encoding", b"chunked")


def test_an_early_answer_is_out_before_the_rest_is_read_and_then_the_line_is_closed():
    wire = Wire(messages(b"x" * 10, b"y" * 10))
    sent = serve(bounded(), wire, CHUNKED)
    assert (b"connection", b"close") in sent[0]["headers"]
    assert sent[1]["body"] == b"no"
    assert sent[1]["more_body"] is True
    assert sent[2] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert wire.arriving == []


def test_a_client_that_never_ends_is_hung_up_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "LINGER_S", 0.05)
    wire = Wire(messages(b"x", is_complete=False))
    sent = serve(bounded(), wire, CHUNKED)
    assert sent[-1]["more_body"] is False


def test_a_request_without_a_body_keeps_its_connection():
    sent = serve(bounded(), Wire([]))
    assert sent[0]["headers"] == []
    assert len(sent) == 2


def test_what_nobody_foresaw_is_a_500_that_says_nothing():
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret /etc/place")

    sent = serve(RequestLog(fail, metrics=Metrics()), Wire([]))
    assert sent[0]["status"] == 500
    assert b"internal_error" in sent[1]["body"]
    assert b"secret" not in sent[1]["body"]
    assert b"ZeroDivision" not in sent[1]["body"]


@pytest.mark.parametrize(
    ("path", "content_type", "images"),
    [
        ("/v1/search", "image/png", 1),
        ("/search", "multipart/form-data; boundary=x", 1),
        ("/v1/similarity", "multipart/form-data", 2),
        ("/embed", "Application/JSON; charset=utf-8", 4 / 3),
        ("/similarity", "application/json", 8 / 3),
        ("/v1/search/batch", "application/json", 5),
        ("/v1/search/batch", "multipart/form-data", 5),
    ],
)
def test_the_limit_leaves_room_for_the_images_in_their_encoding(
    path: str, content_type: str, images: float
):
    limit = SPECS[path].max_body_bytes(content_type, 3_000_000, 15_000_000)
    assert images * 3_000_000 <= limit <= images * 3_000_000 + 100_000
