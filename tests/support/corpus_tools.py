"""Small packages and folders for the tests of the corpus."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from model.train.corpus.recipe import Recipe, Source


def picture(seed, height=60, width=72):
    """A smooth picture unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def drawing(seed, side=64):
    """A coloured disc on nothing: RGBA."""
    rng = np.random.default_rng([seed, 7])
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    inside = np.hypot(y, x * rng.uniform(1, 2)) < 0.45
    alpha = np.where(inside, 255, 0).astype(np.uint8)[..., None]
    return np.concatenate([picture(seed, side, side), alpha], axis=2)


def save(path, pixels, **options):
    """Write a picture, its folders too."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def folder_of_drawings(root, count=40):
    """Folder animals and folder tools, drawings with transparency."""
    for number in range(count):
        name = f"{'animals' if number % 2 else 'tools'}/{_word(number)}.png"
        save(root / name, drawing(number))
    return root


def folder_of_photos(root, count=20, first=1000):
    """Opaque pictures, larger than what is stored."""
    for number in range(count):
        save(root / f"{_word(number)}.png", picture(first + number, 300, 400))
    return root


def drawings_source(root, **fields):
    """A training source of labelled drawings."""
    shares = {"train": 0.6, "validation": 0.1, "test": 0.3}
    values = {"shares": shares, "kind": "clipart", "label": "folder", "cutouts": True} | fields
    return Source(name="drawings", licence="CC0-1.0", folder=str(root), **values)


def photos_source(root, **fields):
    """A source that is only measured on."""
    values = {"name": "photos", "role": "evaluate-only"} | fields
    return Source(licence="CC-BY-SA-4.0", folder=str(root), **values)


def recipe(*sources, **fields):
    """A recipe of sources."""
    return Recipe(name="tiny", sources=tuple(sources), **fields)


def samples(directory, split):
    """(key, fields, picture, encoded bytes) of every picture of a split, as a stranger reads it."""
    folder = Path(directory) / split
    entries = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    found = []
    for entry in entries:
        data = (folder / entry["path"]).read_bytes()
        found.append((entry["id"], entry, Image.open(io.BytesIO(data)).convert("RGB"), data))
    return found


def contents(directory):
    """Every file's bytes, by path."""
    files = (path for path in Path(directory).rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def _word(number):
    """A name without digits, since those at its end are taken for a copy's number."""
    return "name-" + "".join(chr(ord("a") + int(digit)) for digit in f"{number:03}")
