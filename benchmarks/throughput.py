"""/search over HTTP against the same images decoded, embedded and searched offline in batches.

    python benchmarks/throughput.py [FOLDER] [--clients 1 8 32 128] [--seconds 8] [--overload 10]

Without a folder: the bundled gallery twice, as thumbnails of a few KiB, where a request costs more
than its image, and as photographs of 800 pixels.

The server and the offline run have the same one core, the client has another. Offline runs stand
before, between and after those of the server, and each ratio is over the mean of its neighbours,
since a shared machine is faster at one time than at another.

Then overload: so many times the best rate is offered, by a clock and not by the answers that come.
Goodput is what is answered 200 within five seconds. Every refusal must be a 429 or a 503 that says
when to come back.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from index_builder.search.certified import certified_search
from index_builder.search.gallery import GalleryIndex
from model.cli.threads import limit_threads
from model.embedder import Embedder
from model.pixels.decode import decode_image

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
PATIENCE_S = 5.0
BATCH = 32
SERVER_CORE, CLIENT_CORE = map(int, os.environ.get("BENCH_CORES", "0,1").split(","))
# Without the cache: the same few pictures are asked again and again, and work is what is measured.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LIPSIM_LOG_LEVEL": "info",
    "LIPSIM_CACHE_BYTES": "0",
}


@dataclass
class Tally:
    """Answers of one run: how many of each status, how long the good ones took."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    unanswered: int = 0

    @property
    def goodput(self) -> float:
        """Good answers in time, a second."""
        return sum(took <= PATIENCE_S for took in self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of good answers took at most."""
        ranked = sorted(self.latencies)
        return 1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


class Client:
    """Connections that are kept and used again; requests are bytes made beforehand."""

    def __init__(self, port: int, files: list[bytes]) -> None:
        self._port = port
        self._requests = [
            b"POST /search HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: %d\r\n\r\n" % len(data) + data
            for data in files
        ]
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, number: int, tally: Tally) -> None:
        """Send one request, and count what comes back."""
        begun = time.perf_counter()
        request = self._requests[number % len(self._requests)]
        try:
            try:
                status, headers = await self._exchange(request, is_new=False)
            except (ConnectionResetError, asyncio.IncompleteReadError):
                # A kept connection that the server has just closed as idle, as servers may.
                status, headers = await self._exchange(request, is_new=True)
        except (OSError, asyncio.IncompleteReadError):
            tally.unanswered += 1
            return
        tally.statuses[status] += 1
        if status == 200:
            tally.latencies.append(time.perf_counter() - begun)
        elif status in (429, 503) and b"retry-after" not in headers:
            tally.without_retry_after += 1

    async def _exchange(self, request: bytes, *, is_new: bool) -> tuple[int, dict[bytes, bytes]]:
        """Status and headers of the answer, over a kept connection if there is one."""
        if self._idle and not is_new:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        await reader.readexactly(int(headers.get(b"content-length", b"0")))
        if headers.get(b"connection") == b"close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(lines[0].split()[1]), headers

    async def closed_loop(self, clients: int, seconds: float) -> Tally:
        """So many clients, each asking again as soon as it has its answer."""
        tally, end = Tally(), time.perf_counter() + seconds

        async def run(first: int) -> None:
            number = first
            while time.perf_counter() < end:
                await self.ask(number, tally)
                number += clients

        begun = time.perf_counter()
        await asyncio.gather(*(run(first) for first in range(clients)))
        tally.seconds = time.perf_counter() - begun
        return tally

    async def open_loop(self, rate: float, seconds: float) -> Tally:
        """Requests by the clock, whatever comes back."""
        tally, begun, tasks = Tally(), time.perf_counter(), set[asyncio.Task[None]]()
        sent = 0
        while (now := time.perf_counter() - begun) < seconds:
            while sent < rate * now:
                task = asyncio.create_task(self.ask(sent, tally))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.002)
        tally.seconds = time.perf_counter() - begun
        print(f"   sent {sent} in {tally.seconds:.1f} s: {sent / tally.seconds:.0f} a second")
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        for task in tasks:
            task.cancel()
        return tally


class Offline:
    """The same work in one process of its own on the server's core, in batches."""

    def __init__(self, data_dir: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--offline", str(data_dir), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
        self.pid = self._process.pid
        self._read()

    def rate(self, seconds: float) -> float:
        """Images a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def serve_offline(data_dir: Path, folder: Path) -> None:
    """Answer each line (seconds) with a rate."""
    os.sched_setaffinity(0, {SERVER_CORE})
    limit_threads(1)
    files, embedder = read_files(folder), Embedder.load()
    with GalleryIndex.open(data_dir) as index:

        def batch(first: int) -> None:
            numbers = range(first, first + BATCH)
            images = [decode_image(files[number % len(files)]) for number in numbers]
            embeddings = embedder.embed_images(images)
            answers = certified_search(
                index,
                embeddings,
                lipschitz_bound=embedder.lipschitz_bound,
                output_scales=embedder.output_scales,
                k=10,
            )
            for answer in answers:
                index.entries(answer.candidates.numbers[answer.certificate.positions])

        batch(0)
        print("ready", flush=True)
        for line in sys.stdin:
            begun, done = time.perf_counter(), 0
            while time.perf_counter() - begun < float(line):
                batch(done)
                done += BATCH
            print(done / (time.perf_counter() - begun), flush=True)


class Server:
    """`python -m service` on the server's core, with one decode process and one thread."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [
                    *("taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "service"),
                    *("--port", "0", "--data-dir", str(data_dir)),
                ],
                stderr=stream,
                env=os.environ | ENVIRONMENT | {"LIPSIM_WORKERS": "1"},
                cwd=Path(__file__).parents[1],
            )
        self.pid = self._process.pid
        while "index_serving" not in (text := log.read_text()):
            if self._process.poll() is not None:
                raise SystemExit(f"the server ended:\n{text}")
            time.sleep(0.1)
        self.port = int(text.partition("Uvicorn running on http://127.0.0.1:")[2].split(" ")[0])

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def picture_paths(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.suffix in {".webp", ".jpg", ".png"}]


def read_files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in picture_paths(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--overload", type=float, default=10.0)
    given = parser.parse_args()
    os.sched_setaffinity(0, {CLIENT_CORE})
    with tempfile.TemporaryDirectory() as scratch:
        if given.folder is not None:
            measure(given.folder, Path(scratch), given)
            return
        print("\nthumbnails")
        measure(GALLERY, Path(scratch, "thumbnails"), given)
        print("\nphotographs")
        measure(enlarge(GALLERY, Path(scratch, "large")), Path(scratch, "photographs"), given)


def enlarge(folder: Path, out: Path, side: int = 800) -> Path:
    """Every third picture of a folder as a JPEG file of this longer side."""
    out.mkdir()
    for number, path in enumerate(picture_paths(folder)[::3]):
        with Image.open(path) as picture:
            scale = side / max(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            large = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            large.save(out / f"{number:04}.jpg", quality=88)
    return out


def measure(folder: Path, scratch: Path, given: argparse.Namespace) -> None:
    """Both tables for one folder of images."""
    scratch.mkdir(exist_ok=True)
    files, data_dir = read_files(folder), scratch / "data"
    build_gallery(folder, data_dir)
    offline = Offline(data_dir, folder)
    server = Server(data_dir, scratch / "log")
    try:
        peak = compare(offline, server.port, files, given)
        overload(server.port, files, given, peak)
    finally:
        offline.close()
        server.close()


def build_gallery(folder: Path, data_dir: Path) -> None:
    build = [sys.executable, "-m", "index_builder", "build", str(folder)]
    subprocess.run(
        [*build, "--data-dir", str(data_dir)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )


def compare(offline: Offline, port: int, files: list[bytes], given: argparse.Namespace) -> float:
    """One line for each number of clients; the best goodput."""
    mean = statistics.mean(map(len, files))
    print(f"{len(files)} images of {mean / 1024:.0f} KiB in the mean; one core for the server")
    asyncio.run(Client(port, files).closed_loop(4, 2.0))
    before, best = offline.rate(given.seconds / 2), 0.0
    print("clients  offline/s  server/s  ratio    p50     p95     p99 ms   statuses")
    for clients in given.clients:
        tally = asyncio.run(Client(port, files).closed_loop(clients, given.seconds))
        after = offline.rate(given.seconds / 2)
        aside, before = (before + after) / 2, after
        best = max(best, tally.goodput)
        spread = "".join(f"{tally.percentile(share):8.1f}" for share in (0.5, 0.95, 0.99))
        print(
            f"{clients:7}{aside:11.1f}{tally.goodput:10.1f}{tally.goodput / aside:7.2f}{spread}"
            f"      {dict(tally.statuses)}"
        )
    return best


def overload(port: int, files: list[bytes], given: argparse.Namespace, peak: float) -> None:
    """Goodput at so many times the best rate."""
    print(f"overload: {given.overload:g} times {peak:.0f} a second are offered")
    tally = asyncio.run(Client(port, files).open_loop(given.overload * peak, given.seconds))
    print(
        f"   goodput {tally.goodput:.1f} a second, {tally.goodput / peak:.2f} of the peak;"
        f" p50 {tally.percentile(0.5):.0f} ms, p99 {tally.percentile(0.99):.0f} ms"
    )
    print(
        f"   statuses {dict(tally.statuses)}; refusals without Retry-After"
        f" {tally.without_retry_after}; no answer {tally.unanswered}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--offline"]:
        serve_offline(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
