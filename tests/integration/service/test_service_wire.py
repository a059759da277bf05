"""What attackers write on the wire: two lengths, trailers, headers inside of values, two names."""

import re
import socket
import time

import httpx
import pytest
from service_helpers import draw_picture, encode

PNG = encode(draw_picture(1, 24, 24))
HEAD = b"POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
NEXT = b"GET /livez HTTP/1.1\r\nHost: y\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n"


def say(client: httpx.Client, *pieces: bytes) -> bytes:
    """Everything that is answered on a connection of its own, until it is closed.

    Pieces are sent far enough apart for each to be read by itself.
    """
    address = (client.base_url.host, client.base_url.port)
    answer = b""
    with socket.create_connection(address, timeout=10) as connection:
        try:
            connection.sendall(pieces[0])
            for piece in pieces[1:]:
                time.sleep(0.1)
                connection.sendall(piece)
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionError:
            pass
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", answer)]


CHUNKED = b"Transfer-Encoding: chunked\r\n"
TWO_READINGS = {
    "both": CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "both, the other way": b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc",
    "one length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "plus": b"Content-Length: +3\r\n\r\nabc",
    "minus": b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal": b"Content-Length: 0x3\r\n\r\nabc",
    "beyond 64 bits": b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "no number": b"Content-Length:\r\n\r\nabc",
    "a space before the colon": b"Content-Length : 3\r\n\r\nabc",
    "shorter than the body": b"Content-Length: 3\r\n\r\nabc-and-more\r\n\r\n",
    "nearly chunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "not chunked at last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two encodings": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "quoted": b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a line feed alone": b"Transfer-Encoding: chunked\n\r\n0\r\n\r\n",
    "a folded line": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a chunk that ends in a line feed": CHUNKED + b"\r\n3\nabc\n0\n\n",
    "a chunk below nothing": CHUNKED + b"\r\n-1\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"\r\nffffffffffffffffff\r\nabc",
    "a chunk longer than it says": CHUNKED + b"\r\n2\r\nabc\r\n0\r\n\r\n",
    "a trailer that is a length": CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "two hosts": b"Host: y\r\nContent-Length: 3\r\n\r\nabc",
    "NUL": b"X: a\0b\r\nContent-Length: 3\r\n\r\nabc",
    "a carriage return alone": b"X: a\rContent-Length: 9\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("framing", TWO_READINGS.values(), ids=TWO_READINGS)
def test_what_a_proxy_may_read_otherwise_ends_the_connection(client: httpx.Client, framing: bytes):
    """What follows may be a second request, or the body of the first: it is never answered."""
    answer = say(client, HEAD + framing + NEXT)
    assert statuses(answer)[-1] == 400
    assert 200 not in statuses(answer)
    assert b"malformed_request" in answer


def test_a_length_of_very_many_zeros_is_a_length(client: httpx.Client):
    framing = b"Content-Length: " + b"0" * 9000 + b"3\r\n\r\nabc"
    assert statuses(say(client, HEAD + framing + LAST)) == [415, 200]


def test_trailers_are_no_headers_and_take_no_memory(client: httpx.Client):
    chunked = HEAD + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n"
    trailers = b"Content-Encoding: gzip\r\nX-Request-Id: from-a-trailer\r\n"
    answer = say(client, chunked + trailers + b"\r\n" + LAST)
    # As an encoding it would be 415 for another reason.
    assert statuses(answer) == [415, 200]
    assert b"unsupported_image_format" in answer
    assert b"from-a-trailer" not in answer
    for endless in (b"X: y\r\n" * 100_000, b"X: " + b"y" * 600_000):
        assert 200 not in statuses(say(client, chunked + endless + b"\r\n\r\n" + LAST))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 60_000,
        b"GET /livez HTTP/1.1\r\nX: " + b"y" * 300_000 + b"\r\n",
        b"GET /" + b"y" * 300_000 + b" HTTP/1.1\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"y" * 300_000 + b": x\r\n",
    ],
    ids=["many headers", "a long value", "a long address", "a long name"],
)
def test_headers_of_any_form_are_bounded(client: httpx.Client, head: bytes):
    assert 200 not in statuses(say(client, head + b"\r\n"))


BREAKS = ("%0d%0aSet-Cookie:%20a=b", "%0aSet-Cookie:%20a=b", "%E5%98%8D%E5%98%8ASet-Cookie:%20a=b")


@pytest.mark.parametrize("line_break", BREAKS)
def test_no_value_of_a_client_becomes_a_header(client: httpx.Client, line_break: str):
    reflected = [
        f"/v1/indexes/{line_break}",
        f"/v1/indexes/default/item?id={line_break}",
        f"/v1/indexes/default/item?{line_break}=1",
        f"/v1/indexes?{line_break}",
        f"/{line_break}",
        f"/static/{line_break}",
        f"//evil.example/{line_break}",
    ]
    for path in reflected:
        answer = client.get(path, headers={"X-Request-ID": line_break})
        assert answer.status_code in (400, 404)
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-type"] == "application/problem+json"
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    field = {"files": {"image": PNG}, "data": {f"k{line_break}": "1", "index": line_break}}
    assert "set-cookie" not in client.post("/v1/search", **field).headers


def test_the_host_that_is_named_changes_no_answer(client: httpx.Client):
    """No link, redirect or document is made of it."""
    for path in ("/", "/docs", "/openapi.json", "/v1/nothing"):
        own = client.get(path, headers={"Host": "evil.example:1"})
        assert "evil" not in own.text + str(own.headers)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"CONNECT evil.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET http://a@b:99999/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET http://evil.example/none HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
    ],
)
def test_requests_to_somebody_else_are_not_passed_on(
    client: httpx.Client, sent: bytes, status: int
):
    assert statuses(say(client, sent)) == [status]


UPGRADE = b"POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nConnection: "
LENGTH = b"\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize(
    "wish", [b"Upgrade, close\r\nUpgrade: h2c", b"upgrade,close\r\nUpgrade: websocket"]
)
@pytest.mark.parametrize("cut", [0, 40])
def test_a_wish_for_another_protocol_hides_no_body(client: httpx.Client, wish: bytes, cut: int):
    """Java's client asks for HTTP/2 like this, with the body behind it."""
    head = UPGRADE + wish + LENGTH % len(PNG)
    for pieces in ([head + PNG[:cut], PNG[cut:]], [head[:cut], head[cut:] + PNG]):
        answer = say(client, *filter(None, pieces))
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.startswith(b"HTTP/1.1 200"), answer


def test_a_body_behind_such_a_wish_is_no_second_request(client: httpx.Client):
    inner = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    head = UPGRADE + b"Upgrade, close\r\nUpgrade: h2c" + LENGTH % len(inner)
    answer = say(client, head, inner)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 415"), answer


def test_requests_around_such_a_wish_are_answered_in_their_order(client: httpx.Client):
    get = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: %b\r\n\r\n"
    wish = get % b"Upgrade\r\nUpgrade: websocket"
    answer = say(client, get % b"keep-alive" + wish + get % b"close")
    assert answer.count(b"HTTP/1.1 200") == 3


def test_connect_is_refused_and_the_last_request_of_its_connection(client: httpx.Client):
    answer = say(client, b"CONNECT /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405")
