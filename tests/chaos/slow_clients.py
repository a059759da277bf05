"""A crowd of slow clients on real sockets: bytes that trickle in, and answers that nobody reads."""

import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Self

import httpx

HEADERS = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "
BODY = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
BODY += b"Content-Length: 99999\r\n\r\n"
# More than the kernels keep for a client that does not read.
ANSWERS = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 3
FIRST = {"headers": HEADERS, "body": BODY, "answer": ANSWERS}


@dataclass(eq=False)
class SlowClient:
    """One of the crowd: what it is slow at, and how long it was borne."""

    kind: str
    connection: socket.socket
    began: float = field(default_factory=time.monotonic)
    borne_s: float | None = None
    said: bytes = b""


class Crowd:
    """So many clients of each kind, in one thread of this process.

    Args:
        url: of the service.
        kinds: how many are slow at sending `headers`, at sending a `body`, at reading an `answer`.
        every_s: seconds between two bytes of a client.
    """

    def __init__(self, url: str, kinds: dict[str, int], *, every_s: float = 1.0) -> None:
        self._url = httpx.URL(url)
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._be_slow)
        self._selector = selectors.DefaultSelector()
        self.clients = [
            self._connect(kind) for kind, number in kinds.items() for _ in range(number)
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._selector.close()
        for client in self.clients:
            client.connection.close()

    def borne(self, kind: str) -> list[float]:
        """Seconds until each client of a kind was cut off; of those that were."""
        found = [client.borne_s for client in self.clients if client.kind == kind]
        return [seconds for seconds in found if seconds is not None]

    def told(self, kind: str) -> Counter[str]:
        """Status of what clients of a kind were told before they were cut off; "" is nothing."""
        return Counter(c.said[9:12].decode() for c in self.clients if c.kind == kind)

    def describe(self, kind: str) -> str:
        seconds = self.borne(kind)
        if not seconds:
            return f"{kind}: none cut off"
        return (
            f"{len(seconds)} slow at their {kind} cut off after {median(seconds):.1f} s, the last "
            f"after {max(seconds):.1f} s"
        )

    def _connect(self, kind: str) -> SlowClient:
        connection = socket.socket()
        # Small packets, so that the kernels keep little of what is not read.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        connection.settimeout(60)
        connection.connect((self._url.host, self._url.port))
        client = SlowClient(kind, connection)
        connection.sendall(FIRST[kind])
        connection.setblocking(False)
        if kind != "answer":  # Nothing is read there: that it is over, only the service knows.
            self._selector.register(connection, selectors.EVENT_READ, client)
        return client

    def _be_slow(self) -> None:
        turn = time.monotonic()
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                self._hear(key.data)
            if time.monotonic() - turn > self._every_s:
                turn = time.monotonic()
                for key in list(self._selector.get_map().values()):
                    self._say(key.data)

    def _hear(self, client: SlowClient) -> None:
        try:
            heard = client.connection.recv(4096)
        except OSError:
            heard = b""
        client.said += heard
        if not heard:
            self._is_over(client)

    def _say(self, client: SlowClient) -> None:
        try:
            client.connection.send(b"x")
        except OSError:
            self._is_over(client)

    def _is_over(self, client: SlowClient) -> None:
        client.borne_s = time.monotonic() - client.began
        self._selector.unregister(client.connection)
