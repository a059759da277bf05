"""The service is told to stop while it is asked: what it took, it answers."""

import contextlib
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from service_helpers import StartServer, draw_picture, encode, running_server, wait_for

from service.settings import Settings


@pytest.fixture
def big() -> bytes:
    return encode(draw_picture(700, 1200, 900), "JPEG")


def test_what_was_taken_when_the_signal_came_is_answered(
    data_dir: Path, start_server: StartServer, big: bytes
):
    server = start_server(data_dir)
    server.wait_ready()
    sent = threading.Barrier(13)

    def ask() -> int:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            client.get("/livez")  # Connected: what is sent now is taken.
            sent.wait(20)
            return client.post("/v1/search", files={"image": big}).status_code

    with ThreadPoolExecutor(12) as threads:
        answers = [threads.submit(ask) for _ in range(12)]
        sent.wait(20)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert {answer.result() for answer in answers} == {200}
    assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_a_service_that_drains_says_so_and_loses_nobody(
    data_dir: Path, start_server: StartServer, big: bytes
):
    server = start_server(data_dir, drain_delay_s=2.0)
    server.wait_ready()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert client.get("/readyz").status_code == 200
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
        assert ready.headers["connection"] == "close"
        statuses = []
        while server.process.poll() is None:
            try:
                statuses.append(client.post("/v1/search", files={"image": big}).status_code)
            except httpx.NetworkError:  # Refused, or reset in the moment that the listener closes.
                break
        assert time.monotonic() - signalled >= 2.0
        assert len(statuses) > 1
        assert set(statuses) == {200}
    assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_a_second_signal_does_not_wait(data_dir: Path, start_server: StartServer):
    server = start_server(data_dir, drain_delay_s=600)
    server.wait_ready()
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_decode_processes_end_with_the_service_however_it_ends(
    data_dir: Path, start_server: StartServer
):
    for how in (signal.SIGTERM, signal.SIGKILL):
        server = start_server(data_dir, workers=2)
        server.wait_ready()
        children = [int(p) for p in _children(server.process.pid)]
        assert len(children) == 2
        server.process.send_signal(how)
        server.process.wait(30)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_who_is_still_sending_at_the_very_end_is_told_so(data_dir: Path, start_server: StartServer):
    server = start_server(data_dir, shutdown_timeout_s=1)
    server.wait_ready()
    url = httpx.URL(server.url)
    head = b"POST /v1/embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(head + b"Content-Length: 100\r\n\r\nx")
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        answer = b""
        while some := connection.recv(65536):
            answer += some
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"application/problem+json" in answer
    assert b'"code": "not_ready"' in answer
    assert b"retry-after" in answer.lower()
    assert server.process.wait(30) in (0, -signal.SIGTERM)
    assert "Traceback" not in server.log.read_text()


def test_who_has_connected_before_the_end_is_still_answered(
    data_dir: Path, start_server: StartServer
):
    server = start_server(data_dir)
    server.wait_ready()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        httpx.get(f"{server.url}/livez")  # Answered by the same loop: the other one is accepted.
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "Shutting down" in server.log.read_text())
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
    assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_whoever_waits_in_the_kernels_queue_when_the_listener_closes_is_answered(data_dir: Path):
    with (
        running_server(Settings(data_dir=data_dir, workers=1)) as (server, client),
        contextlib.ExitStack() as opened,
    ):
        assert client.get("/livez").status_code == 200
        (connection,) = server.server_state.connections
        is_busy, goes_on = threading.Event(), threading.Event()

        def stop() -> None:
            is_busy.set()
            goes_on.wait(10)
            server.should_exit = True

        connection.loop.call_soon_threadsafe(stop)
        is_busy.wait(10)
        address = (client.base_url.host, client.base_url.port)
        queued = [
            opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(40)
        ]
        for each in queued:
            each.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)  # The tick that sees `should_exit` is due, and the queue is full.
        goes_on.set()
        assert [each.recv(12) for each in queued] == [b"HTTP/1.1 200"] * len(queued)


def test_a_request_that_has_arrived_when_its_idle_connection_is_closed_is_answered(data_dir: Path):
    with (
        running_server(Settings(data_dir=data_dir, workers=1)) as (server, client),
        ThreadPoolExecutor(1) as thread,
    ):
        assert client.get("/livez").status_code == 200
        (connection,) = server.server_state.connections
        is_busy, goes_on = threading.Event(), threading.Event()

        def stop() -> None:
            is_busy.set()
            goes_on.wait(10)
            connection.shutdown()

        connection.loop.call_soon_threadsafe(stop)
        is_busy.wait(10)
        answer = thread.submit(client.get, "/livez")
        time.sleep(0.2)
        goes_on.set()
        assert answer.result().status_code == 200
