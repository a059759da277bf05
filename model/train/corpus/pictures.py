"""One image file of a source made into pictures of the corpus, or refused with a reason."""

import hashlib
import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from model.errors import CorpusError, ImageBytesError, ImageError, ImageFormatError, ImageSizeError
from model.pixels.decode import DecodeLimits, decode_image
from model.train.corpus.files import FileEntry
from model.train.corpus.recipe import Source
from model.train.corpus.split import label_of, split_of

TRAINING_SIDE = 128
EVALUATION_SIDE = 256
BACKGROUND_SIDE = 384
THUMBNAIL_SIDE = 16
TRAINING_QUALITY = 90
_LIMITS = DecodeLimits()
# Standard deviation of every channel, of 255: below it there is nothing to be told apart by.
_FLAT = 4.0
_TRANSPARENT_SHARE = 0.02
_CUTOUT_SHARES = (0.1, 0.95)
_REASONS: dict[type[Exception], str] = {
    ImageBytesError: "too many bytes",
    ImageFormatError: "format",
    ImageSizeError: "too many pixels",
    CorpusError: "unreadable",
}

Box = tuple[int, int, int, int]  # left, top, right, bottom


class Refused(NamedTuple):
    """A file, or a picture in it, that is not in the corpus."""

    source: str
    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture ready to be written; sides are the longer ones, in pixels."""

    source: str
    path: str  # of its file, in the source
    sha256: str  # of its file
    licence: str
    label: str | None
    kind: str  # photo, clipart, texture or composite
    split: str
    crop: Box | None  # the part it is, in the file's pixels; None is the whole
    parts: tuple[str, ...]  # sha256 of the files a composite is made of
    pixels_sha256: str  # of its decoded pixels, before it was made smaller
    thumbnail: UInt8[np.ndarray, " 768"]  # what near-duplicates are found by: 16 x 16 RGB pixels
    image: bytes  # WebP; to train with, side <= 128, lossy; else <= 256, lossless
    cutout: bytes | None = None  # WebP with alpha, side <= 128, to be pasted into composites
    background: bytes | None = None  # WebP, side <= 384, for cut-outs to be pasted on

    @property
    def key(self) -> str:
        """Kind, source and a hash of what it is: its name in the corpus, in no telling order."""
        what = f"{self.source}:{self.path}:{self.crop}"
        return f"{self.kind}-{self.source}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"

    @property
    def fields(self) -> dict[str, object]:
        """What the list of its split says of it."""
        fields: dict[str, object] = {
            "source": self.source,
            "file": self.path,
            "sha256": self.sha256,
            "image_sha256": hashlib.sha256(self.image).hexdigest(),
            "licence": self.licence,
            "label": self.label,
            "kind": self.kind,
        }
        if self.crop is not None:
            fields["crop"] = list(self.crop)
        if self.parts:
            fields["parts"] = list(self.parts)
        return fields


def prepare(task: tuple[FileEntry, Source, int]) -> list[Prepared | Refused]:
    """What one file of a source gives by a seed: the whole picture, its crops, or a refusal."""
    entry, source, seed = task
    name = entry.path.encode(errors="backslashreplace").decode()
    if name != entry.path:
        return [Refused(source.name, name, "file name", "the name is no text in UTF-8")]
    try:
        data = entry.read(_LIMITS.max_image_bytes)
        pixels = decode_image(data, _LIMITS).pixels
    except (CorpusError, ImageError) as error:
        reason = _REASONS.get(type(error), "damaged")
        return [Refused(source.name, entry.path, reason, str(error))]
    height, width = pixels.shape[:2]
    if min(height, width) < source.min_side:
        wanted = f"{source.min_side} a side were wanted"
        return [Refused(source.name, entry.path, "too small", f"{width} x {height}, {wanted}")]
    if max(height, width) > source.max_aspect * min(height, width):
        wanted = f"at most {source.max_aspect:g} to 1 was wanted"
        return [Refused(source.name, entry.path, "too long", f"{width} x {height}, {wanted}")]
    boxes: list[Box | None] = [None] if source.whole or not source.crops else []
    words = np.frombuffer(hashlib.sha256(entry.path.encode()).digest()[:16], ">u8").tolist()
    boxes += crop_boxes(height, width, source, np.random.default_rng([seed, *words]))
    return [_view(entry.path, source, data, pixels, box) for box in boxes]


def crop_boxes(height: int, width: int, source: Source, rng: np.random.Generator) -> list[Box]:
    """Disjoint parts of a picture: one in each of some cells of a grid.

    Returns:
        At most `source.crops` boxes of at least `source.min_side` a side.
    """
    if not source.crops:
        return []
    columns = max(1, round((source.crops * width / height) ** 0.5))
    rows = -(-source.crops // columns)
    cell_width, cell_height = width // columns, height // rows
    boxes: list[Box] = []
    for cell in rng.permutation(rows * columns)[: source.crops]:
        shares = rng.uniform(0.7, 1.0, 2)
        box_width, box_height = (int(v) for v in shares * (cell_width, cell_height))
        places = rng.uniform(0.0, 1.0, 2) * (cell_width - box_width, cell_height - box_height)
        left = int(cell % columns) * cell_width + int(places[0])
        top = int(cell // columns) * cell_height + int(places[1])
        if min(box_width, box_height) >= source.min_side:
            boxes.append((left, top, left + box_width, top + box_height))
    return boxes


def encode(image: Image.Image, quality: int | None) -> bytes:
    """WebP bytes: lossy of that quality, or lossless for None."""
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "WEBP", lossless=True, quality=50, method=3)
    else:
        image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at most that; never enlarged."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def thumbnail(image: Image.Image) -> UInt8[np.ndarray, " 768"]:
    """Means over a 16 x 16 grid, whatever the picture's shape, flat."""
    small = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8).reshape(-1)


def pixel_digest(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    """The sha256 of a picture's shape and values."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def _view(
    path: str, source: Source, data: bytes, pixels: UInt8[np.ndarray, "H W 3"], box: Box | None
) -> Prepared | Refused:
    """The whole picture, or a part of it."""
    left, top, right, bottom = box or (0, 0, pixels.shape[1], pixels.shape[0])
    part = pixels[top:bottom, left:right]
    full = shrink(Image.fromarray(np.ascontiguousarray(part)), BACKGROUND_SIDE)
    image = shrink(full, EVALUATION_SIDE)
    if float(np.asarray(image).std(axis=(0, 1)).max()) < _FLAT:
        return Refused(source.name, path, "flat", f"nothing to see in {box or 'it'}")
    alpha = _alpha(data) if source.cutouts or source.kind == "auto" else None
    split = split_of(source, path)
    trains = split == "train"
    is_material = trains and box is None
    stored = shrink(image, TRAINING_SIDE) if trains else image
    return Prepared(
        source=source.name,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        licence=source.licence,
        label=label_of(source, path),
        kind=_kind(source, alpha),
        split=split,
        crop=box,
        parts=(),
        pixels_sha256=pixel_digest(part),
        thumbnail=thumbnail(image),
        image=encode(stored, TRAINING_QUALITY if trains else None),
        cutout=_cutout(data, alpha) if is_material and source.cutouts else None,
        background=encode(full, 95) if is_material and source.backgrounds else None,
    )


def _kind(source: Source, alpha: UInt8[np.ndarray, "H W"] | None) -> str:
    """The source's kind; where that is to be found out, what is partly transparent is clip art."""
    if source.kind != "auto":
        return source.kind
    is_cut_out = alpha is not None and (alpha < 128).mean() > _TRANSPARENT_SHARE
    return "clipart" if is_cut_out else "photo"


def _alpha(data: bytes) -> UInt8[np.ndarray, "H W"] | None:
    """The alpha of a file that decode_image has found sound, or None where it has none."""
    with Image.open(io.BytesIO(data)) as image:
        if not image.has_transparency_data:
            return None
        return np.asarray(image.convert("RGBA").getchannel("A"))


def _cutout(data: bytes, alpha: UInt8[np.ndarray, "H W"] | None) -> bytes | None:
    """The drawing without the empty space around it, if it has a shape of its own."""
    if alpha is None:
        return None
    visible: Bool[np.ndarray, "H W"] = alpha >= 128
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if not rows.size or not columns.size:
        return None
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    least, most = _CUTOUT_SHARES
    if not least <= visible[box[1] : box[3], box[0] : box[2]].mean() <= most:
        return None
    with Image.open(io.BytesIO(data)) as image:
        return encode(shrink(image.convert("RGBA").crop(box), TRAINING_SIDE), None)
