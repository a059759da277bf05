"""Attack certified results in pixels: below the radius nothing may fall, at 3 x much should.

    python benchmarks/attack.py [--queries 200] [--steps 50] [--workers 2] [--gallery SOURCE]
        [--views SET] [--borders] [--checkpoint FILE]

Queries are edited copies of gallery pictures (recompressed, resized, cropped, noisy, ...). For each
query three results are attacked: the first, the last of k, and the one with the smallest radius.

(i) In the library, real-valued float64 pixels, gradient steps through resize and network at 0.999
    of the radius: evictions must be 0.
(ii) Over HTTP, against a real server: the perturbation rounded to 8-bit levels inside [0, 1], its
    norm recomputed and below the radius, sent as PNG: evictions must be 0.
(iii) As (i) at 3 times the radius: at least a fifth must be evicted, or the attack is too weak to
    mean anything. A second attack then looks for the shortest eviction: the attack radius.

With --borders each query stands in a frame as a viewer's window draws it, and what is attacked is
the answer `trimmed`: radii are limited by `trim_radius` too, and (iii) leaves out those that it
limits.

Every verdict is one of the program itself: a float64 pass and a full scan.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import contextlib
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.evictions import eviction_objective, round_to_levels
from index_builder.search.gallery import GalleryIndex
from model.attack.descent import Ball, Objective, Search, descend, shorten
from model.attack.ledger import smallest_scales
from model.certificate.search import SearchCertificate, certify_search
from model.embedder import Embedder
from model.pixels.decode import decode_image
from model.pixels.resize import Resize, resize_operator
from model.pixels.trim import find_trim
from model.pixels.views import VIEW_SETS

GALLERY = Path(__file__).parents[1] / "examples" / "gallery" / "index.jsonl"
EDITS = ("jpeg", "resize", "crop", "noise", "dim", "blur")
BELOW, ABOVE = 0.999, 3.0


@dataclass
class Tally:
    """What happened to the results of some queries."""

    attacked: int = 0
    evicted_below: int = 0
    above: int = 0
    evicted_above: int = 0
    sent: int = 0
    not_empty: int = 0
    evicted_over_http: int = 0
    levels: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Setting:
    """What a worker needs to attack queries."""

    data_dir: Path
    url: str
    k: int
    steps: int
    borders: bool
    checkpoint: Path | None


def edited(picture: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """An edited copy, as people make them."""
    width, height = picture.size
    if kind == "jpeg":
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(15, 60)))
        return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    if kind == "resize":
        scale = rng.uniform(0.4, 1.6)
        return picture.resize((int(width * scale), int(height * scale)))
    if kind == "crop":
        left, top = rng.integers(1, 1 + width // 16), rng.integers(1, 1 + height // 16)
        return picture.crop((left, top, width - left, height - top))
    if kind == "noise":
        noisy = np.asarray(picture) + rng.normal(0.0, rng.uniform(4.0, 20.0), (height, width, 3))
        return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    if kind == "dim":
        return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.6, 0.9))
    return picture.resize((max(8, width // 4), max(8, height // 4))).resize((width, height))


def framed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture in one colour, as a viewer shows it."""
    sides = [int(side * rng.uniform(0.1, 0.4)) for side in picture.size]
    return ImageOps.expand(picture, tuple(sides), tuple(rng.integers(0, 256, 3).tolist()))


def png(pixels: np.ndarray) -> bytes:
    """The pixels as a PNG file, which keeps them."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def certify(
    embedder: Embedder, index: GalleryIndex, resize: Resize, x: np.ndarray, k: int
) -> SearchCertificate:
    """The program's answer to one image of real-valued pixels, by a full scan."""
    return certify_search(
        embedder.embed_pixels(resize.apply_real(x)[None])[0],
        index.everything(),
        k=k,
        lipschitz_bound=embedder.lipschitz_bound,
        output_scales=embedder.output_scales,
        gain=resize.gain,
        forward_error=embedder.forward_error + embedder.lipschitz_bound * resize.input_error,
    )


def attack_query(setting: Setting, embedder: Embedder, index: GalleryIndex, data: bytes) -> Tally:
    """Attack three results of one query in all three ways."""
    tally, k = Tally(), setting.k
    picture = decode_image(data).pixels
    trim = find_trim(picture) if setting.borders else None
    pixels = picture if trim is None else trim.box.of(picture)
    x = pixels / 255.0
    resize = resize_operator(*pixels.shape[:2], embedder.input_size)
    answer = certify(embedder, index, resize, x, k)
    largest = np.inf if trim is None else trim.radius
    radii = np.minimum(answer.certified_radii, largest)
    ranks = sorted({0, len(radii) - 1, int(np.argmin(radii))})
    ranks = [rank for rank in ranks if 0.0 < radii[rank] < np.inf]
    if not ranks:
        return tally
    found = index.rows.entries[answer.positions]
    entries = [int(found[rank]) for rank in ranks]
    objective = eviction_objective(
        embedder.network,
        resize,
        x,
        gallery=index.vectors.astype(np.float64),
        starts=index.rows.starts,
        entries=entries,
        k=k,
        scales=embedder.output_scales,
    )
    below, above, shortest = attacks(objective, x, radii[ranks], setting.steps)
    for i, (rank, number) in enumerate(zip(ranks, entries, strict=True)):

        def is_evicted(delta: np.ndarray, number: int = number) -> bool:
            moved = certify(embedder, index, resize, x + delta, k)
            return number not in index.rows.entries[moved.positions]

        def smallest_norm(delta: np.ndarray) -> float:
            (scale,) = smallest_scales(lambda s: np.array([is_evicted(s[0] * delta)]), 1)
            return scale * float(np.linalg.norm(delta))

        tally.attacked += 1
        tally.evicted_below += is_evicted(below[i])
        if radii[rank] < largest:
            tally.above += 1
            tally.evicted_above += is_evicted(above[i])
        norms = [smallest_norm(one) for one in (above[i], shortest[i]) if is_evicted(one)]
        if norms:
            tally.ratios.append(min(norms) / float(answer.certified_radii[rank]))
        entry = index.entries([number])[0]
        aim = shortest[i] if norms else above[i]
        if trim is not None:
            whole = np.zeros(picture.shape)
            trim.box.of(whole)[:] = aim
            aim = whole
        attack_over_http(setting, tally, picture, aim, entry.id)
    return tally


def attacks(objective: Objective, x: np.ndarray, radii: np.ndarray, steps: int) -> list[np.ndarray]:
    """Perturbations (T, H, W, 3) just below the radii, far above them, and the shortest.

    The pixels are real numbers and may leave [0, 1]: the certificate knows no box.
    """
    pictures = torch.from_numpy(x.transpose(2, 0, 1)).expand(len(radii), -1, -1, -1)
    below, above, first = (
        Ball("l2", torch.from_numpy(factor * radii).reshape(-1, 1, 1, 1), pictures, has_box=False)
        for factor in (BELOW, ABOVE, 2.0)
    )
    start = below.zeros()
    found = [
        *(descend(Search(objective, start), start, ball, steps=steps) for ball in (below, above)),
        shorten(objective, start, first, steps=steps),
    ]
    return [one.permute(0, 2, 3, 1).numpy() for one in found]


def attack_over_http(
    setting: Setting, tally: Tally, pixels: np.ndarray, delta: np.ndarray, wanted: str
) -> None:
    """Send the strongest 8-bit perturbation that fits below the radius the server itself gives."""
    published = {r["id"]: r["certified_radius"] for r in search(setting, pixels)}
    moved = round_to_levels(pixels, delta, published[wanted])
    norm = float(np.linalg.norm((moved.astype(float) - pixels) / 255.0))
    assert norm < published[wanted]
    tally.sent += 1
    tally.not_empty += norm > 0.0
    tally.levels.append(norm / published[wanted])
    tally.evicted_over_http += wanted not in {r["id"] for r in search(setting, moved)}


def search(setting: Setting, pixels: np.ndarray) -> list[dict]:
    """The server's results for these pixels."""
    answer = httpx.post(
        f"{setting.url}/v1/search",
        files={"image": ("query.png", png(pixels), "image/png")},
        data={
            "k": str(setting.k),
            "require_exact": "true",
            "trim": "true" if setting.borders else "false",
        },
        timeout=60,
    )
    answer.raise_for_status()
    answered = answer.json()
    return answered["trimmed"]["results"] if setting.borders else answered["results"]


_worker: dict[str, object] = {}


def start_worker(setting: Setting) -> None:
    """Open model and index once a worker process."""
    torch.set_num_threads(1)
    _worker.update(
        setting=setting,
        embedder=Embedder.load(setting.checkpoint),
        index=GalleryIndex.open(setting.data_dir),
    )


def work(data: bytes) -> Tally:
    """Attack one query in a worker."""
    return attack_query(_worker["setting"], _worker["embedder"], _worker["index"], data)


@contextlib.contextmanager
def serving(data_dir: Path, checkpoint: Path | None) -> Iterator[str]:
    """A real server over the data directory; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "LIPSIM_DATA_DIR": str(data_dir)}
    if checkpoint is not None:
        environment["LIPSIM_CHECKPOINT"] = str(checkpoint)
    command = [sys.executable, "-m", "service", "--host", "127.0.0.1", "--port", str(port)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(server, url)
            yield url
        finally:
            server.terminate()


def wait_until_ready(server: subprocess.Popen, url: str) -> None:
    """Return when /readyz says so; give up after two minutes or when the server ends."""
    for _ in range(240):
        if server.poll() is not None:
            raise SystemExit(f"the server ended with status {server.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit("the server did not get ready within two minutes")


def queries_from(index: GalleryIndex, source: Path, count: int, *, borders: bool) -> list[bytes]:
    """Edited copies of gallery pictures, the same ones in each run."""
    rng = np.random.default_rng(20261122)
    numbers = rng.permutation(index.size)[:count]
    queries = []
    for i, picture in enumerate(pictures_of(index, source, numbers)):
        copy = edited(picture, EDITS[i % len(EDITS)], rng)
        queries.append(png(np.asarray(framed(copy, rng) if borders else copy)))
    return queries


def pictures_of(index: GalleryIndex, source: Path, numbers: np.ndarray) -> Iterator[Image.Image]:
    """The pictures of these entries, decoded by our own policy."""
    paths: dict[str, str] = {}
    if source.is_file():
        lines = [json.loads(line) for line in source.read_text().splitlines() if line.strip()]
        paths = {line["id"]: line["path"] for line in lines}
    folder = source.parent if source.is_file() else source
    for entry in index.entries(numbers):
        data = (folder / paths.get(entry.id, entry.id)).read_bytes()
        yield Image.fromarray(decode_image(data).pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--gallery", type=Path, default=GALLERY)
    parser.add_argument("--views", default="none", choices=VIEW_SETS)
    parser.add_argument("--borders", action="store_true")
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        build = [sys.executable, "-m", "index_builder", "build", options.gallery]
        build += ["--data-dir", folder, "--views", options.views]
        if options.checkpoint is not None:
            build += ["--checkpoint", options.checkpoint]
        subprocess.run(build, check=True)
        with GalleryIndex.open(data_dir) as index:
            queries = queries_from(index, options.gallery, options.queries, borders=options.borders)
            size = f"{index.size} entries, {index.vector_count} vectors"
            print(f"{len(queries)} queries, gallery of {size}, k = {options.k}")
        with serving(data_dir, options.checkpoint) as url:
            setting = Setting(
                data_dir, url, options.k, options.steps, options.borders, options.checkpoint
            )
            total = attack_all(setting, queries, options.workers)
    report(total)


def attack_all(setting: Setting, queries: list[bytes], workers: int) -> Tally:
    """Attack every query, a line now and then."""
    total, start = Tally(), time.monotonic()
    with ProcessPoolExecutor(workers, initializer=start_worker, initargs=(setting,)) as pool:
        for done, tally in enumerate(pool.map(work, queries), start=1):
            total.add(tally)
            if done % 20 == 0 or done == len(queries):
                elapsed = time.monotonic() - start
                print(f"  {done}/{len(queries)} queries, {elapsed:.0f} s", flush=True)
    return total


def report(total: Tally) -> None:
    """Print the three lines, and fail if a certificate did."""
    print(f"(i)   library, {BELOW} x radius: {total.evicted_below} of {total.attacked} evicted")
    print(
        f"(ii)  HTTP, 8-bit PNG below the radius: {total.evicted_over_http} of {total.sent} "
        f"evicted; {total.not_empty} perturbations were not empty, median norm "
        f"{np.median(total.levels):.3f} of the radius"
    )
    share = total.evicted_above / max(1, total.above)
    print(
        f"(iii) library, {ABOVE:g} x radius: {total.evicted_above} of {total.above} evicted "
        f"({share:.1%}); median attack radius / certified radius {np.median(total.ratios):.3f}, "
        f"smallest {min(total.ratios):.4f}"
    )
    if total.evicted_below or total.evicted_over_http:
        raise SystemExit("a certificate was broken")
    if share < 0.2:
        raise SystemExit("the attack is too weak: below 20 % evicted at 3 x the radius")


if __name__ == "__main__":
    main()
