"""Tolerances of photographs: how far they reach, what a chain buys, and an attempt to refute them.

    python benchmarks/tolerances.py FOLDER [--pictures 200] [--http 20] [--members 10] [--side 256]

The folder becomes an index without views; its pictures, made smaller, are the queries, and the
statement is that the first result stays in the answer (k = 3). Members drawn from every range, its
ends among them, are embedded and searched, for some pictures by a real server too: each whose
statement does not hold is a failure, and there must be none.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import numpy as np
from PIL import Image
from throughput import Server, picture_paths

from index_builder.search.certified import Answer, certified_search
from index_builder.search.gallery import GalleryIndex
from index_builder.search.statement import Statement, state
from model.cli.threads import limit_threads
from model.embedder import Embedder
from model.pixels.decode import DecodedImage
from model.pixels.tolerances.measure import FAMILIES, Measurement, Tolerance
from model.pixels.tolerances.pictures import PICTURE_FAMILIES
from model.pixels.tolerances.tables import TABLE_FAMILIES

K = 3
CHAIN = 32


class Library:
    """Questions without a service."""

    def __init__(self, data_dir: Path) -> None:
        self.embedder = Embedder.load()
        self.index = GalleryIndex.open(data_dir)

    def ask(self, pixels: np.ndarray) -> Answer:
        embedder = self.embedder
        (answer,) = certified_search(
            self.index,
            [embedder.embed_image(DecodedImage(np.ascontiguousarray(pixels), "PNG"))],
            lipschitz_bound=embedder.lipschitz_bound,
            output_scales=embedder.output_scales,
            k=K,
        )
        return answer

    def measure(
        self, pixels: np.ndarray, statement: Statement, radius: float, families: tuple, chain: int
    ) -> dict[str, Tolerance]:
        measurement = Measurement(
            pixels,
            radius,
            families,
            chain=chain,
            radius_of=lambda p, t: statement.radius_in(self.ask(p if t is None else t[p])),
            cpu_s=600.0,
        )
        while not measurement.go_on(1.0):
            pass
        return measurement.tolerances()


def members(
    pixels: np.ndarray, found: dict[str, Tolerance], count: int
) -> Iterator[tuple[str, np.ndarray]]:
    """So many of each range."""
    for name, range_ in found.items():
        if range_.low is None:
            continue
        if name in TABLE_FAMILIES:
            for a in np.linspace(range_.low, min(range_.high, 20.0), count).tolist():
                table = [*TABLE_FAMILIES[name].table(a)] * 3
                yield name, np.asarray(Image.fromarray(pixels).point(table))
        else:
            highest = PICTURE_FAMILIES[name].mildest(pixels.shape[1])
            for a in sorted({*np.linspace(range_.low, highest, count).astype(int).tolist()}):
                yield name, PICTURE_FAMILIES[name].edit(pixels, a)


def reach(found: Tolerance) -> float:
    """How far a family by tables goes down and up, as the change of the logarithm."""
    return float(np.log(max(found.high, 1e-3) / max(found.low, 1e-3)))


def over_http(
    client: httpx.Client, pixels: np.ndarray, found: dict[str, Tolerance], count: int
) -> tuple[int, int]:
    """Ask a server the same; gives the members that it was asked about, and the failures."""
    png = as_png(pixels)
    asked = client.post("/v1/tolerance", files={"image": png}, data={"k": str(K), "chain": CHAIN})
    answer = asked.raise_for_status().json()
    wanted, failures, checked = answer["statement"]["id"], 0, 0
    for name, tolerance in found.items():
        said = answer["families"][name]
        failures += (said["from"], said["to"]) != (tolerance.low, tolerance.high)
    for _, picture in members(pixels, found, count):
        results = client.post("/search", files={"image": as_png(picture)}, data={"k": str(K)})
        checked += 1
        failures += wanted not in [
            one["id"] for one in results.raise_for_status().json()["results"]
        ]
    return checked, failures


def as_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def quartiles(values: list[float]) -> str:
    return " / ".join(f"{q:.3g}" for q in statistics.quantiles(values, n=4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--http", type=int, default=20)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--side", type=int, default=256)
    given = parser.parse_args()
    limit_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = Path(scratch) / "data"
        build = ("build", given.folder, "--data-dir", data_dir, "--views", "none")
        subprocess.run([sys.executable, "-m", "index_builder", *map(str, build)], check=True)
        run(given, data_dir, Path(scratch) / "log")


def run(given: argparse.Namespace, data_dir: Path, log: Path) -> None:
    library = Library(data_dir)
    server = Server(data_dir, log)
    ends: defaultdict[str, list[float]] = defaultdict(list)
    checked = failures = http_checked = http_failures = unproved = 0
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=300) as client:
            for number, path in enumerate(picture_paths(given.folder)[: given.pictures]):
                with Image.open(path) as picture:
                    small = picture.convert("RGB")
                small.thumbnail((given.side, given.side))
                pixels = np.asarray(small)
                answer = library.ask(pixels)
                statement = state(answer, library.index, "result", None)
                radius = statement.radius_in(answer)
                if radius == 0.0:
                    unproved += 1
                    continue
                plain = library.measure(pixels, statement, radius, FAMILIES, 0)
                found = library.measure(pixels, statement, radius, FAMILIES, CHAIN)
                alone = library.measure(pixels, statement, radius, ("brightness",), CHAIN)
                book(ends, radius, plain, found, alone=alone, pixels=pixels)
                for picture_members in (
                    members(pixels, found, given.members),
                    members(pixels, alone, given.members),
                ):
                    for name, member in picture_members:
                        checked += 1
                        if not statement.is_true_of(library.ask(member)):
                            failures += 1
                            print(f"FAILURE {path} {name}")
                if number < given.http:
                    more, wrong = over_http(client, pixels, found, given.members)
                    http_checked, http_failures = http_checked + more, http_failures + wrong
                if number % 20 == 19:
                    print(
                        f"{number + 1} pictures, {checked} members, {failures} failures; "
                        f"HTTP {http_checked}, {http_failures}",
                        flush=True,
                    )
    finally:
        server.close()
    print(
        f"\nlibrary: {checked} members, {failures} failures; over HTTP: {http_checked} members, "
        f"{http_failures} failures; {unproved} pictures without a radius\nquartiles:"
    )
    for name, values in ends.items():
        print(f"{name:<34}{quartiles(values)}")


def book(
    ends: dict[str, list[float]],
    radius: float,
    plain: dict[str, Tolerance],
    found: dict[str, Tolerance],
    *,
    alone: dict[str, Tolerance],
    pixels: np.ndarray,
) -> None:
    """Note what one picture gave."""
    ends["radius"].append(radius)
    ends["noise, levels rms"].append(255.0 * radius / pixels.size**0.5)
    for name in TABLE_FAMILIES:
        for label, one in (("", plain), (f", chain {CHAIN} over all", found)):
            ends[f"{name} from{label}"].append(one[name].low)
            ends[f"{name} to{label}"].append(one[name].high)
        if reach(plain[name]) > 0.0:
            ends[f"{name} factor"].append(reach(found[name]) / reach(plain[name]))
    ends[f"brightness from, chain {CHAIN} alone"].append(alone["brightness"].low)
    ends[f"brightness to, chain {CHAIN} alone"].append(alone["brightness"].high)
    if reach(plain["brightness"]) > 0.0:
        ratio = reach(alone["brightness"]) / reach(plain["brightness"])
        ends[f"brightness factor, chain {CHAIN} alone"].append(ratio)
    for name in PICTURE_FAMILIES:
        for label, one in (("", plain), (f", chain {CHAIN} over all", found)):
            worst = 101 if name == "jpeg" else pixels.shape[1]
            low = one[name].low
            ends[f"{name} from{label}"].append(worst if low is None else low)
        if (low := plain[name].low) is not None:
            ends[f"{name} factor, members"].append((worst - found[name].low) / (worst - low))


if __name__ == "__main__":
    main()
