"""Shared by the tests of the index: a tiny real embedder, and small collections.

Run as a script it builds: python tests/support/index_tools.py DATA_DIR SOURCE
"""

import io
import signal
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from index_builder.build.build import BuildReport, build_index
from index_builder.search.gallery import GalleryIndex
from index_builder.sources.open_source import open_source
from index_builder.store import layout
from index_builder.store.items import Item
from index_builder.store.manifest import Manifest, read_manifest
from index_builder.store.operating_points import (
    Calibration,
    LeftOut,
    Measured,
    OperatingPoint,
)
from model.pixels.views import VIEW_SETS

MAX_BYTES = 1 << 20

CALIBRATION = Calibration(
    statistic="margin",
    k=2,
    pairs="synthetic",
    source="pictures",
    seed=7,
    pictures=700,
    queries=800,
    chosen_on=400,
    operating_points=(
        OperatingPoint("strict", 0.41, 0.001, 350, 0, {"jpeg": Measured(400, 300, 400, 0)}),
        OperatingPoint("balanced", 0.3, 0.01, 350, 2, {"jpeg": Measured(400, 350, 400, 3)}),
    ),
    left_out=(LeftOut("loose", 0.1, "too few"),),
)


class TinyEmbedder:
    """A seeded linear network on 8 x 8 pixels: real, deterministic, and quick to load."""

    name = "tiny-linear"
    decode_policy = "lipsim-decode-1"
    dim = 24
    input_size = 8
    forward_error = 1e-12

    def __init__(self, seed: int = 0, seconds_a_batch: float = 0.0) -> None:
        self.fingerprint = f"{seed:064x}"
        self.output_scales = np.ones(self.dim)
        self._weights = np.random.default_rng(seed).standard_normal((192, self.dim)) / 14
        self._seconds_a_batch = seconds_a_batch

    def embed_pixels(self, x: np.ndarray) -> np.ndarray:
        time.sleep(self._seconds_a_batch)
        # One row at a time, so that equal images have equal bits in any batch.
        return np.stack([row @ self._weights for row in x.reshape(len(x), -1)])


def picture(seed: int, side: int = 12, file_format: str = "PNG") -> bytes:
    """The bytes of a small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def saved_again(data: bytes, number: int) -> bytes:
    """A PNG file of the same pixels and other bytes."""
    note, file = PngInfo(), io.BytesIO()
    note.add_text("Comment", f"saved {number}")
    Image.open(io.BytesIO(data)).save(file, "PNG", pnginfo=note)
    return file.getvalue()


def black_picture() -> bytes:
    """A picture whose embedding by a linear network is zero."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, count: int, first: int = 0) -> Path:
    """A folder of `count` different pictures."""
    root.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        (root / f"{seed:04d}.png").write_bytes(picture(seed))
    return root


def build(data_dir: Path, source: Path, *, seed: int = 0, **options: object) -> BuildReport:
    """Build the default index with the tiny embedder; a new one has one vector a picture."""
    if not layout.index_paths(data_dir, "default").current.exists():
        options.setdefault("views", VIEW_SETS["none"])
    return build_index(
        data_dir,
        "default",
        open_source(source, max_bytes=MAX_BYTES),
        TinyEmbedder(seed),
        source_name=str(source),
        **options,
    )


def ids_of(data_dir: Path) -> list[str]:
    """The ids that an index serves."""
    with GalleryIndex.open(data_dir) as index:
        return [item.id for item in index.items.items()]


def contents(data_dir: Path) -> tuple[list[Item], np.ndarray]:
    """What an index holds, whatever its version is called."""
    with GalleryIndex.open(data_dir) as index:
        return list(index.items.items()), np.array(index.vectors)


def some(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in counts.items() if count}


@contextmanager
def interruptible() -> Generator[None]:
    """Processes started meanwhile react to SIGINT, though nohup or a script's & made it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def build_slowly(data_dir: Path, source: Path, seconds_a_batch: float) -> None:
    """The same, at a pace at which it can be killed."""
    build_index(
        data_dir,
        "default",
        open_source(source, max_bytes=MAX_BYTES),
        TinyEmbedder(seconds_a_batch=seconds_a_batch),
        source_name=str(source),
        views=VIEW_SETS["none"],
    )


def make_old(data_dir: Path, name: str = "default") -> Manifest:
    """Turn the served version, of one vector an entry, into what releases before views wrote."""
    paths = layout.index_paths(data_dir, name)
    version = layout.read_current(paths).version
    directory = paths.version(version)
    now = read_manifest(directory)
    assert now.view_names == ("whole",)
    calibration = now.calibration
    schema = "lipsim-index-1"
    if calibration is not None:
        schema = "lipsim-index-2.1" if calibration.stale else "lipsim-index-2"
    later = ("rows.npy", "columns.sqlite")
    files = {file: record for file, record in now.files.items() if file not in later}
    old = replace(now, schema=schema, files=files, vectors=None, views=None)
    for file in later:
        (directory / file).unlink()
    (directory / "manifest.json").write_bytes(old.to_bytes())
    layout.write_current(paths, layout.Current(version, old.seal))
    return old


def without_columns(data_dir: Path, name: str = "default") -> None:
    """Turn the served version into what releases before filters wrote."""
    paths = layout.index_paths(data_dir, name)
    version = layout.read_current(paths).version
    directory = paths.version(version)
    now = read_manifest(directory)
    old = replace(now, files={f: r for f, r in now.files.items() if f != "columns.sqlite"})
    (directory / "columns.sqlite").unlink()
    (directory / "manifest.json").write_bytes(old.to_bytes())
    layout.write_current(paths, layout.Current(version, old.seal))


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
