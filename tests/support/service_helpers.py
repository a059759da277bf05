"""Helpers of all tests that ask a service: pictures, an index, servers."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from forked import Forked, run_module
from PIL import Image
from typer.testing import CliRunner, Result

from index_builder.cli.commands import app as builder
from service.app import create_app
from service.http.server import BoundedServer, make_server
from service.observability.tracing import Tracing
from service.settings import Settings

READY_S = 60.0
ABSENT = 680
"""Pictures among the labelled pairs that are not in the gallery."""


def draw_picture(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A smooth random picture: a few blots of colour, like nothing else of another seed."""
    blots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)


def encode(picture: Image.Image, kind: str = "PNG") -> bytes:
    """An image file in memory."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, compress_level=1)  # Of PNG: five milliseconds less.
    return buffer.getvalue()


def wait_for(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return as soon as it is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def children() -> set[int]:
    """Of this process: decode processes of its servers, and whatever else it has begun."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(child) for found in lists for child in found.read_text().split()}


def try_builder(*arguments: object, environment: Mapping[str, str] | None = None) -> Result:
    """Run a command of the builder, without an interpreter of its own, to whatever end."""
    return CliRunner().invoke(builder, [*map(str, arguments)], env=environment)


def run_builder(*arguments: object, environment: Mapping[str, str] | None = None) -> None:
    """Run a command of the builder, which must succeed.

    A build has one vector a picture if it is not told otherwise: fourteen take fourteen passes.
    """
    if arguments[0] == "build" and "--views" not in arguments:
        arguments += ("--views", "none")
    done = try_builder(*arguments, environment=environment)
    assert done.exit_code == 0, done.output


def plain_client(url: str) -> httpx.Client:
    """For HTTP alone: to read the certificates of HTTPS takes longer than twenty requests."""
    return httpx.Client(base_url=url, timeout=READY_S, verify=False)


@contextmanager
def running_server(
    settings: Settings, *, tracing: Tracing | None = None
) -> Iterator[tuple[BoundedServer, httpx.Client]]:
    """The application behind a real server in a thread, started and no longer loading."""
    app = create_app(settings, tracing=tracing)
    server = make_server(app, settings.model_copy(update={"port": 0}))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + READY_S
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        with plain_client(f"http://{host}:{port}") as client:
            while client.get("/readyz").json()["reason"] in ("loading_model", "loading_indexes"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield server, client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def open_client(settings: Settings, *, tracing: Tracing | None = None) -> Iterator[httpx.Client]:
    """A client of `running_server`."""
    with running_server(settings, tracing=tracing) as (_, client):
        yield client


@dataclass
class Server:
    """A real server in a process of its own."""

    process: subprocess.Popen[bytes] | Forked
    url: str
    log: Path

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        with plain_client(self.url) as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise AssertionError(f"the server ended: {self.log.read_text()}")
                with suppress(httpx.TransportError):
                    if client.get("/readyz").status_code == 200:
                        return
                time.sleep(0.05)
        raise AssertionError(f"not ready in {READY_S} s: {self.log.read_text()}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


def open_files(server: Server) -> list[str]:
    """What each file descriptor of the service leads to."""
    folder = Path(f"/proc/{server.process.pid}/fd")
    found = []
    for entry in folder.iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return found


def open_sockets(server: Server) -> int:
    """Connections that the service holds, and a few sockets of its own."""
    return sum(name.startswith("socket:") for name in open_files(server))


StartServer = Callable[..., Server]
"""The fixture `start_server`: data directory and settings in, a running server out."""


@contextmanager
def starting_servers(logs: Path, *, forked: bool = True) -> Iterator[StartServer]:
    """Starts `python -m service` on free ports; every server is stopped at the end."""
    servers: list[Server] = []

    def start(
        data_dir: Path,
        *,
        open_files: int | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Server:
        log = logs / f"server-{len(servers)}.log"
        server = start_process(
            data_dir,
            log,
            settings,
            open_files=open_files,
            environment=environment,
            forked=forked,
        )
        servers.append(server)
        return server

    try:
        yield start
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


def start_process(
    data_dir: Path,
    log: Path,
    settings: Mapping[str, object],
    *,
    open_files: int | None = None,
    environment: Mapping[str, str] | None = None,
    forked: bool = True,
) -> Server:
    """`python -m service` on a free port, in a process of its own, with a limit on open files."""
    arguments = ("service", "--port", "0", "--data-dir", str(data_dir))
    given = {f"LIPSIM_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **given, **(environment or {})}
    if forked:
        log.touch()
        process = Forked(
            run_module, *arguments, output=log, environment=environment, open_files=open_files
        )
        return Server(process, _url_of(process, log), log)
    limit = [] if open_files is None else ["prlimit", f"--nofile={open_files}:{open_files}"]
    command = [*limit, sys.executable, "-m", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    return Server(process, _url_of(process, log), log)


def _url_of(process: "subprocess.Popen[bytes] | Forked", log: Path) -> str:
    """The address that the server says it took."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            _, found, rest = line.partition("Uvicorn running on ")
            if found:
                return rest.split(" ", 1)[0]
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_text()}")
