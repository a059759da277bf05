# pyright: basic
# numpy's memory maps have no types to speak of.
"""One row for each picture of a set, computed once and kept, so that killed work goes on.

Rows are computed in parts of 256 pictures, each a file that is whole or not there; several
processes share the parts. Gathered rows lie in one file beside its sha256: rows that were moved or
changed are numbers like any others, and nothing else would tell.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.cli.files import sha256_of
from model.errors import TrainingError
from model.train.distributed import current, progress, wait_for_all
from model.train.run_folder import replacing

PART = 256
"""Pictures of a part."""


def digest_of(*about: Any) -> str:
    """A short name for all that some rows depend on, JSON values: other rows have another."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PartStore:
    """Rows by the number of their picture."""

    folder: Path
    name: str  # of the files; it holds a digest of all that the rows depend on
    count: int
    shape: tuple[int, ...]  # of a row
    dtype: str  # of its numbers, as numpy names it

    @property
    def gathered(self) -> Path:
        """The file of all rows."""
        return self.folder / f"{self.name}.npy"

    def missing(self) -> list[range]:
        """This process's share of the parts that are still to be computed."""
        world, starts = current(), range(0, self.count, PART)
        share = starts[world.rank :: world.size]
        parts = (range(start, min(start + PART, self.count)) for start in share)
        return [part for part in parts if not self._file(part.start).exists()]

    def save(self, part: range, rows: np.ndarray) -> None:
        """Keeps the rows of a part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(part.start)) as aside, aside.open("wb") as file:
            np.save(file, rows, allow_pickle=False)

    def parts(self) -> Iterator[np.ndarray]:
        """The rows of each part, in order."""
        for start in range(0, self.count, PART):
            yield self._opened(self._file(start), min(PART, self.count - start))

    def build(self, row: Callable[[int], np.ndarray], what: str, device: str) -> np.ndarray:
        """All rows, memory-mapped; what is not there yet is computed, by all processes together."""
        digest = self.gathered.with_suffix(".npy.sha256")
        is_whole = self.gathered.exists() and digest.exists()
        parts = [] if is_whole else self.missing()
        if parts:
            shown = f"{what}, parts of {PART} pictures"
            for part in progress().counting(shown, parts, len(parts)):
                self.save(part, np.stack([row(place) for place in part]))
        wait_for_all(device)
        if current().is_first and not is_whole:
            digest.unlink(missing_ok=True)  # a kill must not leave an old one beside new rows
            with replacing(self.gathered) as aside:
                shape = (self.count, *self.shape)
                rows = np.lib.format.open_memmap(aside, "w+", np.dtype(self.dtype), shape)
                for number, part in enumerate(self.parts()):
                    rows[number * PART : number * PART + len(part)] = part
                rows.flush()
            with replacing(digest) as aside:
                aside.write_text(sha256_of(self.gathered), encoding="ascii")
            for start in range(0, self.count, PART):
                self._file(start).unlink(missing_ok=True)
        wait_for_all(device)
        if sha256_of(self.gathered).encode() != digest.read_bytes():
            raise TrainingError(
                f"{self.gathered} is not as it was written, its sha256 is another: delete it and "
                f"go on"
            )
        return self._opened(self.gathered, self.count)

    def _file(self, start: int) -> Path:
        return self.folder / f"{self.name}-{start:09d}.part.npy"

    def _opened(self, path: Path, count: int) -> np.ndarray:
        """A file's rows, memory-mapped; of the kind that is wanted, and finite."""
        wanted = f"finite {self.dtype} {(count, *self.shape)}"
        try:
            rows = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, OverflowError) as exc:
            came = f"a damaged file ({exc})"
        else:
            came = f"{rows.dtype} {rows.shape}"
            if rows.dtype == self.dtype and rows.shape == (count, *self.shape):
                if rows.dtype.kind != "f" or np.isfinite(rows).all():
                    return rows
                came += " with a number that is not finite"
        raise TrainingError(
            f"{path}: {wanted} was wanted, {came} came; delete this file and run the same again: "
            f"it goes on from the others"
        )
