"""The journal of a build: embeddings already computed, kept so that a killed build need not repeat.

It is a cache keyed by content, model fingerprint, decode policy and views. Every record carries a
digest of itself; one that does not match is as good as absent. A file that SQLite cannot read, or
that fills the disk, is started anew. After a build is sealed the journal is deleted.
"""

import hashlib
import shutil
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from index_builder.store.items import TRUNCATED
from index_builder.store.sqlite import sqlite_errors

_SCHEMA = """
CREATE TABLE IF NOT EXISTS embedded_views(
    content_sha256 TEXT NOT NULL,
    model TEXT NOT NULL,
    vectors BLOB NOT NULL,
    views BLOB NOT NULL,
    norms BLOB NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    format TEXT NOT NULL,
    thumbnail BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (content_sha256, model)
) WITHOUT ROWID
"""
_MEMBERS = "content_sha256, vectors, views, norms, width, height, format, thumbnail"


@dataclass(frozen=True)
class EmbeddedImage:
    """What a build keeps of one image file, as an `Item` has it, with its vectors and thumbnail.

    Attributes:
        vectors: of norm 1, all different, one after the other, each d little-endian float32.
        views: the number of the view that each is of, a byte each; the first is 0.
        norms: of the raw embeddings, little-endian float64; NaN where not known.
        thumbnail: a small JPEG file.
    """

    content_sha256: str
    vectors: bytes
    views: bytes
    norms: bytes
    width: int
    height: int
    format: str
    thumbnail: bytes

    def rows(self) -> Iterator[tuple[bytes, int, float]]:
        """Each vector, the number of its view, and the embedding's norm."""
        length = len(self.vectors) // len(self.views)
        for number, (view, (norm,)) in enumerate(
            zip(self.views, struct.iter_unpack("<d", self.norms), strict=True)
        ):
            yield self.vectors[number * length : (number + 1) * length], view, norm

    @property
    def is_truncated(self) -> bool:
        return self.format.endswith(TRUNCATED)


class Journal:
    """Embeddings of one model under one decode policy, in some views; on disk after each `add`."""

    def __init__(self, path: Path, *, model: str, dim: int) -> None:
        """Open or begin it; `model` names the model, the policy and the views."""
        self._path = path
        self._model = model
        self._vector_bytes = 4 * dim
        if self._leaves_no_room():
            self._delete_files()
        try:
            self._connection = self._open()
        except (sqlite3.Error, ValueError):  # damaged beyond use: it is only a cache
            self._delete_files()
            with sqlite_errors(path.name):
                self._connection = self._open()

    def _leaves_no_room(self) -> bool:
        """Whether it takes more than the disk has left: no version could be written beside it."""
        kept = sum(file.stat().st_size for file in self._files() if file.exists())
        return kept > shutil.disk_usage(self._path.parent).free

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            # A commit in WAL mode survives a killed process without waiting for the disk; after a
            # power cut the last ones may be missing, and are computed again.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
            connection.execute(f"SELECT {_MEMBERS}, model, digest FROM embedded_views LIMIT 1")  # noqa: S608 (fixed text)
        except (sqlite3.Error, ValueError):  # a damaged schema may be no text
            connection.close()
            raise
        return connection

    def add(self, images: Iterable[EmbeddedImage]) -> None:
        """Keep these; when the call returns, killing the process does not lose them."""
        rows = [(*astuple(image), self._model, self._digest(image)) for image in images]
        with sqlite_errors(self._path.name):
            self._connection.execute("BEGIN")
            self._connection.executemany(
                f"INSERT OR REPLACE INTO embedded_views({_MEMBERS}, model, digest) "  # noqa: S608 (fixed text)
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._connection.execute("COMMIT")

    def get(self, content_sha256: str) -> EmbeddedImage | None:
        """The kept embedding of a file of these bytes, if its record is whole."""
        try:
            found = self._connection.execute(
                f"SELECT {_MEMBERS}, digest FROM embedded_views "  # noqa: S608 (fixed text)
                "WHERE content_sha256 = ? AND model = ?",
                (content_sha256, self._model),
            ).fetchone()
        except (sqlite3.Error, ValueError):
            return None
        if found is None:
            return None
        image = EmbeddedImage(*found[:-1])
        is_whole = (
            len(image.vectors) == self._vector_bytes * len(image.views) > 0
            and self._digest(image) == found[-1]
        )
        return image if is_whole else None

    def delete(self) -> None:
        """Close and remove it: what it kept is in a sealed version now."""
        self.close()
        self._delete_files()

    def close(self) -> None:
        """Close it, to be resumed."""
        self._connection.close()

    def _digest(self, image: EmbeddedImage) -> bytes:
        head = (image.content_sha256, self._model, image.width, image.height, image.format)
        digest = hashlib.sha256(repr(head).encode())
        for part in (image.vectors, image.views, image.norms, image.thumbnail):
            digest.update(part)
        return digest.digest()

    def _delete_files(self) -> None:
        for file in self._files():
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [self._path.with_name(self._path.name + suffix) for suffix in ("", "-wal", "-shm")]
