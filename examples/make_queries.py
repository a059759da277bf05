"""Make `examples/queries/`: edited copies of gallery pictures, as they are met in the wild.

Run `python examples/make_queries.py` from the repository root. The edits and their noise are
seeded, so the same library versions write the same files.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

EXAMPLES = Path(__file__).parent
SEED = 20261122


def noisy(image: Image.Image) -> Image.Image:
    """Gaussian noise of 6 of 255 levels."""
    pixels = np.asarray(image, dtype=np.float64)
    noise = np.random.default_rng(SEED).normal(0.0, 6.0, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def cropped(image: Image.Image) -> Image.Image:
    """Three percent gone on each side."""
    dx, dy = round(image.width * 0.03), round(image.height * 0.03)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


def smaller(image: Image.Image) -> Image.Image:
    """Half the sides."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def larger(image: Image.Image) -> Image.Image:
    """One and a half times the sides."""
    size = (image.width * 3 // 2, image.height * 3 // 2)
    return image.resize(size, Image.Resampling.BICUBIC)


def brighter(image: Image.Image) -> Image.Image:
    """A tenth brighter."""
    return ImageEnhance.Brightness(image).enhance(1.1)


def unchanged(image: Image.Image) -> Image.Image:
    """Only compressed again."""
    return image


# file written: gallery id, edit, what Pillow's save is told.
QUERIES: dict[str, tuple[str, Callable[[Image.Image], Image.Image], dict[str, object]]] = {
    "coffee-recompressed.jpg": ("photos/coffee", unchanged, {"quality": 40}),
    "chelsea-smaller.jpg": ("photos/chelsea", smaller, {"quality": 85}),
    "astronaut-cropped.jpg": ("photos/astronaut", cropped, {"quality": 90}),
    "rocket-noisy.jpg": ("photos/rocket", noisy, {"quality": 92}),
    "seeding-brighter.webp": ("photos/seeding", brighter, {"quality": 80}),
    "camera-larger.jpg": ("photos/camera", larger, {"quality": 75}),
    "clipart-0001-noisy.jpg": ("clipart/0001", noisy, {"quality": 80}),
    "clipart-0100-cropped.png": ("clipart/0100", cropped, {"optimize": True}),
}


def main() -> None:
    """Write every query, and `queries.json`: which original each one was made of."""
    gallery = EXAMPLES / "gallery"
    lines = (gallery / "index.jsonl").read_text(encoding="utf-8").splitlines()
    paths = {entry["id"]: entry["path"] for entry in map(json.loads, lines)}
    folder = EXAMPLES / "queries"
    folder.mkdir(exist_ok=True)
    for name, (original, edit, options) in QUERIES.items():
        with Image.open(gallery / paths[original]) as image:
            edit(image.convert("RGB")).save(folder / name, **options)
    originals = {name: original for name, (original, _, _) in QUERIES.items()}
    (folder / "queries.json").write_text(json.dumps(originals, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
