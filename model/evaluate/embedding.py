"""One pass over the data for all metrics: pictures are read, edited and embedded once."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from model.cli.progress import Advance
from model.data.edits import query_kinds, query_of
from model.data.pictures import Picture, PictureSet, evenly
from model.data.triplets import Triplet, load_triplet_pixels
from model.errors import DataError, EvaluationError
from model.evaluate.radii import Proof, Resizes
from model.metrics.metric import Metric
from model.pixels.resize import resize_operator

_PIXELS_PER_PASS = 16
_READERS = min(8, os.cpu_count() or 1)
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")
Pixels = UInt8[np.ndarray, "_H _W 3"]
Counting = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar, with its text and how much there is; calling what it gives counts."""


class Facts(NamedTuple):
    """What is known of a picture beside its pixels; "" where it is not known.

    Attributes:
        digest: sha256 of the file, in hex.
        origin: sha256 of the file that it was made of, by its data; else its own.
        label: its class.
        source: the package or folder that it comes from, by its data.
        kind: photograph or clip art, say, by its data.
    """

    digest: str
    origin: str = ""
    label: str = ""
    source: str = ""
    kind: str = ""


@dataclass(frozen=True, eq=False)
class Embedded:
    """What one metric makes of a set of pictures and of their edited copies.

    Attributes:
        pictures: raw embeddings, (N, D).
        queries: those of the copies, (Q, D).
        proof: what is proved of the metric; None where nothing is.
        resizes: of the queries; None where the metric's resize is not ours or nothing is proved.
    """

    pictures: Float64[np.ndarray, "N D"]
    queries: Float64[np.ndarray, "Q D"]
    proof: Proof | None = None
    resizes: Resizes | None = None


@dataclass(frozen=True, eq=False)
class EmbeddedSet:
    """A set of pictures, edited copies of them, and every metric's embeddings of both.

    Attributes:
        facts: of each picture.
        originals: number of the picture that each copy was made of, (Q,).
        edits: how.
        metrics: embeddings, by the metric's name.
    """

    facts: Sequence[Facts]
    originals: Int64[np.ndarray, " Q"]
    edits: Sequence[str]
    metrics: Mapping[str, Embedded]

    @property
    def origins(self) -> list[str]:
        """sha256 of the file that each picture was made of."""
        return [facts.origin for facts in self.facts]

    def divisions(self) -> dict[str, Sequence[str]]:
        """How copies are divided in tables: by edit, by their picture's source, by its kind."""
        of = [self.facts[int(number)] for number in self.originals]
        return {
            "edit": self.edits,
            "source": [facts.source for facts in of],
            "kind": [facts.kind for facts in of],
        }


def embed_pictures(
    pictures: PictureSet,
    metrics: Mapping[str, Metric],
    counting: Counting,
    *,
    seed: int,
    limit: int | None = None,
    with_queries: bool = True,
) -> EmbeddedSet:
    """Read a set once: its pictures, two edited copies of each, and every metric's embeddings.

    The seed is of the edits' strengths; kinds depend on a picture's place only. With a limit so
    many pictures are taken, evenly spread; without queries there are no copies.

    Raises:
        EvaluationError: there are no pictures.
        DataError: a picture cannot be read; the message names its file.
    """
    places = evenly(len(pictures), limit)
    if not places:
        raise EvaluationError(f"{pictures.name} holds no pictures")

    each = 2 if with_queries else 0
    edits = [kind for number in range(len(places)) for kind in query_kinds(number)[:each]]

    def read(number: int) -> tuple[Facts, list[Pixels]]:
        picture = pictures[places[number]]
        pixels, kinds = picture.pixels(), query_kinds(number)[:each]
        copies = [query_of(pixels, kind, seed=seed, number=number) for kind in kinds]
        return _facts_of(picture), [pixels, *copies]

    with counting(f"embedding {pictures.name}", len(places)) as advance:
        facts, embedded = _embed_all(read, len(places), metrics, advance, (1, each))
    return EmbeddedSet(facts, np.repeat(np.arange(len(places)), each), edits, embedded)


def embed_triplets(
    triplets: Sequence[Triplet], metrics: Mapping[str, Metric], counting: Counting
) -> Mapping[str, Embedded]:
    """Every metric's embeddings of triplets: their references are the queries.

    Left and right stand by turns among the pictures.

    Raises:
        DataError: a file cannot be decoded; it is named.
    """

    def read(number: int) -> tuple[None, list[Pixels]]:
        reference, left, right = load_triplet_pixels(triplets[number])
        return None, [left, right, reference]

    with counting("embedding triplets", len(triplets)) as advance:
        return _embed_all(read, len(triplets), metrics, advance, (2, 1))[1]


def _facts_of(picture: Picture) -> Facts:
    """What the data says of a picture.

    Raises:
        DataError: what it says it was made of is no sha256.
    """
    digest = hashlib.sha256(picture.data).hexdigest()
    origin, source, kind = (picture.fields.get(name) for name in ("sha256", "source", "kind"))
    origin = digest if origin is None else str(origin).lower()
    if not _SHA256.fullmatch(origin):
        raise DataError(f"{picture.where}: its sha256 must be 64 hex digits, got {origin!a:.80}")
    # After a colon a source says which file of it: every picture would be a group of its own.
    package = str(source or "").partition(":")[0]
    return Facts(digest, origin, picture.label or "", package, str(kind or ""))


def _embed_all(
    read: Callable[[int], tuple[T, list[Pixels]]],
    count: int,
    metrics: Mapping[str, Metric],
    advance: Advance,
    each: tuple[int, int],
) -> tuple[list[T], dict[str, Embedded]]:
    """Embed the pixels that `read` gives for each number below count, and keep what else it gives.

    `read` is called in threads; its pixels are those of pictures first, then those of queries, as
    many as `each` says. `advance` is called for each thing read.
    """
    pictures, queries = each
    out = {name: _room_for(metric, count, each) for name, metric in metrics.items()}
    kept: list[T] = []
    for part in _read_ahead(read, count, _PIXELS_PER_PASS // max(each)):
        done, rows = len(kept), slice(len(kept) * queries, (len(kept) + len(part)) * queries)
        firsts = [pixels for _, them in part for pixels in them[:pictures]]
        copies = [pixels for _, them in part for pixels in them[pictures:]]
        shapes = [pixels.shape for pixels in copies]
        for name, metric in metrics.items():
            vectors, mine = metric.embed(firsts + copies), out[name]
            mine.pictures[done * pictures :][: len(firsts)] = vectors[: len(firsts)]
            mine.queries[rows] = vectors[len(firsts) :]
            if mine.resizes is not None and metric.input_size is not None:
                for row, (height, width, _) in zip(mine.resizes[rows], shapes, strict=True):
                    # Just used by the metric, so it comes from the cache.
                    one = resize_operator(height, width, metric.input_size)
                    row[:] = one.gain, one.input_error
        for known, _ in part:
            kept.append(known)
            advance()
    return kept, out


def _room_for(metric: Metric, count: int, each: tuple[int, int]) -> Embedded:
    pictures, queries = (np.empty((count * of_one, metric.dim)) for of_one in each)
    if metric.lipschitz_bound is None:
        return Embedded(pictures, queries)
    resizes = None if metric.input_size is None else np.empty((len(queries), 2))
    return Embedded(pictures, queries, Proof(metric.lipschitz_bound, metric.forward_error), resizes)


def _read_ahead(read: Callable[[int], T], count: int, size: int) -> Iterator[list[T]]:
    """What `read` gives for each number below count, `size` at a time, the next ones under way."""
    with ThreadPoolExecutor(_READERS) as pool:
        ahead = [pool.submit(read, number) for number in range(min(size, count))]
        for start in range(size, count + size, size):
            part = ahead
            ahead = [pool.submit(read, n) for n in range(start, min(start + size, count))]
            yield [future.result() for future in part]
