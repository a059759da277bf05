"""From the bytes of many files to unit vectors and thumbnails, on every core.

Pool threads decode, resize to the network's input and draw the thumbnail, so a full-size picture
lives only inside its own task; then they embed batches. What is under way is bounded in number and
in bytes. A pass should run in one thread (torch.set_num_threads(1)): passes side by side cost less
than the threads of one pass waiting for each other.
"""

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from PIL import Image

from index_builder.build.journal import EmbeddedImage
from index_builder.sources.base import Problem
from index_builder.store.items import TRUNCATED
from model.errors import (
    EmptyImageError,
    ImageBytesError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageSizeError,
)
from model.pixels.decode import DecodedImage, DecodeLimits, decode_image
from model.pixels.resize import resize_operator
from model.pixels.views import VIEWS, WHOLE, AnyView, Trimmed, reduce_pixels

# Embedding costs 5 ms of one core, a thumbnail of 96 pixels 0.2 (benchmarks/build_index.py).
THUMBNAIL_SIDE = 96
# Views but the whole are taken of a picture of this many times the network's side: to resize all of
# a photograph for each would take longer than to embed it.
_VIEW_PIXELS = 4
_BATCH = 16
_MAX_THREADS = 8
_PROBLEM_CODES: dict[type[ImageError], str] = {
    EmptyImageError: "empty",
    ImageBytesError: "image_bytes",
    ImageFormatError: "format",
    ImageSizeError: "image_size",
    ImageDecodeError: "damaged",
}


@runtime_checkable
class EmbedderLike(Protocol):
    """What a build needs of an embedder, as `model.embedder.Embedder` has and explains it."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def decode_policy(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def forward_error(self) -> float: ...
    @property
    def output_scales(self) -> Float64[np.ndarray, " D"]: ...
    def embed_pixels(self, x: Float64[np.ndarray, "B 3 S S"], /) -> Float64[np.ndarray, "B D"]: ...


class _Prepared(NamedTuple):
    """An image ready for the network, in all views."""

    inputs: Float64[np.ndarray, "V 3 S S"]
    width: int
    height: int
    format: str
    thumbnail: bytes


@dataclass(frozen=True)
class Rejected:
    """A file that gives no vector, and why."""

    content_sha256: str
    problem: Problem


class _Task(NamedTuple):
    content_sha256: str
    size: int
    future: "Future[_Prepared | Problem]"


class EmbeddingPipeline:
    """Embeds files given one by one; results come in the order given, some calls later."""

    def __init__(
        self,
        embedder: EmbedderLike,
        *,
        limits: DecodeLimits,
        views: Sequence[str] = (WHOLE,),
        threads: int | None = None,
        max_bytes_ahead: int = 64 << 20,
    ) -> None:
        workers = threads or min(_MAX_THREADS, os.cpu_count() or 1)
        self._embedder = embedder
        self._limits = limits
        self._views = [VIEWS[name] for name in views]
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="embed")
        self._tasks: list[_Task] = []
        self._batches: deque[Future[list[EmbeddedImage | Rejected]]] = deque()
        self._max_batches = workers
        self._undecoded: deque[_Task] = deque()
        self._max_bytes_ahead = max_bytes_ahead

    def submit(self, content_sha256: str, data: bytes) -> None:
        size = self._embedder.input_size
        future = self._pool.submit(_prepare, data, self._limits, self._views, size)
        task = _Task(content_sha256, len(data), future)
        self._tasks.append(task)
        self._undecoded.append(task)
        if len(self._tasks) == _BATCH:
            self._start_batch()

    def ready(self) -> Iterator[EmbeddedImage | Rejected]:
        """Results due now: the oldest batch, once enough is under way.

        Bytes are those of files not decoded yet, since a decoded one has let go of them: for their
        sake the oldest file is waited for, and no batch.
        """
        while self._undecoded and (
            self._undecoded[0].future.done()
            or sum(task.size for task in self._undecoded) >= self._max_bytes_ahead
        ):
            wait([self._undecoded.popleft().future])
        while len(self._batches) > self._max_batches:
            yield from self._batches.popleft().result()

    def rest(self) -> Iterator[EmbeddedImage | Rejected]:
        """All results still to come."""
        if self._tasks:
            self._start_batch()
        while self._batches:
            yield from self._batches.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start_batch(self) -> None:
        # The pool begins tasks in the order given: a batch never waits for one that has not begun.
        self._batches.append(self._pool.submit(self._embed, self._tasks))
        self._tasks = []

    def _embed(self, tasks: list[_Task]) -> list[EmbeddedImage | Rejected]:
        """One pass over the images that could be prepared; results in the order of the tasks."""
        outcomes = [task.future.result() for task in tasks]
        inputs = [image.inputs for image in outcomes if isinstance(image, _Prepared)]
        embeddings = self._embedder.embed_pixels(np.concatenate(inputs)) if inputs else np.empty(0)
        of_images = iter(np.split(embeddings, len(inputs)) if inputs else ())
        return [
            self._embedded(task.content_sha256, outcome, next(of_images))
            if isinstance(outcome, _Prepared)
            else Rejected(task.content_sha256, outcome)
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]

    def _embedded(
        self, content_sha256: str, image: _Prepared, embeddings: Float64[np.ndarray, "V D"]
    ) -> EmbeddedImage | Rejected:
        """The vectors of the views that have one, each once; the whole picture must have one."""
        found: dict[bytes, int] = {}
        for view, embedding in enumerate(embeddings):
            vector = unit_vector(embedding, self._embedder.forward_error)
            if not isinstance(vector, Problem):
                found.setdefault(vector, view)
            elif view == 0:
                return Rejected(content_sha256, vector)
        views = list(found.values())
        return EmbeddedImage(
            content_sha256=content_sha256,
            vectors=b"".join(found),
            views=bytes(views),
            norms=np.linalg.norm(embeddings[views], axis=1).astype("<f8").tobytes(),
            width=image.width,
            height=image.height,
            format=image.format,
            thumbnail=image.thumbnail,
        )


def image_problem(error: ImageError) -> Problem:
    """A refused image as a quarantine code and reason."""
    code = next((c for kind, c in _PROBLEM_CODES.items() if isinstance(error, kind)), "image")
    return Problem(code, str(error))


def unit_vector(embedding: Float64[np.ndarray, " D"], forward_error: float) -> bytes | Problem:
    """The embedding's direction as d little-endian float32, or why it has none.

    An embedding no longer than its own error could point anywhere. Zeros are made positive, so
    that vectors of equal value have equal bytes.
    """
    largest = float(np.abs(embedding).max())
    if not np.isfinite(largest):
        return Problem("bad_embedding", "the embedding holds NaN or infinity")
    norm = largest * float(np.linalg.norm(embedding / largest)) if largest > 0.0 else 0.0
    if norm <= forward_error:
        return Problem("zero_embedding", f"the embedding's norm {norm:.3g} is within its error")
    unit = embedding / largest
    return ((unit / np.linalg.norm(unit)).astype("<f4") + np.float32(0.0)).tobytes()


def draw_thumbnail(image: DecodedImage) -> bytes:
    """A JPEG file of at most THUMBNAIL_SIDE pixels a side, from the pixels the network sees."""
    picture = Image.fromarray(image.pixels)
    # A reducing gap of 1 averages whole blocks first: three times cheaper than resampling alone.
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=1.0)
    file = io.BytesIO()
    # JPEG costs half of WebP's quickest method; drawing must stay small beside embedding.
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


def _prepare(
    data: bytes, limits: DecodeLimits, views: Sequence[AnyView], size: int
) -> _Prepared | Problem:
    try:
        image = decode_image(data, limits)
        whole, *others = views
        shown = [whole.of(image.pixels)]
        if others:
            small = reduce_pixels(image.pixels, _VIEW_PIXELS * size)
            # A trim is of the picture as it is, as a query's is.
            shown += [
                view.of(image.pixels if isinstance(view, Trimmed) else small) for view in others
            ]
        inputs = [resize_operator(one.shape[0], one.shape[1], size).apply(one) for one in shown]
    except ImageError as exc:
        return image_problem(exc)
    stored_format = image.format + TRUNCATED * image.is_truncated
    return _Prepared(
        np.stack(inputs), image.width, image.height, stored_format, draw_thumbnail(image)
    )
