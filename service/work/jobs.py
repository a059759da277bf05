"""What the worker threads are given: images, options, and where the time went so far."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from index_builder.filters.language import Filter, parse_filter
from index_builder.search.gallery import GalleryIndex
from service.decoding.query_image import QueryImage
from service.observability.stopwatch import Stopwatch
from service.schemas.challenge import ChallengeOptions
from service.schemas.embed import EmbedOptions
from service.schemas.search import AskedOptions, SearchOptions, SingleSearchOptions
from service.schemas.similarity import SimilarityOptions
from service.schemas.tolerance import ToleranceOptions


@dataclass(frozen=True)
class BatchKey:
    """What searches must have in common to be one search of several queries.

    `item` is the query of all of them, where it is one of the index. `version` is what answers, of
    searches that belong together; None: the current one.
    """

    index: str
    k: int
    max_distance: float | None
    require_exact: bool
    operating_point: str | None
    filter: Filter | None
    item: str | None = None
    include_self: bool = False
    version: GalleryIndex | None = None


def batch_key(options: AskedOptions, k: int) -> BatchKey:
    is_exact = isinstance(options, SearchOptions) and options.require_exact
    wanted = None if options.filter is None else parse_filter(options.filter)
    key = BatchKey(
        options.index, k, options.max_distance, is_exact, options.operating_point, wanted
    )
    if isinstance(options, SingleSearchOptions):
        key = replace(key, item=options.item, include_self=options.include_self)
    return key


@dataclass(frozen=True, eq=False)
class SearchJob:
    """The nearest entries of one image; of none, where the key names an item."""

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
    options: EmbedOptions
    watch: Stopwatch


@dataclass(eq=False)
class ToleranceJob:
    """How far edits of one image leave a statement about its answer alone.

    Attributes:
        cpu_s: CPU time that it may take.
        patience_s: after which it is answered as far as it has come, however little CPU it got.
        steps: what is left of it; None until it has begun.
    """

    images: tuple[QueryImage, ...]
    options: ToleranceOptions
    key: BatchKey
    cpu_s: float
    patience_s: float
    watch: Stopwatch
    steps: Iterator[bytes | None] | None = None


@dataclass(eq=False)
class ChallengeJob:
    """An attack on one result of one image.

    Attributes:
        steps: what is left of it; None until it has begun.
    """

    images: tuple[QueryImage, ...]
    options: ChallengeOptions
    key: BatchKey
    watch: Stopwatch
    steps: Iterator[bytes | None] | None = None


LongJob = ToleranceJob | ChallengeJob
"""Jobs of many steps, between which a worker does other work."""

Job = SearchJob | SimilarityJob | EmbedJob | LongJob
