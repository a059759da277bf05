"""/v1/search/batch asked by one client, against the same images searched offline in batches.

    python benchmarks/batch.py [FOLDER] [--batches 1 8 32 64] [--seconds 8]

Without a folder: the bundled gallery twice, as thumbnails and as photographs of 800 pixels. Server
and offline run share one core, the client has another (BENCH_CORES=SERVER,CLIENT). Offline runs
stand between those of the server, as in `throughput.py`, which has the same for single requests.

`wall` is throughput over that of the offline run beside it; `cpu` is the offline run's CPU time an
image over that of the server and its decode processes, which others on the core disturb less.
"""

import argparse
import http.client
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from throughput import CLIENT_CORE, GALLERY, Offline, Server, build_gallery, enlarge, read_files

BOUNDARY = "b0undary"
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    os.sched_setaffinity(0, {CLIENT_CORE})
    with tempfile.TemporaryDirectory() as scratch:
        if given.folder is not None:
            measure("pictures", given.folder, Path(scratch), given)
            return
        measure("thumbnails", GALLERY, Path(scratch), given)
        large = enlarge(GALLERY, Path(scratch, "large"))
        measure("photographs", large, Path(scratch), given)


def measure(name: str, folder: Path, scratch: Path, given: argparse.Namespace) -> None:
    """One line for each size of batch."""
    files, data_dir = read_files(folder), scratch / f"{name}-data"
    build_gallery(folder, data_dir)
    offline = Offline(data_dir, folder)
    server = Server(data_dir, scratch / f"{name}.log")
    print(f"\n{name}: {len(files)} images; one client, one core for the server")
    print("batch  offline/s  server/s  wall    cpu")
    try:
        ask(server.port, files, 8, 2.0)
        for size in given.batches:
            before = rates(offline.pid, lambda: offline.rate(given.seconds / 2) * given.seconds / 2)
            run = rates(server.pid, lambda size=size: ask(server.port, files, size, given.seconds))
            after = rates(offline.pid, lambda: offline.rate(given.seconds / 2) * given.seconds / 2)
            aside = (before[0] + after[0]) / 2
            wall, cpu = run[0] / aside, (before[1] + after[1]) / 2 / run[1]
            print(f"{size:5}{aside:11.1f}{run[0]:10.1f}{wall:7.2f}{cpu:7.2f}", flush=True)
    finally:
        offline.close()
        server.close()


def rates(pid: int, work: Callable[[], float]) -> tuple[float, float]:
    """Images a second, and CPU seconds an image of a process and its children, of some work."""
    begun, cpu = time.perf_counter(), cpu_seconds(pid)
    images = work()
    return images / (time.perf_counter() - begun), (cpu_seconds(pid) - cpu) / images


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
    return own + sum(cpu_seconds(int(child)) for child in children)


def ask(port: int, files: list[bytes], size: int, seconds: float) -> int:
    """Send batch after batch over one connection; gives the number of images, all answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        body = body_of([files[number % len(files)] for number in range(done, done + size)])
        connection.request("POST", "/v1/search/batch", body, headers)
        answer = connection.getresponse().read()
        if answer.count(b'"status":200') != size:
            raise SystemExit(f"not every image was answered: {answer[:500]!r}")
        done += size
    connection.close()
    return done


def body_of(images: list[bytes]) -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    part = head % BOUNDARY.encode()
    return b"\r\n".join(part + image for image in images) + f"\r\n--{BOUNDARY}--\r\n".encode()


if __name__ == "__main__":
    main()
