"""Draw docs/challenge.jpg, the picture of the README: one attack on a CNN, the same on us.

make demo; then: .venv/bin/python docs/make_picture.py

Both are asked for the nearest picture of the demo's gallery, then attacked by gradient descent on
the pixels of the query, with the same budget; what is shown are whole levels, as a file holds them.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.evictions import eviction_objective, round_to_levels
from index_builder.search.certified import certified_search
from index_builder.search.gallery import GalleryIndex
from model.attack.descent import Ball, Search, descend
from model.embedder import Embedder
from model.metrics.load import load_metric
from model.metrics.metric import unit_rows
from model.pixels.decode import DecodedImage, decode_image
from model.pixels.resize import resize_operator

ROOT = Path(__file__).parents[1]
QUERY = ROOT / "examples" / "queries" / "astronaut-cropped.jpg"
CNN = "teacher:efficientnet-lite0"
LEVELS, STEPS = 2.0, 100
TILE, GAP, LINE = 190, 16, 18
ATTACKED = f"attacked, {LEVELS:.0f} of 255 levels:\n"
GOOD, BAD = "#00796b", "#c62828"

Tile = tuple[np.ndarray, str, str]


class Gallery(NamedTuple):
    """Unit rows, the first row of each entry, and the scales of the network that made them."""

    vectors: np.ndarray
    starts: np.ndarray
    scales: np.ndarray


def main() -> None:
    """Attack both, and draw what each answers."""
    pixels = decode_image(QUERY.read_bytes()).pixels
    with GalleryIndex.open(ROOT / ".demo") as index:
        names = [entry.id for entry in index.entries(range(index.size))]
        rows = [attack_cnn(pixels, names), attack_ours(pixels, index, names)]
    draw(pixels, rows).save(ROOT / "docs" / "challenge.jpg", quality=90, optimize=True)


def attack_cnn(pixels: np.ndarray, names: Sequence[str]) -> list[Tile]:
    """The CNN's answer before and after the attack on it."""
    metric = load_metric(CNN)
    rows = unit_rows(metric.embed([picture_of(name) for name in names]))
    gallery = Gallery(rows.astype(np.float64), np.arange(len(names) + 1), np.ones(metric.dim))

    def answer(asked: np.ndarray) -> int:
        return int((gallery.vectors @ metric.embed([asked])[0]).argmax())

    first = answer(pixels)
    attacked = attack(pixels, metric.network, metric.input_size, gallery, first)
    second = answer(attacked)
    if first == second:
        raise SystemExit("the CNN stood: nothing to show")
    return [
        (picture_of(names[first]), f"a CNN finds\n{names[first]}", GOOD),
        (attacked, f"{ATTACKED}the CNN is to lose it", "black"),
        (picture_of(names[second]), f"now the CNN finds\n{names[second]}", BAD),
    ]


def attack_ours(pixels: np.ndarray, index: GalleryIndex, names: Sequence[str]) -> list[Tile]:
    """Our answer before and after the attack on us, with its radius."""
    embedder = Embedder.load()

    def answer(asked: np.ndarray) -> tuple[int, float]:
        (found,) = certified_search(
            index,
            [embedder.embed_image(DecodedImage(asked, "PNG"))],
            lipschitz_bound=embedder.lipschitz_bound,
            output_scales=embedder.output_scales,
            k=1,
        )
        row = found.candidates.rows[found.certificate.positions[0]]
        return int(index.rows.entries[row]), float(found.certificate.certified_radii[0])

    first, radius = answer(pixels)
    vectors = index.vectors.astype(np.float64)
    gallery = Gallery(vectors, index.rows.starts, embedder.output_scales)
    attacked = attack(pixels, embedder.network, embedder.input_size, gallery, first)
    second, left = answer(attacked)
    if first != second:
        raise SystemExit("evicted below its radius: the certificate is wrong")
    proved, still = (255 * one / np.sqrt(pixels.size) for one in (radius, left))
    return [
        (picture_of(names[first]), f"we find {names[first]}\nproved to {proved:.1f} levels", GOOD),
        (attacked, f"{ATTACKED}we are to lose it", "black"),
        (picture_of(names[second]), f"we still find it,\nproved to {still:.1f} levels", GOOD),
    ]


def attack(
    pixels: np.ndarray,
    network: Callable[[torch.Tensor], torch.Tensor],
    side: int,
    gallery: Gallery,
    entry: int,
) -> np.ndarray:
    """The query, changed by less than LEVELS so that this entry be no longer the first."""
    x, budget = pixels / 255.0, LEVELS / 255 * np.sqrt(pixels.size)
    resize = resize_operator(*pixels.shape[:2], side)
    objective = eviction_objective(
        network,
        resize,
        x,
        gallery=gallery.vectors,
        starts=gallery.starts,
        entries=[entry],
        k=1,
        scales=gallery.scales,
    )
    limits = torch.full((1, 1, 1, 1), budget, dtype=torch.float64)
    ball = Ball("l2", limits, torch.from_numpy(x.transpose(2, 0, 1).copy())[None])
    found = descend(Search(objective, ball.zeros()), ball.zeros(), ball, steps=STEPS)
    return round_to_levels(pixels, found[0].permute(1, 2, 0).numpy(), budget)


def picture_of(item_id: str) -> np.ndarray:
    """An item of the demo gallery, decoded by our own policy."""
    suffix = ".webp" if item_id.startswith("clipart/") else ".jpg"
    return decode_image((ROOT / "examples" / "gallery" / (item_id + suffix)).read_bytes()).pixels


def draw(query: np.ndarray, rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Two rows: the query, the answer to it, the attacked query, the answer to that."""
    columns, height = 1 + len(rows[0]), TILE + 2 * LINE + 2 * GAP
    sheet = Image.new("RGB", (GAP + columns * (TILE + GAP), len(rows) * height + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for number, row in enumerate(rows):
        tiles = [(query, "the query", "black"), *row]
        for column, (picture, caption, colour) in enumerate(tiles):
            left, top = GAP + column * (TILE + GAP), GAP + number * height
            small = Image.fromarray(picture)
            small.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
            x, y = left + (TILE - small.width) // 2, top + TILE - small.height
            sheet.paste(small, (x, y))
            if colour != "black":
                box = (x - 3, y - 3, x + small.width + 2, y + small.height + 2)
                pen.rectangle(box, outline=colour, width=4)
            pen.multiline_text((left, top + TILE + 6), caption, colour, font)
    return sheet


if __name__ == "__main__":
    main()
