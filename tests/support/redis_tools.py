"""A real redis-server of a test's own, and a stranger that listens where one should be."""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from programs import require_program

TIMEOUT_S = 0.5
"""How long a replica of these tests waits for Redis: five times the default, so that it shows."""
SECRET = "only the replicas of these tests know this"


class RedisServer:
    """`redis-server` on a port of its own, which it keeps when it is started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._program = require_program("redis-server")
        self._folder = folder
        self._options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self._folder), *self._options),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def send(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis(port=self.port, **options)


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def stranger(answer: bytes | Callable[[bytes], bytes], port: int = 0) -> Iterator[int]:
    """A TCP server that says the same to whatever it hears, or what it makes up; gives its port."""
    listener = socket.create_server(("127.0.0.1", port))
    stop = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.2)
            while not stop.is_set():
                try:
                    heard = connection.recv(65536)
                    if not heard:
                        return
                    connection.sendall(answer(heard) if callable(answer) else answer)
                except TimeoutError:
                    continue
                except OSError:
                    return

    def accept() -> None:
        listener.settimeout(0.2)
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=talk, args=(connection,)))
            threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        listener.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
