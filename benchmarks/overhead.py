"""CPU time that one search costs the service outside of decoding, network and certified search.

    python benchmarks/overhead.py [--requests 300] [--rounds 7] [--calls]

With `--calls`, how many functions of Python and of C that takes instead: CPU time of one search
moves by a tenth from run to run, the count does not.

The server runs in this process, its client in another. Decoding has processes of its own; what the
network and the certified search take, by the clock of their thread, is subtracted. What is left is
ours: HTTP, admission, queues, pipes, JSON.
"""

import argparse
import contextlib
import gc
import http.client
import io
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.embedder import Embedder
from service.app import create_app
from service.http.server import make_server
from service.observability.logs import configure_logs
from service.settings import Settings
from service.work import engine

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"


class Apart:
    """Seconds of CPU that go into functions which are not the service's own, and calls outside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = {"call": 0, "c_call": 0}
        self._thread = threading.local()

    def count(self, _frame: object, event: str, _argument: object) -> None:
        """Of `threading.setprofile`."""
        if event in self.calls and not getattr(self._thread, "is_apart", False):
            self.calls[event] += 1

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            begun, self._thread.is_apart = time.thread_time(), True
            try:
                return function(*arguments, **named)
            finally:
                self._thread.is_apart = False
                self.seconds += time.thread_time() - begun

        return call

    def timed_steps(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The same for one that gives its answers bit by bit."""

        def call(*arguments: Any, **named: Any) -> Iterator[Any]:
            following = self.timed(function(*arguments, **named).__next__)
            with contextlib.suppress(StopIteration):
                while True:
                    yield following()

        return call


# One search after the other over one connection.
CLIENT = """
import http.client, sys
port, requests = map(int, sys.argv[1:])
body = sys.stdin.buffer.read()
connection = http.client.HTTPConnection("127.0.0.1", port)
for _ in range(requests):
    connection.request("POST", "/v1/search", body, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
"""


def thumbnail() -> bytes:
    buffer = io.BytesIO()
    Image.open(sorted(GALLERY.rglob("*.[jp][pn]g"))[0]).resize((64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def wait_ready(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while True:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            return
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", action="store_true")
    given = parser.parse_args()
    configure_logs("info", "json")
    apart = Apart()
    if given.calls:
        threading.setprofile(apart.count)
    engine.answer_queries = apart.timed_steps(engine.answer_queries)
    Embedder.embed_inputs = apart.timed(Embedder.embed_inputs)
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "index_builder", "build", str(GALLERY), "--data-dir", folder]
        subprocess.run(build, check=True, capture_output=True)
        settings = Settings(data_dir=Path(folder), port=0, workers=1, cache_bytes=0)
        app = create_app(settings)
        server = make_server(app, settings)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        wait_ready(port)
        spent: list[float] = []
        body = thumbnail()
        client = [sys.executable, "-c", CLIENT, str(port), str(given.requests)]
        gc.freeze()  # As `python -m service` does.
        for turn in range(given.rounds + 1):
            if turn <= 1:
                apart.calls = dict.fromkeys(apart.calls, 0)
            before, before_apart = time.process_time(), apart.seconds
            subprocess.run(client, input=body, check=True)
            ours = time.process_time() - before - (apart.seconds - before_apart)
            spent.append(1000 * ours / given.requests)
        server.should_exit = True
        thread.join()
    if given.calls:
        python, c = (count / given.requests / given.rounds for count in apart.calls.values())
        print(f"calls a search: {python:.0f} of Python, {c:.0f} of C")
        return
    spent = spent[1:]
    print(f"ms of CPU a search: median {statistics.median(spent):.3f}, least {min(spent):.3f}")


if __name__ == "__main__":
    main()
