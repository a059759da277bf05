"""Draw docs/answer.png, the picture of the README, from a real answer of the library.

make demo; then: .venv/bin/python docs/make_picture.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from index_builder.search.certified import certified_search
from index_builder.search.gallery import GalleryIndex
from model.embedder import Embedder
from model.pixels.decode import decode_image

ROOT = Path(__file__).parents[1]
QUERY = ROOT / "examples" / "queries" / "astronaut-cropped.jpg"
TILE, GAP, CAPTION = 196, 14, 62


def main() -> None:
    """Ask, and draw the answer."""
    embedder = Embedder.load()
    query = decode_image(QUERY.read_bytes())
    with GalleryIndex.open(ROOT / ".demo") as index:
        (answer,) = certified_search(
            index,
            [embedder.embed_image(query)],
            lipschitz_bound=embedder.lipschitz_bound,
            output_scales=embedder.output_scales,
            k=3,
        )
        certificate = answer.certificate
        entries = index.entries(
            index.rows.entries[answer.candidates.rows[certificate.positions]].tolist()
        )
    radius = float(certificate.certified_radii[0])
    levels = 255 * radius / np.sqrt(query.pixels.size)
    tiles = [
        (Image.fromarray(query.pixels), "query: a crop of a\ngallery picture"),
        (
            noisy(query.pixels, radius),
            f"one of all the pictures\nwithin l2 {radius:.1f} of it\n({levels:.1f} levels rms)",
        ),
    ]
    for rank, entry in enumerate(entries):
        picture = Image.open(ROOT / "examples" / "gallery" / path_of(entry.id)).convert("RGB")
        r, d = certificate.certified_radii[rank], certificate.distances[rank]
        tiles.append(
            (picture, f"{rank + 1}. {entry.id}\ndistance {d:.3f}\ncertified radius {r:.1f}")
        )
    draw(tiles).save(ROOT / "docs" / "answer.png", optimize=True)


def noisy(pixels: np.ndarray, radius: float) -> Image.Image:
    """The picture with random noise of just below the radius, rounded and clipped like a file."""
    noise = np.random.default_rng(7).standard_normal(pixels.shape)
    noise *= 0.97 * radius / np.linalg.norm(noise)
    moved = np.clip(np.rint(pixels + 255 * noise), 0, 255).astype(np.uint8)
    if not np.linalg.norm((moved.astype(float) - pixels) / 255) < radius:
        raise SystemExit("the rounded noise is not below the radius: draw with less")
    return Image.fromarray(moved)


def path_of(item_id: str) -> str:
    """Where the demo gallery keeps an item."""
    return item_id + (".webp" if item_id.startswith("clipart/") else ".jpg")


def draw(tiles: list[tuple[Image.Image, str]]) -> Image.Image:
    """The tiles in a row, each above its caption."""
    width = GAP + len(tiles) * (TILE + GAP) + 2 * GAP
    sheet = Image.new("RGB", (width, GAP + TILE + CAPTION + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for i, (picture, caption) in enumerate(tiles):
        left = GAP + i * (TILE + GAP) + (2 * GAP if i >= 2 else 0)
        picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (TILE - picture.width) // 2, GAP + TILE - picture.height))
        pen.multiline_text((left, GAP + TILE + 8), caption, "black", font)
    line = 2 * (TILE + GAP) + GAP + 4
    pen.line((line + 6, GAP, line + 6, GAP + TILE + CAPTION), "#bbbbbb", 1)
    return sheet


if __name__ == "__main__":
    main()
