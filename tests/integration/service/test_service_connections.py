"""Connections that say nothing, half of something, or are too many: on real sockets."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from service_helpers import Server, StartServer, open_sockets, starting_servers, wait_for

TIMEOUT_S = 1.0
HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
WHOLE = HALF + b"\r\n"
POST = b"POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without an index, with a short patience; none of these tests may harm it."""
    folder = tmp_path_factory.mktemp("patience")
    patience = {"header_timeout_s": TIMEOUT_S, "answer_timeout_s": TIMEOUT_S}
    with starting_servers(folder) as start:
        server = start(folder, **patience, body_timeout_s=4 * TIMEOUT_S)
        wait_for_model(server)
        yield server
        assert server.process.poll() is None
        assert "Traceback" not in server.log.read_text()


def connect(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=10)


def ask(connection: socket.socket) -> None:
    """Send one whole request and read its whole answer."""
    connection.sendall(WHOLE)
    answer = b""
    while not answer.endswith(b'"live"}'):
        answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")


def seconds_until_closed(connection: socket.socket) -> float:
    """Time until the other side hangs up; whatever it says before is read past."""
    begun = time.monotonic()
    try:
        while connection.recv(65536):
            continue
    except ConnectionResetError:
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize("sent", [b"", b"POST /v1/sea", HALF, HALF + b"X-A: "])
def test_headers_that_do_not_come_are_given_up(server: Server, sent: bytes):
    with connect(server) as connection:
        connection.sendall(sent)
        assert 0.5 * TIMEOUT_S < seconds_until_closed(connection) < 4 * TIMEOUT_S


def test_headers_that_trickle_are_given_up_too(server: Server):
    with connect(server) as connection:
        connection.sendall(HALF)
        connection.settimeout(0.1)
        begun = time.monotonic()
        for _ in range(80):
            try:
                connection.sendall(b"X-Again: 1\r\n")
                assert connection.recv(1) == b""
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 0.5 * TIMEOUT_S < time.monotonic() - begun < 4 * TIMEOUT_S


@pytest.mark.parametrize("sent", [b"G", HALF])
def test_a_kept_connection_is_held_to_the_same_time(server: Server, sent: bytes):
    with connect(server) as connection:
        ask(connection)
        # Between requests it may be silent longer than a request may be incomplete.
        time.sleep(1.5 * TIMEOUT_S)
        ask(connection)
        connection.sendall(sent)
        assert 0.5 * TIMEOUT_S < seconds_until_closed(connection) < 4 * TIMEOUT_S


def wait_for_model(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        while client.get("/readyz").json()["reason"] == "loading_model":
            time.sleep(0.05)


def test_a_body_may_take_longer_than_the_headers(server: Server):
    head = b"POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    wait_for_model(server)
    with connect(server) as connection:
        connection.sendall(head + b"Content-Length: 3\r\n\r\n")
        time.sleep(2 * TIMEOUT_S)
        connection.sendall(b"xyz")
        assert connection.recv(65536).startswith(b"HTTP/1.1 415")


def test_a_client_that_does_not_read_its_answers_is_given_up(
    tmp_path: Path, start_server: StartServer
):
    server = start_server(tmp_path, answer_timeout_s=TIMEOUT_S)
    before = open_sockets(server)
    for requests in (1, 12):
        with connect_narrowly(server) as connection:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * requests)
            wait_for(lambda: open_sockets(server) > before)
            # After its answer a connection is kept for five seconds, were it of use to anybody.
            wait_for(lambda: open_sockets(server) == before)


def test_a_client_that_reads_slowly_gets_its_whole_answer(server: Server):
    answer = bytearray()
    with connect_narrowly(server) as connection:
        connection.sendall(
            b"GET /static/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        while some := connection.recv(65536):
            answer += some
            # Altogether more than twice the time in which nothing may be read at all.
            time.sleep(2.5 * TIMEOUT_S * len(some) / 1_500_000)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert len(body) > 1_000_000
    assert b"content-length: %d" % len(body) in head


def connect_narrowly(server: Server) -> socket.socket:
    """A connection of small packets, for which the kernels keep little of what is not read."""
    url = httpx.URL(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.connect((url.host, url.port))
    connection.settimeout(10)
    return connection


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    with ExitStack() as connections:
        yield connections


def test_silent_connections_never_meet_the_limit_on_open_files(
    tmp_path: Path, start_server: StartServer, crowd: ExitStack
):
    server = start_server(tmp_path, open_files=256, header_timeout_s=3)
    for _ in range(600):
        crowd.enter_context(connect(server)).sendall(HALF)
    time.sleep(4)
    # The first are given up by now: others are answered while the sockets are still there.
    assert httpx.get(f"{server.url}/livez").status_code == 200
    log = server.log.read_text()
    assert "out of system resource" not in log
    assert "Traceback" not in log
    assert "connections_bounded_by_open_files" in log
    # About one line a second, however many were refused.
    assert 1 <= log.count('"connection_refused"') <= 6


def test_one_connection_too_many_is_told_to_come_back(
    tmp_path: Path, start_server: StartServer, crowd: ExitStack
):
    server = start_server(tmp_path, max_connections=3)
    held = [crowd.enter_context(connect(server)) for _ in range(3)]
    for connection in held:
        ask(connection)
    with connect(server) as refused:
        answer = refused.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert seconds_until_closed(refused) < 1
    held[0].close()
    time.sleep(0.3)
    assert httpx.get(f"{server.url}/livez").status_code == 200


def answers_until_closed(connection: socket.socket) -> int:
    """How many answers come before the other side hangs up."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received.count(b"HTTP/1.1 200")


def test_a_few_requests_may_wait_on_one_connection_and_no_more(server: Server):
    """Each that waits costs a hundred times its bytes; three thousand are 54 KB to send."""
    last = HALF + b"Connection: close\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(WHOLE * 14 + last)
        assert answers_until_closed(connection) == 15
    with connect(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n\r\n" * 3000)
        assert answers_until_closed(connection) < 20
    assert httpx.get(f"{server.url}/livez").status_code == 200


@pytest.fixture(scope="module")
def full_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has no place for another request: one is being received all the time."""
    folder = tmp_path_factory.mktemp("full")
    with starting_servers(folder) as start:
        server = start(folder, max_concurrent_requests=1, body_timeout_s=600)
        wait_for_model(server)
        with connect(server) as slow:
            slow.sendall(POST + b"Content-Length: 9\r\n\r\n")
            wait_for(lambda: refused(server))
            yield server


def refused(server: Server) -> bool:
    return httpx.post(f"{server.url}/v1/embed").status_code == 503


def requests_until_closed(connection: socket.socket, most: int) -> int:
    """How many requests can be sent, none of their answers read, before the other side hangs up."""
    for sent in range(0, most, 100):
        try:
            connection.sendall(b"POST /v1/embed HTTP/1.1\r\n\r\n" * 100)
        except ConnectionError:
            return sent
        time.sleep(0.01)
    return most


def test_refusals_that_nobody_reads_are_not_kept(full_server: Server, crowd: ExitStack):
    """A full service answers before it reads on: what is not fetched must not fill the memory."""
    deaf = crowd.enter_context(connect_narrowly(full_server))
    # What the kernel holds for it is some MB; the refusals of all these are 9.
    assert requests_until_closed(deaf, 30_000) < 30_000
    assert httpx.get(f"{full_server.url}/livez").status_code == 200


def test_wishes_for_another_protocol_are_not_piled_up(full_server: Server):
    wish = POST + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n"
    for number in (5, 2500):
        with connect(full_server) as connection:
            answer = b""
            # The server may hang up before all of it is sent, or before our side is shut down.
            with suppress(OSError):
                connection.sendall(wish * number)
                connection.shutdown(socket.SHUT_WR)
                while some := connection.recv(65536):
                    answer += some
        assert answer.count(b"HTTP/1.1 503") <= 16
    assert httpx.get(f"{full_server.url}/livez").status_code == 200
    assert "Traceback" not in full_server.log.read_text()


def test_refusals_to_who_is_gone_are_not_logged_one_by_one(full_server: Server):
    for _ in range(5):
        connection = connect(full_server)
        connection.sendall((POST + b"Content-Length: 0\r\n\r\n") * 600)
        # Reset, not ended: what is written from now on fails.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert httpx.get(f"{full_server.url}/livez").status_code == 200
    assert "socket.send() raised" not in full_server.log.read_text()
