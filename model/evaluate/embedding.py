"""One pass over the data for all metrics: pictures are read, edited and embedded once."""

import hashlib
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from model.certificate.bounds import product_bound
from model.certificate.rounding import round_up
from model.cli.progress import Advance
from model.data.edits import query_kinds, query_of
from model.data.pictures import Picture, PictureSet, evenly
from model.data.triplets import Triplet, load_triplet_pixels
from model.errors import DataError, EvaluationError
from model.evaluate.radii import Proof
from model.metrics.metric import Metric
from model.pixels.resize import resize_operator
from model.pixels.views import VIEWS

_PIXELS_PER_PASS = 16
_READERS = min(8, os.cpu_count() or 1)
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")
Pixels = UInt8[np.ndarray, "_H _W 3"]
Counting = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar, with its text and how much there is; calling what it gives counts."""


@contextmanager
def uncounted(_text: str, _total: int) -> Generator[Advance]:
    """Shows nothing."""
    yield lambda: None


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
        pictures: raw embeddings, (R, D), R a multiple of the number of pictures.
        queries: those of the copies, (Q, D).
        proof: what is proved of the metric; None where nothing is.
        gains: l2 operator norms of the resizes of the queries, rounded up, (Q,); None where the
            metric's resize is not ours or nothing is proved.
    """

    pictures: Float64[np.ndarray, "R D"]
    queries: Float64[np.ndarray, "Q D"]
    proof: Proof | None = None
    gains: Float64[np.ndarray, " Q"] | None = None


@dataclass(frozen=True, eq=False)
class EmbeddedSet:
    """A set of pictures, edited copies of them, and every metric's embeddings of both.

    Attributes:
        facts: of each picture.
        originals: number of the picture that each copy was made of, (Q,).
        edits: how.
        metrics: embeddings, by the metric's name.
        views: rows that each picture has there, side by side, the picture as it is first.
    """

    facts: Sequence[Facts]
    originals: Int64[np.ndarray, " Q"]
    edits: Sequence[str]
    metrics: Mapping[str, Embedded]
    views: int = 1

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
    copies: int = 2,
    views: Sequence[str] = ("whole",),
) -> EmbeddedSet:
    """Read a set once: its pictures, edited copies of each, and every metric's embeddings.

    The seed is of the edits' strengths; kinds depend on a picture's place only. With a limit so
    many pictures are taken, evenly spread. Views are names of `model.pixels.views`.

    Raises:
        EvaluationError: there are no pictures.
        DataError: a picture cannot be read; the message names its file.
    """
    places = evenly(len(pictures), limit)
    if not places:
        raise EvaluationError(f"{pictures.name} holds no pictures")

    edits = [kind for number in range(len(places)) for kind in query_kinds(number, copies)]

    def read(number: int) -> tuple[Facts, list[Pixels]]:
        picture = pictures[places[number]]
        pixels, kinds = picture.pixels(), query_kinds(number, copies)
        edited = [query_of(pixels, kind, seed=seed, number=number) for kind in kinds]
        return _facts_of(picture), [*(VIEWS[name].of(pixels) for name in views), *edited]

    with counting(f"embedding {pictures.name}", len(places)) as advance:
        each = len(views), copies
        facts, embedded = _embed_all(read, len(places), metrics, advance, each)
    originals = np.repeat(np.arange(len(places)), copies)
    return EmbeddedSet(facts, originals, edits, embedded, len(views))


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
    input_errors = dict.fromkeys(metrics, 0.0)
    kept: list[T] = []
    for part in _read_ahead(read, count, max(1, _PIXELS_PER_PASS // max(each))):
        done, rows = len(kept), slice(len(kept) * queries, (len(kept) + len(part)) * queries)
        firsts = [pixels for _, them in part for pixels in them[:pictures]]
        copies = [pixels for _, them in part for pixels in them[pictures:]]
        shapes = [pixels.shape for pixels in copies]
        for name, metric in metrics.items():
            vectors, mine = metric.embed(firsts + copies), out[name]
            mine.pictures[done * pictures :][: len(firsts)] = vectors[: len(firsts)]
            mine.queries[rows] = vectors[len(firsts) :]
            if mine.gains is not None and metric.input_size is not None:
                # Just used by the metric, so they come from the cache.
                side = metric.input_size
                resizes = [resize_operator(height, width, side) for height, width, _ in shapes]
                mine.gains[rows] = [resize.gain for resize in resizes]
                errors = [input_errors[name], *(resize.input_error for resize in resizes)]
                input_errors[name] = max(errors)
        for known, _ in part:
            kept.append(known)
            advance()
    return kept, {name: _with_input_error(one, input_errors[name]) for name, one in out.items()}


def _with_input_error(embedded: Embedded, error: float) -> Embedded:
    """The same, proved for inputs that are off by so much: each radius pays for the worst."""
    proof = embedded.proof
    if proof is None or error == 0.0:
        return embedded
    whole = round_up(proof.forward_error + product_bound(proof.lipschitz_bound, error))
    return replace(embedded, proof=replace(proof, forward_error=whole))


def _room_for(metric: Metric, count: int, each: tuple[int, int]) -> Embedded:
    pictures, queries = (np.empty((count * of_one, metric.dim)) for of_one in each)
    if metric.lipschitz_bound is None:
        return Embedded(pictures, queries)
    proof = Proof(metric.lipschitz_bound, metric.forward_error, metric.output_scales)
    gains = None if metric.input_size is None else np.empty(len(queries))
    return Embedded(pictures, queries, proof, gains)


def _read_ahead(read: Callable[[int], T], count: int, size: int) -> Iterator[list[T]]:
    """What `read` gives for each number below count, `size` at a time, the next ones under way."""
    with ThreadPoolExecutor(_READERS) as pool:
        ahead = [pool.submit(read, number) for number in range(min(size, count))]
        for start in range(size, count + size, size):
            part = ahead
            ahead = [pool.submit(read, n) for n in range(start, min(start + size, count))]
            yield [future.result() for future in part]
