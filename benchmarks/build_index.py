"""What a build costs beside its decoding and embedding, in CPU time of one process.

    python benchmarks/build_index.py [FOLDER] [--images N] [--repeats R]

Prints decode, resize, network and build apart, and the ratio (decode alone + views alone + embed
alone) / build, which should be at least 0.85. Runs are interleaved and the least of each is taken.
The index has the views of a new one; embedding is resize and network of all of them, through the
embedder's public door; torch runs in one thread.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from index_builder.build.build import build_index
from index_builder.sources.open_source import open_source
from model.embedder import Embedder
from model.pixels.decode import DecodedImage, DecodeLimits, decode_image
from model.pixels.resize import resize_operator
from model.pixels.views import DEFAULT_VIEWS, VIEW_SETS, VIEWS, WHOLE, reduce_pixels

_BATCH = 16


def cpu_seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("examples/gallery"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    embedder = Embedder.load()
    limits = DecodeLimits()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        pictures = [p for p in sorted(arguments.folder.rglob("*")) if _is_image(p)]
        for number, path in enumerate(pictures[: arguments.images]):
            shutil.copy(path, source / f"{number:05d}{path.suffix}")
        files = [path.read_bytes() for path in sorted(source.iterdir())]
        images = [decode_image(data) for data in files]
        side = embedder.input_size

        def see() -> list[DecodedImage]:
            return [view for image in images for view in _views(image, side)]

        seen = see()

        def embed() -> None:
            for start in range(0, len(seen), _BATCH):
                embedder.embed_images(seen[start : start + _BATCH])

        def build(run: int) -> None:
            opened = open_source(source, max_bytes=limits.max_image_bytes)
            build_index(Path(scratch) / f"run{run}", "bench", opened, embedder, source_name="bench")

        embed()  # warm caches and the allocator
        stages: dict[str, list[float]] = {
            name: [] for name in ("decode", "views", "resize", "embed", "build")
        }
        for run in range(arguments.repeats):
            stages["decode"].append(cpu_seconds(lambda: [decode_image(data) for data in files]))
            stages["views"].append(cpu_seconds(see))
            stages["resize"].append(cpu_seconds(lambda: [_resize(i, side) for i in seen]))
            stages["embed"].append(cpu_seconds(embed))
            stages["build"].append(cpu_seconds(lambda run=run: build(run)))
    best = {name: min(seconds) for name, seconds in stages.items()}
    best["network"] = best["embed"] - best["resize"]
    print(f"{len(files)} images, model {embedder.name}, CPU milliseconds an image:")
    for name in ("decode", "views", "resize", "network", "embed", "build"):
        print(f"  {name:8} {1e3 * best[name] / len(files):8.2f}")
    ratio = (best["decode"] + best["views"] + best["embed"]) / best["build"]
    print(f"(decode + views + embed) / build = {ratio:.3f} (wanted >= 0.85)")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in {".webp", ".jpg", ".jpeg", ".png", ".gif", ".avif"}


def _views(image: DecodedImage, side: int) -> list[DecodedImage]:
    """A picture as a new index has it: the others are of a reduced one."""
    small = reduce_pixels(image.pixels, 4 * side)
    names = VIEW_SETS[DEFAULT_VIEWS]
    others = [replace(image, pixels=VIEWS[name].of(small)) for name in names if name != WHOLE]
    return [image, *others]


def _resize(image: DecodedImage, side: int) -> object:
    return resize_operator(image.height, image.width, side).apply(image.pixels)


if __name__ == "__main__":
    main()
