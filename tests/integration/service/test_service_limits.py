"""Bodies that are too large, too slow or cut off: counted while they arrive, on a real socket."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from service_helpers import draw_picture, encode, open_client

from service.settings import Settings

MAX = 200_000
PNG = encode(draw_picture(1, 32, 32))


@pytest.fixture(scope="module")
def small(data_dir: Path) -> Iterator[httpx.Client]:
    """A service with tight limits."""
    settings = Settings(
        data_dir=data_dir,
        max_image_bytes=MAX,
        max_image_pixels=10_000,
        max_image_side=500,
        body_timeout_s=1.0,
        allowed_formats=frozenset({"PNG", "JPEG"}),
    )
    with open_client(settings) as client:
        yield client


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def read_answer(connection: socket.socket) -> tuple[int, dict, bytes]:
    """Status, problem document and headers of the answer on a raw connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, f"hung up after {received!r}"
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split(b" ")[1]), json.loads(body), head.lower()


HEAD = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_a_chunked_body_beyond_the_limit_is_refused_before_it_has_all_arrived(small: httpx.Client):
    with connect(small) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        connection.settimeout(0.02)
        answer = b""
        # A body without end: only a server that counts can answer at all.
        while not answer and sent < 100 * MAX:
            connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            sent += 10_000
            try:
                answer = connection.recv(65536, socket.MSG_PEEK)
            except TimeoutError:
                continue
        connection.settimeout(10)
        status, problem, head = read_answer(connection)
    assert (status, problem["code"]) == (413, "body_too_large")
    assert b"connection: close" in head
    assert MAX < sent < 20 * MAX


def test_a_declared_length_beyond_the_limit_is_refused_before_a_byte_is_sent(small: httpx.Client):
    with connect(small) as connection:
        connection.sendall(HEAD + b"Content-Length: 200000000\r\nExpect: 100-continue\r\n\r\n")
        status, problem, _ = read_answer(connection)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_a_client_that_sends_on_still_reads_why_it_was_refused(small: httpx.Client):
    response = small.post("/v1/search", content=b"x" * 50_000_000, headers={
        "Content-Type": "image/png"
    })  # fmt: skip
    assert response.status_code == 413
    assert small.get("/livez").status_code == 200


def test_a_body_that_does_not_come_is_given_up(small: httpx.Client):
    with connect(small) as connection:
        begun = time.monotonic()
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nxxx")
        status, problem, head = read_answer(connection)
    assert (status, problem["code"]) == (408, "body_timeout")
    assert b"connection: close" in head
    assert time.monotonic() - begun < 8


def test_a_body_that_trickles_is_given_up_too(small: httpx.Client):
    """The time counts for the whole body: one byte now and then buys nothing."""
    with connect(small) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        connection.settimeout(0.2)
        for _ in range(40):
            connection.sendall(b"x")
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
        connection.settimeout(10)
        status, problem, _ = read_answer(connection)
    assert (status, problem["code"]) == (408, "body_timeout")


def test_a_client_that_hangs_up_does_no_harm(small: httpx.Client):
    for cut in (0, 1, 500):
        with connect(small) as connection:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * cut)
    time.sleep(0.2)
    assert small.post("/v1/search", files={"image": PNG}).status_code == 200


@pytest.mark.parametrize("length", [b"-5", b"1e3", b"99999999999999999999999", b"5, 6"])
def test_a_strange_length_ends_in_a_refusal(small: httpx.Client, length: bytes):
    with connect(small) as connection:
        connection.sendall(HEAD + b"Content-Length: " + length + b"\r\n\r\nxxxxx")
        connection.settimeout(5)
        assert connection.recv(65536).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert small.get("/livez").status_code == 200


def test_an_image_of_exactly_the_limit_is_read_in_every_kind_of_body(small: httpx.Client):
    at_limit = PNG + b"\0" * (MAX - len(PNG))
    over = at_limit + b"\0"
    for image, statuses in ((at_limit, {200, 422}), (over, {413})):
        text = base64.b64encode(image).decode()
        answers = [
            small.post("/v1/search", files={"image": image}),
            small.post("/v1/search", json={"image_base64": text}),
            small.post("/v1/search", content=image, headers={"Content-Type": "image/png"}),
            small.post("/v1/similarity", files={"image_a": image, "image_b": image}),
            small.post("/v1/similarity", json={"image_a_base64": text, "image_b_base64": text}),
        ]
        for answer in answers:
            assert answer.status_code in statuses, answer.text
        if statuses == {413}:
            assert {answer.json()["code"] for answer in answers} == {"image_too_large"}


@pytest.mark.parametrize(
    ("size", "status"), [((100, 100), 200), ((101, 100), 422), ((501, 1), 422), ((500, 1), 200)]
)
def test_pixels_and_sides_are_limited(small: httpx.Client, size: tuple[int, int], status: int):
    response = small.post("/v1/search", files={"image": encode(draw_picture(1, *size))})
    assert response.status_code == status, response.text
    if status == 422:
        assert response.json()["code"] == "image_dimensions"


def test_a_format_the_operator_did_not_allow_is_415(small: httpx.Client):
    response = small.post("/v1/search", files={"image": encode(draw_picture(1, 32, 32), "WEBP")})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_image_format")


def test_what_does_not_fit_in_the_queue_is_refused_with_a_time_to_come_back(data_dir: Path):
    settings = Settings(data_dir=data_dir, workers=1, max_queue=1)
    picture = encode(draw_picture(2, 1500, 1500))
    with open_client(settings) as client:

        def send(_: int) -> httpx.Response:
            return client.post("/v1/search", files={"image": picture})

        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(send, range(24)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert answer.json()["code"] == "overloaded"
                assert int(answer.headers["retry-after"]) >= 1
        assert send(0).status_code == 200


def test_bodies_beyond_what_may_be_held_are_refused_unread(data_dir: Path):
    with open_client(Settings(data_dir=data_dir, max_concurrent_requests=1)) as client:
        with connect(client) as slow:
            slow.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
            time.sleep(0.3)
            refused = client.post("/v1/search", files={"image": PNG})
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert client.get("/readyz").status_code == 200
        time.sleep(0.3)
        assert client.post("/v1/search", files={"image": PNG}).status_code == 200


def test_bytes_of_all_bodies_are_counted_together(data_dir: Path):
    """Finished or not: what is in hand counts until it is answered, and then no more."""
    settings = Settings(data_dir=data_dir, max_image_bytes=MAX, max_body_bytes_held=4 * MAX)
    large = PNG + b"\0" * (MAX // 2)

    def send(**headers: str) -> httpx.Response:
        headers["Content-Type"] = headers.get("kind", "image/png")
        return client.post("/v1/embed", content=large, headers=headers)

    with open_client(settings) as client:
        unfinished = [connect(client) for _ in range(4)]
        for connection in unfinished:
            connection.sendall(HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 190_000)
        time.sleep(0.5)
        for _ in range(3):
            refused = send()
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        # Few requests are in hand: a small one still fits.
        assert client.post("/v1/embed", files={"image": PNG}).status_code == 200
        for connection in unfinished:
            connection.close()
        time.sleep(0.3)
        for _ in range(20):
            assert send().status_code in {200, 422}
            assert send(kind="application/json").status_code == 400
            assert client.post("/v1/embed", content=large * 4, headers={
                "Content-Type": "image/png"
            }).status_code == 413  # fmt: skip


def test_two_lengths_that_may_disagree_are_refused(small: httpx.Client):
    with connect(small) as connection:
        both = b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
        connection.sendall(HEAD + both + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        status, problem, head = read_answer(connection)
        assert (status, problem["code"]) == (400, "malformed_request")
        assert b"connection: close" in head
        # What may be a second request, or the rest of the first, is never answered.
        assert connection.recv(65536) == b""


def test_work_that_takes_too_long_is_504_and_waiting_too_long_503(data_dir: Path):
    picture = encode(draw_picture(2, 2500, 2500), "JPEG")
    settings = Settings(data_dir=data_dir, workers=1, request_timeout_s=0.001)
    with open_client(settings) as client:
        response = client.post("/v1/search", files={"image": picture})
        assert (response.status_code, response.json()["code"]) == (504, "timeout")
    settings = Settings(data_dir=data_dir, workers=1, max_batch=1, queue_timeout_s=0.02)
    with open_client(settings) as client, ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(lambda _: client.post("/v1/search", files={"image": picture}), range(6))
        )
        assert {a.status_code for a in answers} == {200, 503}


def test_many_clients_get_the_answers_they_would_get_alone(client: httpx.Client):
    pictures = [encode(draw_picture(400 + i)) for i in range(16)]

    def ask(picture: bytes) -> dict:
        answer = client.post("/v1/search", files={"image": picture}).json()
        del answer["timings_ms"]
        return answer

    alone = [ask(picture) for picture in pictures]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(ask, pictures * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert [r["id"] for r in one["results"]] == [r["id"] for r in other["results"]]
        radii = [[r["certified_radius"] for r in a["results"]] for a in (one, other)]
        assert radii[0] == pytest.approx(radii[1], rel=1e-6, abs=1e-7)
