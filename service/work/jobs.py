"""What the worker threads are given: images, options, and where the time went so far."""

from dataclasses import dataclass

from service.decoding.query_image import QueryImage
from service.observability.stopwatch import Stopwatch
from service.schemas.search import SearchOptions
from service.schemas.similarity import SimilarityOptions


@dataclass(frozen=True)
class BatchKey:
    """What searches must have in common to be one search of several queries."""

    index: str
    k: int
    max_distance: float | None
    require_exact: bool
    operating_point: str | None


def batch_key(options: SearchOptions, k: int) -> BatchKey:
    return BatchKey(
        options.index, k, options.max_distance, options.require_exact, options.operating_point
    )


@dataclass(frozen=True, eq=False)
class SearchJob:
    """The nearest entries of one image."""

    images: tuple[QueryImage, ...]
    options: SearchOptions
    key: BatchKey
    watch: Stopwatch


@dataclass(frozen=True, eq=False)
class SimilarityJob:
    """The distance of two images."""

    images: tuple[QueryImage, ...]
    options: SimilarityOptions
    watch: Stopwatch


@dataclass(frozen=True, eq=False)
class EmbedJob:
    """The raw embedding of one image."""

    images: tuple[QueryImage, ...]
    watch: Stopwatch


Job = SearchJob | SimilarityJob | EmbedJob
