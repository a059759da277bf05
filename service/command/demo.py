"""The demo: index and calibrate the bundled gallery, serve it, ask about edited copies.

    make demo        or        lipsim demo [--port P] [--data-dir DIR]

Runs until Ctrl-C. A second run embeds and measures nothing again. The index lies in `.demo`, apart
from any of your own.
"""

# ruff: noqa: S310, S603 - fixed commands of our own, and one address that was typed here.

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from index_builder.store import layout
from index_builder.store.manifest import read_manifest
from index_builder.store.operating_points import OperatingPoint, share
from service.command.show import proved

# In a wheel the pictures are data of this package; in a clone they lie at its top.
_PLACES = (Path(__file__).parent / "examples", Path(__file__).parents[2] / "examples")
EXAMPLES = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
GALLERY = EXAMPLES / "gallery" / "index.jsonl"
START_TIMEOUT_S = 120

console = Console(highlight=False, soft_wrap=True)


def main(
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Where the index is kept.")] = Path(".demo"),
) -> None:
    """Index and calibrate the bundled gallery, serve it, ask about edited copies."""
    if not GALLERY.is_file():
        console.print("This installation came without the demo's pictures.")
        raise typer.Exit(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server must not outlive us
    check_port(host, port)
    build(data_dir)
    with serving(host, port, data_dir) as server:
        url = f"http://{host}:{port}"
        wait_until(server, lambda: is_ready(url))
        console.print(f"\nOpen [bold]{url}[/bold] in a browser: the page answers.")
        point = calibrate(data_dir)
        # The service looks for a new version now and then; before, it knows of no operating point.
        version = served_version(data_dir)
        wait_until(server, lambda: is_serving(url, version))
        show_answers(url, point)
        query = example_queries()[0]
        shown = query.relative_to(Path.cwd()) if query.is_relative_to(Path.cwd()) else query
        console.print(f"\nThe page: {url} (documentation: {url}/docs). Or, in another terminal:\n")
        console.print(f"    curl -s -F image=@{shown} -F k=3 {url}/search\n", style="bold")
        console.print("Ctrl-C stops the server.")
        raise typer.Exit(server.wait())


def check_port(host: str, port: int) -> None:
    """Say now, not after the build, that another server is there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            console.print(f"Cannot serve on {host}:{port}: {error}. Try: --port {port + 1}")
            raise typer.Exit(1) from error


def build(data_dir: Path) -> None:
    """Index the gallery; unchanged pictures are not embedded again."""
    status = run_builder("build", data_dir).returncode
    if status != 0:
        raise typer.Exit(status)


def run_builder(command: str, data_dir: Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """A command of the builder on the gallery."""
    words = [sys.executable, "-m", "index_builder", command, GALLERY, "--data-dir", data_dir]
    return subprocess.run(words, text=True, check=False, **options)


def calibrate(data_dir: Path) -> OperatingPoint | None:
    """The strictest operating point that the gallery supports, measured if it has none yet.

    As anybody would measure it: with the command's own seed and number of queries.
    """
    point = strictest_point(data_dir)
    if point is None:
        console.print(
            "\nMeasuring on edited copies which results are copies (once, half a minute);\n"
            "loaded again after that, the page says match or no match:"
        )
        # Its lines are for who calibrates; progress and errors still come through.
        if run_builder("calibrate", data_dir, stdout=subprocess.DEVNULL).returncode != 0:
            console.print("So this demo gives no verdicts; everything else is there.")
            return None
        point = strictest_point(data_dir)
    if point is not None:
        console.print(f"Verdicts by {in_rates(point)}")
    return point


def strictest_point(data_dir: Path) -> OperatingPoint | None:
    """Of the version that is served; none where it was measured on another gallery."""
    paths = layout.index_paths(data_dir, "default")
    manifest = read_manifest(paths.version(served_version(data_dir)))
    if manifest.calibration is None or manifest.calibration.stale:
        return None
    return manifest.calibration.operating_points[0]


def served_version(data_dir: Path) -> str:
    return layout.read_current(layout.index_paths(data_dir, "default")).version


def in_rates(point: OperatingPoint) -> str:
    """What a verdict is worth, as it was measured."""
    total = point.total
    return (
        f"`{point.name}`: {share(total.recall)} of edited copies were called a match, and "
        f"{share(total.false_positive_rate)} of pictures that are no copy "
        f"(at most {share(point.false_positive_upper)} with 95 % confidence)."
    )


@contextlib.contextmanager
def serving(host: str, port: int, data_dir: Path) -> Generator[subprocess.Popen[bytes]]:
    """A server of our own process group, so that one Ctrl-C ends both."""
    # The demo prints its own lines; warnings and errors of the server still come through.
    environment = {
        "LIPSIM_LOG_LEVEL": "warning",
        "LIPSIM_CHALLENGE": "true",
        "LIPSIM_EXAMPLES_DIR": str(EXAMPLES / "queries"),
        **os.environ,
        "LIPSIM_DATA_DIR": str(data_dir),
        # The demo waits for the version with verdicts.
        "LIPSIM_INDEX_POLL_INTERVAL_S": "1",
    }
    command = [sys.executable, "-m", "service", "--host", host, "--port", str(port)]
    with subprocess.Popen(command, env=environment) as server:
        try:
            yield server
        except KeyboardInterrupt:
            console.print("Stopped.")
        finally:
            server.terminate()


def wait_until(server: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    """Return once the service says so; end the demo where it does not come to that."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            console.print("The server ended before it was ready; its own line above says why.")
            raise typer.Exit(1)
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if is_so():
                return
        time.sleep(0.2)
    console.print(f"The server was not ready after {START_TIMEOUT_S} s.")
    raise typer.Exit(1)


def is_ready(url: str) -> bool:
    """Whether model and index are there; the service refuses where they are not."""
    with urllib.request.urlopen(f"{url}/readyz"):
        return True


def is_serving(url: str, version: str) -> bool:
    with urllib.request.urlopen(f"{url}/v1/indexes/default") as answer:
        return json.load(answer)["version"] == version


def example_queries() -> list[Path]:
    """The edited copies of gallery pictures that ship with the examples."""
    return sorted(
        p for p in (EXAMPLES / "queries").iterdir() if p.suffix in {".jpg", ".png", ".webp"}
    )


def show_answers(url: str, point: OperatingPoint | None) -> None:
    """Ask about each edited copy, and say the radius in words."""
    console.print("\nEdited copies of gallery pictures, and what the service finds (top 3):\n")
    for query in example_queries():
        first = search(url, query.read_bytes(), point)[0]
        verdict = {True: "match, ", False: "no match, ", None: ""}[first["match"]]
        console.print(f"{query.name:>24} -> {first['id']:<18} {verdict}{in_words(first)}")


def search(url: str, image: bytes, point: OperatingPoint | None) -> list[dict[str, Any]]:
    """The results of one search; an image may be sent as the body itself."""
    headers = {"Content-Type": "application/octet-stream"}
    judged = "" if point is None else f"&operating_point={point.name}"
    request = urllib.request.Request(f"{url}/search?k=3{judged}", image, headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["results"]


def in_words(result: dict[str, Any]) -> str:
    """A radius as a person grasps it."""
    radius, levels = result["certified_radius"], result["certified_rms_8bit"]
    if radius is None:
        return "nothing can push it out"
    return f"stays under any noise below {proved(levels)} of 255 levels rms (l2 {proved(radius)})"
