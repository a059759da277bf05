"""How far edited copies lie from their original, and unrelated pictures from each other.

    python benchmarks/distances.py [PICTURES] [--copies 40] [--metric wave-96] [--views wide]

Distances are 1 - cosine to the nearest view, as a search gives them. Each of `copies` pictures,
evenly spread, is edited in each way; a copy is found if its original is the nearest picture of all.
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.data.pictures import open_pictures
from model.metrics.load import load_metric
from model.metrics.metric import unit_rows
from model.pixels.views import DEFAULT_VIEWS, VIEW_SETS, VIEWS

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"


def _jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=20)
    return Image.open(file)


def _crop(share: float) -> Callable[[Image.Image], Image.Image]:
    def crop(picture: Image.Image) -> Image.Image:
        x, y = round(share * picture.width), round(share * picture.height)
        return picture.crop((x, y, picture.width - x, picture.height - y))

    return crop


def _border(picture: Image.Image) -> Image.Image:
    x, y = picture.width // 10, picture.height // 10
    framed = Image.new("RGB", (picture.width + 2 * x, picture.height + 2 * y), "black")
    framed.paste(picture, (x, y))
    return framed


def _caption(picture: Image.Image) -> Image.Image:
    marked = picture.copy()
    marked.paste("black", (0, round(0.88 * picture.height), picture.width, picture.height))
    return marked


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 20": _jpeg,
    "half size": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC),
    "squashed to 4:5": lambda p: p.resize((p.width, p.height * 4 // 5), Image.Resampling.BICUBIC),
    "crop 3 % a side": _crop(0.03),
    "turned by 5°": lambda p: p.rotate(5, Image.Resampling.BICUBIC, fillcolor="white"),
    "gray": lambda p: p.convert("L").convert("RGB"),
    "crop 10 % a side": _crop(0.10),
    "caption bar": _caption,
    "border 10 %": _border,
    "mirrored": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90°": lambda p: p.transpose(Image.Transpose.ROTATE_90),
}


def main() -> None:
    """One row for each edit, and what lies nearest by chance."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("pictures", nargs="?", type=Path, default=GALLERY)
    options.add_argument("--copies", type=int, default=40)
    options.add_argument("--metric", default="wave-96")
    options.add_argument("--views", default=DEFAULT_VIEWS, choices=VIEW_SETS)
    given = options.parse_args()
    metric = load_metric(given.metric)
    pictures = open_pictures(given.pictures)
    pixels = [pictures[place].pixels() for place in range(len(pictures))]
    views = VIEW_SETS[given.views]
    seen = [VIEWS[name].of(picture) for picture in pixels for name in views]
    gallery = unit_rows(metric.embed(seen))

    def scored(queries: np.ndarray) -> np.ndarray:
        """Of every picture, its best view's cosine with each query."""
        return (queries @ gallery.T).reshape(len(queries), -1, len(views)).max(axis=2)

    nearest = 1 - (scored(gallery[:: len(views)]) - 4 * np.eye(len(pixels))).max(axis=1)
    print(
        f"{len(pixels)} pictures, {given.views} views; the nearest other one: 10 % below", end=" "
    )
    print(f"{np.quantile(nearest, 0.1):.3f}, half below {np.median(nearest):.3f}")
    chosen = np.linspace(0, len(pixels) - 1, given.copies).astype(int)
    print(f"\n{'edit':18} found of {given.copies}   distance: median   90 % below")
    for name, edit in EDITS.items():
        copies = [np.asarray(edit(Image.fromarray(pixels[place]))) for place in chosen]
        scores = scored(unit_rows(metric.embed(copies)))
        found = int((scores.argmax(axis=1) == chosen).sum())
        distances = 1 - scores[np.arange(len(chosen)), chosen]
        print(f"{name:18} {found:8}{np.median(distances):22.3f}{np.quantile(distances, 0.9):13.3f}")


if __name__ == "__main__":
    main()
