"""Bytes of an image file in, upright uint8 RGB pixels out: the one decode policy, versioned.

Gallery and query pass through the same function, so "the uploaded pixels" mean the same for both.
The rules, one for each kind of file, are in docs/decode-policy.md; to change which pixels a file
stands for is a new DECODE_POLICY_VERSION. The order of work is the order of trust: bytes are
counted, the format is told from the content, the file is taken apart without decoding, its sides
are checked, and only then does Pillow see the part that draws the picture.
"""

import importlib.util
import io
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

# Imported for their registration, so that Image.open finds them without loading all of Pillow's.
from PIL import (
    AvifImagePlugin,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    BmpImagePlugin,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    GifImagePlugin,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    Image,
    JpegImagePlugin,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    PngImagePlugin,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    TiffImagePlugin,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    WebPImagePlugin,  # noqa: F401  # pyright: ignore[reportUnusedImport]
    features,
)

from model.errors import (
    DependencyError,
    EmptyImageError,
    ImageBytesError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageSizeError,
)
from model.pixels.containers.container import Container, exif_orientation, truncated
from model.pixels.containers.gif import read_gif
from model.pixels.containers.jpeg import read_jpeg
from model.pixels.containers.png import read_png
from model.pixels.containers.sniff import content_format
from model.pixels.containers.webp import read_webp

DECODE_POLICY_VERSION = "lipsim-decode-1"


class _Format(NamedTuple):
    """An image format: what people call it, and who walks its container beside its decoder."""

    label: str
    read: Callable[[bytes], Container] | None = None
    is_default: bool = True


# Every format there is, by Pillow's name of at most eight letters (service/work/cache/shared.py). A
# new one is no new policy version, as no file's pixels change, and needs
# - a line here, its plug-in among the imports, its first bytes in containers/sniff.py; a reader
#   unless its decoder tells the sides without decoding and refuses a file that is cut; its library
#   in _LIBRARIES;
# - of a package outside Pillow, as HEIF's: what `_register_heif` does, absence from PILLOW_FORMATS,
#   an extra in pyproject.toml and tests/architecture/test_compose.py, its name among _PACKAGES in
#   service/work/cache/shared.py, docs/deployment-containers.md;
# - in `_decode`, who turns it upright: its decoder, or `_upright` by EXIF;
# - of Pillow's own, its file names in model/data/pictures.py (and docs/data.md),
#   model/train/corpus/files.py and benchmarks/build_index.py; if read by default, a writer in
#   tests/fuzz/pictures.py;
# - hostile files in tests/support/image_files.py;
# - its rules in docs/decode-policy.md, and words: `allowed_formats` in service/settings.py (and
#   docs/settings.md), README.md, SECURITY.md, docs/fuzzing.md.
_FORMATS: Mapping[str, _Format] = {
    "JPEG": _Format("JPEG", read_jpeg),
    "PNG": _Format("PNG", read_png),
    "WEBP": _Format("WebP", read_webp),
    "AVIF": _Format("AVIF"),
    "GIF": _Format("GIF", read_gif),
    "BMP": _Format("BMP", is_default=False),
    "TIFF": _Format("TIFF", is_default=False),
    "HEIF": _Format("HEIC", is_default=False),
}
ALL_FORMATS = frozenset(_FORMATS)
PILLOW_FORMATS = ALL_FORMATS - {"HEIF"}
"""Those that need no package beside Pillow."""
_ALIASES = {"JPG": "JPEG", "TIF": "TIFF", "HEIC": "HEIF"}
# Pillow's own bomb check warns above this and raises above twice this: stay below, be the judge.
MOST_PIXELS = 89_478_485
_COMPOSITE_ROWS = 64
_LIBRARIES = {
    "pillow": "pil",
    "libjpeg": "jpg",
    "libjpeg_turbo": "libjpeg_turbo",
    "zlib": "zlib",
    "libwebp": "webp",
    "libavif": "avif",
}
# Modes with a rule in the decode policy; beside them the transparent ones.
_PLAIN_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})

# Pillow warns of odd metadata. What it decodes does not depend on that, a hostile file must not
# fill a log, and warnings.catch_warnings is not safe among threads: silence them once, for Pillow.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class DecodeLimits:
    """What an image may be, checked before it is decoded.

    Attributes:
        max_image_bytes: length of the encoded file.
        max_pixels: width times height, at most 89,478,485.
        max_side: width and height each.
        formats: of ALL_FORMATS, those accepted; HEIF (HEIC) needs pillow-heif.
        accept_truncated: a JPEG that ends early is drawn as far as it goes, the rest gray.

    Raises:
        ValueError: a limit is not positive, too large, or a format is not among these.
        DependencyError: HEIF is named and pillow-heif is not installed.
    """

    max_image_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    formats: frozenset[str] = frozenset(name for name, kind in _FORMATS.items() if kind.is_default)
    accept_truncated: bool = False

    def __post_init__(self) -> None:
        if min(self.max_image_bytes, self.max_pixels, self.max_side) < 1:
            raise ValueError("every limit must be at least 1")
        if self.max_pixels > MOST_PIXELS:
            raise ValueError(f"max_pixels must be at most {MOST_PIXELS}, got {self.max_pixels}")
        if not self.formats or not self.formats <= _FORMATS.keys():
            wanted, came = ", ".join(_FORMATS), ", ".join(sorted(self.formats)) or "none"
            raise ValueError(f"formats must be some of {wanted}; got {came}")
        if "HEIF" in self.formats:
            _register_heif()


def decoder_versions() -> dict[str, str]:
    """Versions of what turns bytes into pixels here: Pillow and the libraries it was built with."""
    found = {name: features.version(key) for name, key in _LIBRARIES.items()}
    return {name: version for name, version in found.items() if version is not None}


def format_names(names: Iterable[str]) -> frozenset[str]:
    """Formats as an operator writes them, by the names DecodeLimits knows.

    Args:
        names: in any case; JPG, TIF and HEIC are understood too.

    Raises:
        ValueError: one is no format that could be allowed, or HEIC's library is missing.
    """
    upper = (name.strip().upper() for name in names)
    found = frozenset(_ALIASES.get(name, name) for name in upper if name)
    try:
        return DecodeLimits(formats=found).formats
    except DependencyError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An upright picture.

    Attributes:
        pixels: RGB, uint8, contiguous, read-only, (H, W, 3).
        format: the name of the format it came in, as in DecodeLimits.formats.
        is_truncated: the file ended early, and what was missing is gray.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    format: str
    is_truncated: bool = False

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]


_DEFAULT_LIMITS = DecodeLimits()


def decode_image(data: bytes, limits: DecodeLimits = _DEFAULT_LIMITS) -> DecodedImage:
    """Decode the first picture of an image file by the decode policy.

    The format is told from the content. The orientation is applied; transparency is laid on white;
    gray is repeated; 16-bit values keep their high byte; CMYK becomes RGB by (255-C)(255-K)/255;
    ICC profiles are ignored. Thread-safe; Pillow releases the interpreter while it decodes.
    Not covered: damage inside a JPEG's or a WebP's coded data that still decodes to a full picture.

    Args:
        data: the file, whole.
        limits: what it may be.

    Returns:
        The upright picture.

    Raises:
        EmptyImageError: no bytes.
        ImageBytesError: more bytes than allowed.
        ImageFormatError: the content is of a format or variant that is not accepted.
        ImageSizeError: no pixels, too many, or a side too long.
        ImageDecodeError: truncated (unless the limits accept that) or damaged, or pixels without a
            rule (32-bit, floating point).
    """
    if not data:
        raise EmptyImageError("an image was wanted, 0 bytes came")
    if len(data) > limits.max_image_bytes:
        raise ImageBytesError(
            f"at most {limits.max_image_bytes} bytes of image are accepted, {len(data)} came"
        )
    name = content_format(data)
    if name is None or name not in limits.formats:
        raise _unaccepted(name, limits)
    try:
        container = _take_apart(name, data)
        if container is not None:
            _check_sides(container.width, container.height, limits)
        return _decode(name, data, container, limits)
    except ImageError:
        raise
    # The one boundary to the decoders: whatever hostile bytes make them raise, MemoryError
    # included, ends as one class of ours.
    except Image.DecompressionBombError as exc:
        raise ImageSizeError("the image has more pixels than the decoder accepts") from exc
    except Exception as exc:
        wanted = _FORMATS[name].label
        raise ImageDecodeError(f"a whole {wanted} file was wanted, this one is damaged") from exc


def _take_apart(name: str, data: bytes) -> Container | None:
    """The file's container, or None for a format whose sides its decoder tells without decoding."""
    read = _FORMATS[name].read
    try:
        return None if read is None else read(data)
    except (IndexError, struct.error) as exc:
        raise truncated(name) from exc


def _unaccepted(name: str | None, limits: DecodeLimits) -> ImageFormatError:
    accepted = [kind.label for key, kind in _FORMATS.items() if key in limits.formats]
    listed = accepted[0] if len(accepted) == 1 else f"{', '.join(accepted[:-1])} or {accepted[-1]}"
    came = "of no known image format" if name is None else name
    came = _FORMATS[came].label if came in _FORMATS else came
    return ImageFormatError(
        f"the content is {came}, which this service does not accept; send {listed}"
    )


def _check_sides(width: int, height: int, limits: DecodeLimits) -> None:
    if min(width, height) < 1:
        raise ImageSizeError(f"at least 1 x 1 pixels were wanted, {width} x {height} came")
    if max(width, height) > limits.max_side:
        raise ImageSizeError(
            f"sides of at most {limits.max_side} pixels are accepted, {width} x {height} came"
        )
    if width * height > limits.max_pixels:
        raise ImageSizeError(
            f"at most {limits.max_pixels} pixels are accepted, "
            f"{width} x {height} = {width * height} came"
        )


def _decode(
    name: str, data: bytes, container: Container | None, limits: DecodeLimits
) -> DecodedImage:
    """The picture of a file whose container, where there is a reader for it, is sound."""
    file = data if container is None else container.data
    with Image.open(io.BytesIO(file), formats=(name,)) as image:
        if container is None:
            _check_sides(*image.size, limits)
        elif image.size != (container.width, container.height):
            raise ImageDecodeError("the decoder and the file disagree about the picture's size")
        image.load()
        is_truncated = container is not None and not container.is_whole(image)
        if is_truncated and not (limits.accept_truncated and name == "JPEG"):
            raise truncated(name)
        # Pillow tells of AVIF's own turns in EXIF; it turns TIFF, and libheif HEIC, by itself.
        exif = image.info.get("exif", b"") if name == "AVIF" else b""
        orientation = exif_orientation(exif) if container is None else container.orientation
        pixels = _to_rgb(image, container)
    if container is not None and container.frame is not None:
        pixels = _on_white_screen(pixels, container.frame)
    upright = np.ascontiguousarray(_upright(pixels, orientation))
    upright.flags.writeable = False
    return DecodedImage(upright, name, is_truncated)


def _to_rgb(image: Image.Image, container: Container | None) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels in RGB, by the rule of their mode."""
    if image.mode.startswith("I;16"):
        high = (np.asarray(image).astype(np.uint16, copy=False) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    key = None if container is None else container.color_key
    if key is not None:
        return _white_where(np.asarray(image.convert("RGB")), key)
    if image.has_transparency_data:
        return _over_white(np.asarray(image.convert("RGBA")))
    if image.mode not in _PLAIN_MODES:
        raise ImageDecodeError(
            "gray, palette, RGB or CMYK of 8 or 16 bits a channel was wanted; other colour spaces, "
            "32-bit and floating-point values are not accepted"
        )
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _white_where(
    pixels: UInt8[np.ndarray, "H W 3"], key: tuple[int, ...]
) -> UInt8[np.ndarray, "H W 3"]:
    matches = (pixels == np.array(key, dtype=np.uint8)).all(axis=2, keepdims=True)
    return np.where(matches, np.uint8(255), pixels)


def _over_white(rgba: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Round(c a / 255 + 255 - a), half up, in integers and a few rows at a time."""
    out = rgba[..., :3].copy()
    for top in range(0, len(rgba), _COMPOSITE_ROWS):
        rows = rgba[top : top + _COMPOSITE_ROWS]
        alpha = rows[..., 3:].astype(np.uint16)
        if alpha.min() < 255:
            total = rows[..., :3] * alpha + 255 * (255 - alpha) + 128
            out[top : top + _COMPOSITE_ROWS] = (total + (total >> 8)) >> 8
    return out


def _on_white_screen(
    pixels: UInt8[np.ndarray, "H W 3"], frame: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """What the first frame does not cover is transparent, so it is white."""
    left, top, right, bottom = frame
    screen = np.full_like(pixels, 255)
    screen[top:bottom, left:right] = pixels[top:bottom, left:right]
    return screen


def _upright(pixels: UInt8[np.ndarray, "H W 3"], orientation: int) -> np.ndarray:
    """A view turned and mirrored as EXIF's orientation 1..8 asks."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _register_heif() -> None:
    if importlib.util.find_spec("pillow_heif") is None:
        raise DependencyError("HEIC needs pillow-heif: pip install 'lipsim-retrieval[heic]'")
    importlib.import_module("pillow_heif").register_heif_opener()
