"""The arrays of a sealed version: unit vectors, and whose view each is; writer and reader.

Both are plain `.npy` files behind a header of fixed length, which a reader compares byte for byte
instead of parsing it. What is not as a writer leaves it is an IndexFormatError.
"""

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8

from index_builder.errors import IndexFormatError
from index_builder.store.layout import reading
from model.certificate.rounding import gamma, round_up

VECTORS = "vectors.npy"
ROWS = "rows.npy"

# Rounding a unit float64 vector to float32 moves its norm by about 6e-8; ten times that is damage.
MAX_NORM_DEVIATION = 1e-6
_VECTORS_HEADER_BYTES = 128
_ROWS_HEADER_BYTES = 192
_BLOCK_BYTES = 1 << 22
_ROW = np.dtype([("entry", "<u4"), ("view", "u1"), ("embedding_norm", "<f8")])
_ROW_FORMAT = struct.Struct("<IBd")


def vectors_header(rows: int, dim: int) -> bytes:
    """The 128 bytes before the rows of a vectors file: a .npy header, version 1.0."""
    return _npy_header("'<f4'", f"({rows}, {dim})", _VECTORS_HEADER_BYTES)


def _npy_header(descr: str, shape: str, length: int) -> bytes:
    """Padded, so that a writer can fill it in last, when the number of rows is known."""
    fields = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    prefix = b"\x93NUMPY\x01\x00" + (length - 10).to_bytes(2, "little")
    return prefix + fields.ljust(length - 11).encode("ascii") + b"\n"


def _rows_header(rows: int) -> bytes:
    return _npy_header(str(_ROW.descr), f"({rows},)", _ROWS_HEADER_BYTES)


class VectorsWriter:
    """Appends rows to a vectors file and a rows file whose length is known only at the end."""

    def __init__(self, vectors: BinaryIO, rows: BinaryIO, dim: int) -> None:
        self._vectors, self._rows, self._dim = vectors, rows, dim
        self.entries = self.count = 0
        vectors.write(vectors_header(0, dim))
        rows.write(_rows_header(0))

    def append(self, rows: Iterable[tuple[bytes, int, float]]) -> int:
        """Write the rows of the next entry, and give its number.

        Args:
            rows: each little-endian float32, the number of its view, the norm before division.
        """
        for vector, view, embedding_norm in rows:
            if len(vector) != 4 * self._dim:
                raise IndexFormatError(f"wanted a row of {4 * self._dim} bytes, got {len(vector)}")
            self._vectors.write(vector)
            self._rows.write(_ROW_FORMAT.pack(self.entries, view, embedding_norm))
            self.count += 1
        self.entries += 1
        return self.entries - 1

    def finish(self) -> None:
        """Write the true number of rows into the headers."""
        for file, header in (
            (self._vectors, vectors_header(self.count, self._dim)),
            (self._rows, _rows_header(self.count)),
        ):
            file.seek(0)
            file.write(header)
            file.flush()


def map_vectors(path: Path, rows: int, dim: int) -> Float[np.ndarray, "R D"]:
    """Memory-map the rows of a vectors file, read-only; (R, d) float32."""
    wanted = _VECTORS_HEADER_BYTES + 4 * rows * dim
    with reading(path) as file:
        header = file.read(_VECTORS_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
        if header != vectors_header(rows, dim) or size != wanted:
            raise IndexFormatError(
                f"{path.name} is damaged: wanted {wanted} bytes for {rows} rows of {dim} "
                f"float32, got {size}, or another header"
            )
        if rows == 0:  # an empty map is refused by the system
            return np.empty((0, dim), dtype=np.float32)
        offset = _VECTORS_HEADER_BYTES
        return np.memmap(file, dtype="<f4", mode="r", offset=offset, shape=(rows, dim))


def norm_deviation(vectors: Float[np.ndarray, "R D"]) -> float:
    """Proved bound on | |f| - 1 | over all rows; 0 if there are none.

    The squares of float32 values are exact in float64; summing d of them and the root are off by
    at most gamma(d + 2), relatively.
    """
    rows, dim = vectors.shape
    step = max(1, _BLOCK_BYTES // (8 * dim))
    worst = 0.0
    for start in range(0, rows, step):
        block = np.asarray(vectors[start : start + step], dtype=np.float64)
        deviation = np.abs(np.sqrt(np.einsum("nd,nd->n", block, block)) - 1.0)
        if not np.isfinite(deviation).all():
            row = start + int(np.argmin(np.isfinite(deviation)))
            raise IndexFormatError(f"{VECTORS} is damaged: row {row} holds NaN or infinity")
        worst = max(worst, float(deviation.max()))
    if rows == 0:
        return 0.0
    bound = round_up(round_up(worst) + round_up(gamma(dim + 4) * (1.0 + 2.0 * worst)))
    if not bound <= MAX_NORM_DEVIATION:
        raise IndexFormatError(f"{VECTORS}: wanted unit vectors, one is off by {worst:.3g}")
    return bound


@dataclass(frozen=True, eq=False)
class Rows:
    """Whose view each row of the vectors file is; rows of one entry stand together, in order.

    Attributes:
        entries: number of the entry, (R,); 0 to N - 1 in order, each at least once.
        views: which view of it, as the manifest counts them, (R,).
        embedding_norms: |g| of the raw embedding that was divided by it, (R,); NaN where a version
            of an older format did not keep it.
    """

    entries: Int64[np.ndarray, " R"]
    views: UInt8[np.ndarray, " R"]
    embedding_norms: Float64[np.ndarray, " R"]

    @classmethod
    def of_old(cls, entries: int) -> "Rows":
        """The rows of a version that has one for each entry."""
        views = np.zeros(entries, dtype=np.uint8)
        return cls(np.arange(entries), views, np.full(entries, np.nan))

    @cached_property
    def starts(self) -> Int64[np.ndarray, " N1"]:
        """The first row of each entry, and R behind them, (N + 1,)."""
        firsts = np.flatnonzero(np.diff(self.entries, prepend=-1))
        return np.append(firsts, self.entries.size)

    @cached_property
    def most_views(self) -> int:
        """The most rows that one entry has; 1 where there are none."""
        return int(np.diff(self.starts).max(initial=1))

    def of_entries(self, entries: Int64[np.ndarray, " E"]) -> Int64[np.ndarray, " A"]:
        """Every row of some entries."""
        if self.starts.size == self.entries.size + 1:  # one each
            return entries
        firsts, counts = self.starts[entries], self.starts[entries + 1] - self.starts[entries]
        shift = np.repeat(firsts - np.cumsum(counts) + counts, counts)
        return np.arange(shift.size) + shift


def read_rows(path: Path, rows: int, *, entries: int, views: int) -> Rows:
    """Read a rows file, and hold it against the manifest's numbers."""
    with reading(path) as file:
        header, body = file.read(_ROWS_HEADER_BYTES), file.read()
    if header != _rows_header(rows) or len(body) != _ROW.itemsize * rows:
        raise IndexFormatError(f"{path.name} is damaged: wanted {rows} rows, or another header")
    table = np.frombuffer(body, dtype=_ROW)
    number, view = table["entry"].astype(np.int64), table["view"].copy()
    norms = table["embedding_norm"].copy()
    step, is_next_view = np.diff(number, prepend=-1), np.diff(view.astype(int), prepend=-1) > 0
    is_whole = (
        ((step == 1) | ((step == 0) & is_next_view)).all()
        and (number[-1:] == entries - 1).all()
        and bool((view < views).all())
        and bool((np.isnan(norms) | ((norms > 0.0) & (norms < np.inf))).all())
        and (rows > 0) == (entries > 0)
    )
    if not is_whole:
        raise IndexFormatError(f"{path.name} is damaged: wanted the rows of {entries} entries")
    return Rows(number, view, norms)
