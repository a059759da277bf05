"""What `trim` finds and costs, with and without it side by side: `python benchmarks/trim.py`.

Copies of the bundled photographs, in borders as people put them there, against the bundled gallery
over HTTP; the median time of a search, one at a time, asked in turns; and the CPU time of looking
for the box beside that of decoding.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["LIPSIM_CACHE_BYTES"] = "0"

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from PIL import Image, ImageOps
from pixels import LIMITS, best_ms, encoded, photo
from throughput import Server

from model.pixels.decode import decode_image
from model.pixels.trim import find_trim

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
DARK, WHITE = (32, 33, 36), (255, 255, 255)


def bordered(image: Image.Image, across: float, down: float, colour: tuple) -> Image.Image:
    """A picture between borders, in shares of its sides."""
    sides = round(across * image.width), round(down * image.height)
    return ImageOps.expand(image, sides, colour)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "letterbox": lambda image: bordered(image, 0, 0.3, (0, 0, 0)),
    "pillars": lambda image: bordered(image, 0.35, 0, (0, 0, 0)),
    "viewer": lambda image: bordered(image, 0.4, 0.15, DARK),
    "white frame": lambda image: bordered(image, 0.12, 0.12, WHITE),
}


def as_jpeg(image: Image.Image) -> bytes:
    """A file as people send it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def search(client: httpx.Client, data: bytes, *, trim: bool) -> tuple[dict, float]:
    """The answer and its milliseconds."""
    begun = time.perf_counter()
    answer = client.post("/search", files={"image": data}, data={"trim": str(trim).lower()})
    return answer.raise_for_status().json(), (time.perf_counter() - begun) * 1e3


def compare(client: httpx.Client, rounds: int) -> None:
    """Print one line a kind of border."""
    paths = sorted((GALLERY / "photos").iterdir())
    search(client, paths[0].read_bytes(), trim=True)
    print("copies        found  in either  trimmed  trim radius  ms without   with  ratio")
    for kind, copy in COPIES.items():
        found, either, bites = 0, 0, 0
        radii: list[float] = []
        without: list[float] = []
        with_trim: list[float] = []
        for path in paths:
            with Image.open(path) as image:
                large = ImageOps.contain(image.convert("RGB"), (800, 800))
            data, wanted = as_jpeg(copy(large)), f"photos/{path.stem}"
            for _ in range(rounds):
                answer, took = search(client, data, trim=True)
                with_trim.append(took)
                without.append(search(client, data, trim=False)[1])
            trimmed = answer["trimmed"]
            first = [answer["results"][0]["id"]]
            if trimmed["results"] is not None:
                bites += 1
                first.append(trimmed["results"][0]["id"])
            found += first[0] == wanted
            either += wanted in first
            radii.append(trimmed["trim_radius"])
        plain, both = statistics.median(without), statistics.median(with_trim)
        print(
            f"{kind:<12}{found:>4}/{len(paths)}{either:>8}/{len(paths)}{bites:>7}/{len(paths)}"
            f"{statistics.median(radii):>13.2f}{plain:>12.1f}{both:>7.1f}{both / plain:>7.2f}"
        )


def time_boxes() -> None:
    """Print one line a kind of picture of twelve megapixels."""
    print("12 megapixels (CPU ms)  decode    box")
    pixels = photo(3024, 4032)
    kinds = {"photograph": pixels, "letterbox": pixels.copy(), "pillars": pixels.copy()}
    kinds["letterbox"][:700] = kinds["letterbox"][-700:] = 0
    kinds["pillars"][:, :1300] = kinds["pillars"][:, -1300:] = 0
    kinds["all border"] = np.full_like(pixels, 7)
    for kind, picture in kinds.items():
        data = encoded(picture, "JPEG")
        decode, box = best_ms(
            5,
            lambda d=data: decode_image(d, LIMITS),
            lambda p=picture: find_trim(p),
        )
        print(f"{kind:<22}{decode:>8.1f}{box:>7.1f}")


def main() -> None:
    """Build the gallery's index, serve it, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    time_boxes()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = Path(scratch) / "data"
        build = ("build", GALLERY / "index.jsonl", "--data-dir", data_dir)
        subprocess.run([sys.executable, "-m", "index_builder", *build], check=True)
        server = Server(data_dir, Path(scratch) / "log")
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
                compare(client, rounds)
        finally:
            server.close()


if __name__ == "__main__":
    main()
