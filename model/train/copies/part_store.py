"""Rows of pictures, computed once and kept: files of a few hundred pictures each.

A part is written aside and renamed, so an interrupted store is gone on with; several processes
share the parts between them. Its sha256 is kept beside it: rows that were moved or changed are
numbers like any others, and nothing else would tell.
"""

import hashlib
import io
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.cli.progress import Progress
from model.errors import TrainingError
from model.train.distributed import World, current, wait_for_all
from model.train.run_state import replacing

PART = 256
"""Pictures of a part."""

Counting = Callable[[str, Iterable[int], int], Iterable[int]]


@dataclass(frozen=True)
class PartStore:
    """One row for each picture, by its number, in parts.

    Attributes:
        folder: where the parts lie.
        stem: start of their names; it holds a digest of all that the rows depend on.
        pictures: how many rows there are.
        shape: of a row.
        dtype: of its numbers, as numpy names it.
    """

    folder: Path
    stem: str
    pictures: int
    shape: tuple[int, ...]
    dtype: str

    def build(self, row: Callable[[int], Any], what: str, world: World, counting: Counting) -> None:
        """Computes the parts that are not there yet, this process's share of them.

        Args:
            row: gives a picture's row.
            what: the rows' name, for people.
            world: this process's place.
            counting: passes numbers through, and shows how many have passed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        share = list(range(self._parts))[world.rank :: world.size]
        # Without its digest a part was interrupted, or is of an older version: it is made again.
        missing = [
            part
            for part in share
            if not (self._path(part).exists() and self._digest_path(part).exists())
        ]
        if not missing:
            return
        for part in counting(f"{what}, parts of {PART} pictures", missing, len(missing)):
            places = range(part * PART, min((part + 1) * PART, self.pictures))
            whole = io.BytesIO()
            np.save(whole, np.stack([row(place) for place in places]), allow_pickle=False)
            # Gone first: whoever is killed between the two files must not leave a wrong pair.
            self._digest_path(part).unlink(missing_ok=True)
            # Not np.save to the file: numpy does not notice when the last bytes find no room.
            with replacing(self._path(part)) as aside, aside.open("wb") as file:
                file.write(whole.getbuffer())
            with replacing(self._digest_path(part)) as aside:
                aside.write_text(_digest(whole.getvalue()), encoding="ascii")

    def load(self, *, mapped: bool = False) -> Sequence[Any]:
        """The parts in the order of the pictures, each (pictures, *shape).

        Args:
            mapped: leave them on the disk, and read what is asked for.

        Raises:
            TrainingError: a part is missing, damaged or not the one that was written.
        """
        return [self._read(part, mapped=mapped) for part in range(self._parts)]

    def _read(self, part: int, *, mapped: bool) -> Any:
        path, count = self._path(part), min(PART, self.pictures - part * PART)
        try:
            data = path.read_bytes()
            if _digest(data).encode() != self._digest_path(part).read_bytes():
                raise TrainingError(
                    f"{path} is not as it was written, its sha256 is another: delete it and go on"
                )
            rows: Any = np.load(
                path if mapped else io.BytesIO(data),
                allow_pickle=False,
                mmap_mode="r" if mapped else None,
            )
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
            raise TrainingError(f"{path} cannot be read, delete it and go on: {exc}") from exc
        wanted = f"{self.dtype} numbers of shape {(count, *self.shape)}"
        # An archive of several arrays has neither shape nor dtype.
        shape, dtype = getattr(rows, "shape", None), getattr(rows, "dtype", None)
        if shape != (count, *self.shape) or dtype != self.dtype:
            raise TrainingError(
                f"{path} must hold {wanted}, got {dtype}, {shape}: delete it and go on"
            )
        if not mapped and not np.isfinite(rows).all():
            raise TrainingError(f"{path} holds numbers that are not finite: delete it and go on")
        return rows

    @property
    def _parts(self) -> int:
        return -(-self.pictures // PART)

    def _path(self, part: int) -> Path:
        return self.folder / f"{self.stem}-{part:05d}.npy"

    def _digest_path(self, part: int) -> Path:
        return self._path(part).with_suffix(".npy.sha256")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_together(build: Callable[[World, Counting], None], device: str) -> None:
    """Lets every process build its share; returns once all have.

    Args:
        build: given this process's place, and what shows how far it is.
        device: where the processes meet.
    """
    world = current()
    build(world, Progress(sys.stderr if world.leads else None).counting)
    wait_for_all(device)
