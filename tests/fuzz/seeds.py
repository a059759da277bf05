"""The files that fuzzing begins with: whole and hostile ones of each format, and thumbnails.

`python -m fuzz.seeds FOLDER BYTES` writes those of at most so many bytes.
"""

import sys
from hashlib import sha256
from pathlib import Path

from fuzz.pictures import valid_file
from image_files import encoded, hostile_images, photo, sound_images
from paths import GALLERY

from index_builder.build.embedding import draw_thumbnail
from model.pixels.decode import decode_image

_GALLERY = GALLERY
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")


def seeds(most_bytes: int) -> list[bytes]:
    """Files of at most so many bytes, small ones first."""
    found = [file for file, _, _ in sound_images().values()]
    found += [file for file, _ in hostile_images().values()]
    found += [valid_file(number) for number in range(150)]
    found += [encoded(photo(24, 32), "TIFF", compression=kind) for kind in _TIFF_KINDS]
    found += [encoded(photo(24, 32), "BMP"), encoded(photo(24, 32)[..., 0], "BMP")]
    found += thumbnails(20)
    return sorted({file for file in found if 0 < len(file) <= most_bytes}, key=len)


_TIFF_KINDS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")


def thumbnails(count: int) -> list[bytes]:
    """Thumbnails of the bundled gallery, as an index holds them."""
    files = sorted(file for file in _GALLERY.rglob("*") if file.suffix.lower() in _PICTURES)
    return [draw_thumbnail(decode_image(file.read_bytes())) for file in files[:count]]


def write_seeds(folder: Path, most_bytes: int) -> None:
    """Put them into a folder, each named after its content."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in seeds(most_bytes):
        (folder / sha256(file).hexdigest()).write_bytes(file)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]), int(sys.argv[2]))
