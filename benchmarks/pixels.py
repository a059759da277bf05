"""Decode and resize, the resize against a dense one in float64: `python benchmarks/pixels.py`.

Process CPU time on one thread, the two resizes interleaved, minimum of several rounds. "dense" is
the plain way to run the same operator: a full float64 image, two dense products.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from model.pixels.decode import DecodeLimits, decode_image
from model.pixels.resize import Resize, resize_operator

LIMITS = DecodeLimits(max_image_bytes=64 * 1024 * 1024)
SIZES = ((480, 640), (1080, 1920), (3024, 4032))


def best_ms(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Least CPU milliseconds of each task, the tasks taking turns."""
    best = [float("inf")] * len(tasks)
    for _ in range(rounds):
        for index, task in enumerate(tasks):
            start = time.process_time()
            task()
            best[index] = min(best[index], (time.process_time() - start) * 1e3)
    return best


def photo(height: int, width: int) -> np.ndarray:
    """Something a JPEG encoder finds about as hard as a photograph."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, file_format: str) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def pillow_decode(data: bytes) -> np.ndarray:
    """The least that Pillow can do with the file."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def dense_resize(
    operator: Resize, rows: np.ndarray, columns: np.ndarray, pixels: np.ndarray
) -> np.ndarray:
    """The same map by two dense products of a full float64 image."""
    image = pixels.astype(np.float64).reshape(operator.height, -1)
    half = (rows @ image).reshape(operator.size, operator.width, 3)
    planes = np.ascontiguousarray(half.transpose(2, 0, 1)).reshape(-1, operator.width)
    return (planes @ columns.T).reshape(3, operator.size, operator.size) / 255


def main() -> None:
    """Print one line an image size and format, then one an image size and network size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("decode (CPU ms)      ours  Pillow alone  ratio")
    for height, width in SIZES:
        pixels = photo(height, width)
        for file_format in ("JPEG", "PNG", "WEBP"):
            data = encoded(pixels, file_format)
            ours, plain = best_ms(
                max(2, rounds // 2),
                lambda d=data: decode_image(d, LIMITS),
                lambda d=data: pillow_decode(d),
            )
            label = f"{height}x{width} {file_format}"
            print(f"{label:<17}{ours:>8.2f}{plain:>14.2f}{ours / plain:>7.2f}")
    print("resize (CPU ms)      ours   dense  ratio  build")
    for height, width in SIZES:
        pixels = photo(height, width)
        for size in (64, 224):
            start = time.process_time()
            operator = resize_operator(height, width, size)
            build = (time.process_time() - start) * 1e3
            rows, columns = operator.rows, operator.columns
            ours, dense = best_ms(
                rounds,
                lambda o=operator, p=pixels: o.apply(p),
                lambda o=operator, r=rows, c=columns, p=pixels: dense_resize(o, r, c, p),
            )
            label = f"{height}x{width}->{size}"
            print(f"{label:<17}{ours:>8.2f}{dense:>8.2f}{dense / ours:>7.1f}{build:>7.1f}")


if __name__ == "__main__":
    main()
