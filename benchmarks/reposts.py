"""What is found of photographs after what people do to them, beside hashes: 18 edits.

    python benchmarks/reposts.py PICTURES [--sources 60] [--others FOLDER ...] [--metric NAME ...]

The gallery is PICTURES and OTHERS, which nobody asks for. Queries are edited copies of pictures
spread evenly over PICTURES, none of an edit that trained the network or that is a view of the
gallery, but the mirror. Ours owns the vectors of a new index and is asked as the service is, with
trim: what stands first in either answer counts. Hashes and teachers are asked as people use them,
one vector a picture; hashes then with the same views.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.cli.progress import Progress
from model.data.pictures import evenly, open_pictures
from model.errors import DependencyError
from model.metrics.load import load_metric
from model.metrics.metric import Metric, unit_rows
from model.pixels.trim import find_trim
from model.pixels.views import DEFAULT_VIEWS, VIEW_SETS, VIEWS

Edit = Callable[[Image.Image], Image.Image]
PLAIN = ("whole",)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Recompressed."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def small(image: Image.Image, side: int = 200) -> Image.Image:
    """Made smaller, to this longest side."""
    return ImageOps.contain(image, (side, side), Image.Resampling.BICUBIC)


def crop(image: Image.Image, left: float, top: float) -> Image.Image:
    """80 % of each side, from this corner in shares of what is cut."""
    width, height = round(0.8 * image.width), round(0.8 * image.height)
    x, y = round(left * (image.width - width)), round(top * (image.height - height))
    return image.crop((x, y, x + width, y + height))


def repost(image: Image.Image) -> Image.Image:
    """Cropped, made smaller, squashed to a square, recompressed."""
    return jpeg(small(crop(image, 0.5, 0.5)).resize((160, 160)), 40)


def text(image: Image.Image, words: str, height: float, y: float) -> None:
    """Words in white with a black edge, centred; height and place in shares of the picture's."""
    font = ImageFont.load_default(height * image.height)
    place = image.width / 2, y * image.height
    edge = max(1, round(0.1 * height * image.height))
    ImageDraw.Draw(image).text(
        place, words, (255, 255, 255), font, "mm", stroke_width=edge, stroke_fill=(0, 0, 0)
    )


def caption(image: Image.Image) -> Image.Image:
    """Two lines of a meme on the picture."""
    image = image.copy()
    text(image, "WHEN YOU SEE IT", 0.1, 0.09)
    text(image, "TOO LATE", 0.1, 0.91)
    return image


def sticker(image: Image.Image) -> Image.Image:
    """A yellow face on it, a quarter of the shorter side wide."""
    image = image.copy()
    side = min(image.size) // 4
    x, y = round(0.6 * image.width), round(0.2 * image.height)
    draw = ImageDraw.Draw(image)
    draw.ellipse((x, y, x + side, y + side), (255, 204, 51), (120, 80, 0))
    for eye in (0.3, 0.65):
        ex, ey = x + eye * side, y + 0.3 * side
        draw.ellipse((ex, ey, ex + 0.1 * side, ey + 0.15 * side), (40, 30, 20))
    return image


def on(image: Image.Image, size: tuple[int, int], place: tuple[int, int], colour: int) -> Image:
    """The picture on a larger gray page."""
    page = Image.new("RGB", size, (colour,) * 3)
    page.paste(image, place)
    return page


def letterbox(image: Image.Image) -> Image.Image:
    """Black bars, to 16:9."""
    width, height = image.size
    width, height = max(width, height * 16 // 9), max(height, width * 9 // 16)
    return on(image, (width, height), ((width - image.width) // 2, (height - image.height) // 2), 0)


def viewer(image: Image.Image) -> Image.Image:
    """In a viewer's window: a dark border of 6 %."""
    side = round(0.06 * max(image.size))
    return ImageOps.expand(image, (side, side, side, 2 * side), (32, 33, 36))


def phone(image: Image.Image) -> Image.Image:
    """In an app on a phone: bars with words and buttons above and below."""
    width = image.width
    screen = on(image, (width, 2 * width), (0, round(0.35 * width)), 255)
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, width, 0.16 * width), (24, 119, 242))
    for i in range(5):
        x = (0.1 + 0.2 * i) * width
        draw.ellipse((x - 10, 1.9 * width - 10, x + 10, 1.9 * width + 10), (90, 90, 90))
    text(screen, "someone posted this", 0.03, 0.13)
    return screen


def meme_band(image: Image.Image) -> Image.Image:
    """A white band with words on top, 22 % of the height."""
    band = round(0.22 * image.height)
    page = on(image, (image.width, image.height + band), (0, band), 255)
    text(page, "nobody: absolutely nobody:", 0.07, 0.09)
    return page


def brighter(image: Image.Image, by: float) -> Image.Image:
    """Every value times this."""
    return ImageEnhance.Brightness(image).enhance(by)


EDITS: dict[str, Edit] = {
    "jpeg, quality 20": lambda image: jpeg(image, 20),
    "200 pixels": small,
    "gray": lambda image: image.convert("L").convert("RGB"),
    "blurred, radius 3": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    "rotated by 3 degrees": lambda image: image.rotate(3, Image.Resampling.BICUBIC),
    "caption": caption,
    "sticker": sticker,
    "brighter by 35 %": lambda image: brighter(image, 1.35),
    "darker by 40 %": lambda image: brighter(image, 0.6),
    "middle 80 %": lambda image: crop(image, 0.5, 0.5),
    "corner 80 %": lambda image: crop(image, 0.93, 0.9),
    "repost": repost,
    "letterbox": letterbox,
    "viewer": viewer,
    "phone": phone,
    "meme band": meme_band,
    "mirrored": ImageOps.mirror,
    "rotated by 90 degrees": lambda image: image.rotate(90, expand=True),
}


def found(
    metric: Metric, views: Sequence[str], folders: Sequence[Path], sources: int, *, trim: bool
) -> dict[str, int]:
    """How many copies of each edit have their original first."""
    sets = [open_pictures(folder) for folder in folders]
    entries = [(pictures, place) for pictures in sets for place in range(len(pictures))]
    rows = []
    with Progress().counter(f"{metric.name}, {len(views)} views", len(entries)) as advance:
        for pictures, place in entries:
            pixels = pictures[place].pixels()
            rows.append(unit_rows(metric.embed([VIEWS[name].of(pixels) for name in views])))
            advance()
    gallery, hits = np.concatenate(rows), dict.fromkeys(EDITS, 0)
    for place in evenly(len(sets[0]), sources):
        image = Image.fromarray(sets[0][place].pixels())
        for name, edit in EDITS.items():
            copy = np.asarray(edit(image))
            asked = [copy]
            if trim and (box := find_trim(copy).box.of(copy)).shape != copy.shape:
                asked.append(np.ascontiguousarray(box))
            first = (gallery @ unit_rows(metric.embed(asked)).T).argmax(axis=0) // len(views)
            hits[name] += place in first
    return hits


def main() -> None:
    """Print a line an edit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--sources", type=int, default=60)
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    everybody = ["wave-96", "phash", "pdq", "teacher:efficientnet-lite0"]
    parser.add_argument("--metric", nargs="+", choices=everybody, default=everybody)
    options = parser.parse_args()
    folders, wide = [options.pictures, *options.others], VIEW_SETS[DEFAULT_VIEWS]
    columns: dict[str, dict[str, int]] = {}
    for name in options.metric:
        try:
            metric = load_metric(name)
        except DependencyError as exc:
            sys.stderr.write(f"without {name}: {exc}\n")
            continue
        if name != "wave-96":
            columns[name] = found(metric, PLAIN, folders, options.sources, trim=False)
        if not name.startswith("teacher:"):
            columns[f"{name}, views"] = found(metric, wide, folders, options.sources, trim=True)
    print(f"found first, of {options.sources:<16}" + "".join(f"{name:>28}" for name in columns))
    for edit in EDITS:
        print(f"{edit:<32}" + "".join(f"{hits[edit]:>28}" for hits in columns.values()))


if __name__ == "__main__":
    main()
