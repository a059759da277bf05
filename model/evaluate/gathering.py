"""One pass over the data for all metrics: pictures are read, edited and embedded once."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from model.cli.progress import Advance
from model.data.edits import EDIT_KINDS, edit, query_kinds
from model.data.files import read_bytes
from model.data.pictures import PICTURE_LIMITS, Picture, PictureSet, decode
from model.errors import DataError, EvaluationError
from model.evaluate.radii import Resizes
from model.metrics.metric import Metric
from model.pixels.resize import resize_operator

_PICTURES_PER_PASS = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")

Pixels = UInt8[np.ndarray, "_H _W 3"]
Counting = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar, with its text and how much there is; calling what it gives counts."""


@dataclass(frozen=True)
class Sheet:
    """What is known of each picture beside its pixels; "" where it is not known.

    Attributes:
        ids: as in the set.
        digests: sha256 of each file, in hex.
        origins: sha256 of the file that it was made of, by its data; else its own.
        labels: its class.
        sources: the package or folder that it comes from, by its data.
        kinds: photograph or clip art, say, by its data.
    """

    ids: tuple[str, ...]
    digests: tuple[str, ...]
    origins: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Queries:
    """Edited copies: which picture each was made of, and how."""

    originals: Int64[np.ndarray, " Q"]
    edits: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Vectors:
    """One metric's raw embeddings of the pictures, (N, D), and of the queries, (Q, D)."""

    pictures: Float64[np.ndarray, "N D"]
    queries: Float64[np.ndarray, "Q D"]


@dataclass(frozen=True, eq=False)
class Gathered:
    """Everything that the evaluations of a set of pictures need of it.

    Attributes:
        sheet: of the pictures.
        queries: of the edited copies; none where they were not asked for.
        vectors: by metric.
        resizes: of the queries, by metric; only where the metric's resize is ours.
    """

    sheet: Sheet
    queries: Queries
    vectors: Mapping[str, Vectors]
    resizes: Mapping[str, Resizes]


def gather(
    pictures: PictureSet,
    metrics: Mapping[str, Metric],
    counting: Counting,
    *,
    seed: int,
    limit: int | None = None,
    with_queries: bool = True,
) -> Gathered:
    """Read a set once: its pictures, two edited copies of each, and every metric's embeddings.

    Args:
        pictures: the set.
        metrics: by name.
        counting: the progress bar.
        seed: of the edits' strengths; kinds depend on a picture's place only.
        limit: take so many pictures, evenly spread; None for all.
        with_queries: make the copies.

    Raises:
        EvaluationError: there are no pictures.
        DataError: a picture cannot be read; the message names its file.
    """
    places = _spread(len(pictures), limit)
    if not places:
        raise EvaluationError(f"{pictures.name} holds no pictures")
    rows: list[tuple[str, ...]] = []
    edits: list[str] = []
    tray = _Tray(metrics, len(places), 2 * len(places) if with_queries else 0)
    with counting(f"embedding {pictures.name}", len(places)) as advance:
        for number, place in enumerate(places):
            picture = pictures[place]
            pixels = picture.pixels()
            rows.append(_row(picture))
            copies: list[Pixels] = []
            if with_queries:
                kinds = query_kinds(number)
                copies = [query_of(pixels, kind, seed=seed, number=number) for kind in kinds]
                edits += kinds
            tray.put(pixels, copies)
            advance()
        tray.flush()
    originals = np.repeat(np.arange(len(places)), 2 if with_queries else 0)
    columns = tuple(zip(*rows, strict=True))
    return Gathered(
        Sheet(*columns), Queries(originals, tuple(edits)), tray.vectors(), tray.resizes()
    )


def _row(picture: Picture) -> tuple[str, ...]:
    """A picture's line of the sheet.

    Raises:
        DataError: what its data says it was made of is no sha256.
    """
    digest = hashlib.sha256(picture.data).hexdigest()
    origin, source, kind = (picture.fields.get(name) for name in ("sha256", "source", "kind"))
    origin = digest if origin is None else str(origin).lower()
    if not _SHA256.fullmatch(origin):
        raise DataError(f"{picture.where}: its sha256 must be 64 hex digits, got {origin!a:.80}")
    return (
        picture.id,
        digest,
        origin,
        picture.label or "",
        str(source or ""),
        str(kind or ""),
    )


def query_of(pixels: Pixels, kind: str, *, seed: int, number: int) -> Pixels:
    """The edited copy of the picture with this number: the same for every metric and task."""
    return edit(pixels, kind, np.random.default_rng([seed, number, EDIT_KINDS.index(kind)]))


def gather_files(
    paths: Sequence[Path], metrics: Mapping[str, Metric], counting: Counting
) -> tuple[tuple[str, ...], Mapping[str, Float64[np.ndarray, "N D"]], Mapping[str, Resizes]]:
    """Embed picture files, each once.

    Returns:
        Digests of the files, each metric's raw embeddings, (N, D), and its resizes of ours.

    Raises:
        DataError: a file cannot be decoded; it is named.
    """
    digests: list[str] = []
    tray = _Tray(metrics, 0, len(paths))
    with counting("embedding triplets", len(paths)) as advance:
        for path in paths:
            data = read_bytes(path, PICTURE_LIMITS.max_image_bytes)
            digests.append(hashlib.sha256(data).hexdigest())
            tray.put(None, [decode(data, str(path))])
            advance()
        tray.flush()
    embedded = {name: vectors.queries for name, vectors in tray.vectors().items()}
    return tuple(digests), embedded, tray.resizes()


class _Tray:
    """Collects pixels until a pass is worth it, then embeds them with every metric."""

    def __init__(self, metrics: Mapping[str, Metric], pictures: int, queries: int) -> None:
        self._metrics = metrics
        self._arrays = {
            name: Vectors(np.empty((pictures, metric.dim)), np.empty((queries, metric.dim)))
            for name, metric in metrics.items()
        }
        sides = {metric.input_size for metric in metrics.values() if _resizes_with_ours(metric)}
        self._resizes = {
            side: Resizes(np.empty(queries), np.empty(queries)) for side in sides if side
        }
        self._pictures: list[Pixels] = []
        self._queries: list[Pixels] = []
        self._done = [0, 0]

    def put(self, picture: Pixels | None, copies: Sequence[Pixels]) -> None:
        """Take a picture and its copies; embed when there are enough."""
        if picture is not None:
            self._pictures.append(picture)
        self._queries += copies
        if max(len(self._pictures), len(self._queries)) >= _PICTURES_PER_PASS:
            self.flush()

    def flush(self) -> None:
        """Embed what is left."""
        parts = (
            slice(self._done[0], self._done[0] + len(self._pictures)),
            slice(self._done[1], self._done[1] + len(self._queries)),
        )
        batch = self._pictures + self._queries
        if not batch:
            return
        for name, metric in self._metrics.items():
            embedded = metric.embed(batch)
            self._arrays[name].pictures[parts[0]] = embedded[: len(self._pictures)]
            self._arrays[name].queries[parts[1]] = embedded[len(self._pictures) :]
        for side, resizes in self._resizes.items():
            # Just used by the metrics, so these come from the cache.
            operators = [resize_operator(len(x), x.shape[1], side) for x in self._queries]
            resizes.gains[parts[1]] = [operator.gain for operator in operators]
            resizes.input_errors[parts[1]] = [operator.input_error for operator in operators]
        self._done = [parts[0].stop, parts[1].stop]
        self._pictures, self._queries = [], []

    def vectors(self) -> dict[str, Vectors]:
        """Each metric's embeddings."""
        return self._arrays

    def resizes(self) -> dict[str, Resizes]:
        """The queries' resizes of each metric whose resize is ours."""
        return {
            name: self._resizes[metric.input_size]
            for name, metric in self._metrics.items()
            if _resizes_with_ours(metric) and metric.input_size
        }


def _resizes_with_ours(metric: Metric) -> bool:
    """Whether a radius of this metric may be carried from its input to the upload."""
    return metric.lipschitz_bound is not None and metric.input_size is not None


def _spread(count: int, limit: int | None) -> list[int]:
    """Numbers of at most `limit` of `count` pictures, evenly spread."""
    if limit is None or limit >= count:
        return list(range(count))
    return [number * count // limit for number in range(limit)]
