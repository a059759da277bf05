"""The work behind each route: a batch of jobs, one pass through the network, an answer each.

Plain blocking functions that run in a worker thread; nothing above knows how many images share a
pass, and nothing below knows of requests.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from index_builder.search.certified import Answer, certified_search
from index_builder.search.gallery import GalleryIndex
from model.certificate.search import Candidates
from model.certificate.similarity import certify_pair
from model.embedder import Embedder
from model.errors import RetrievalError
from service.decoding.query_image import QueryImage
from service.observability.metrics import Metrics
from service.observability.stopwatch import Stopwatch
from service.schemas.audit import Audit
from service.schemas.embed import EmbedAnswer, EmbedTimings
from service.schemas.indexes import OperatingPoint
from service.schemas.parts import UNIT, ImageInfo
from service.schemas.search import SearchAnswer, SearchTimings
from service.schemas.similarity import Interval, PairRadius, PairTimings, SimilarityAnswer
from service.work.answers import (
    Embedded,
    describe_audit,
    describe_certificate,
    describe_index,
    describe_model,
    describe_query,
    describe_results,
    wire_radius,
)
from service.work.encoding import encode
from service.work.index_registry import Shelf
from service.work.jobs import EmbedJob, Job, Question, SearchJob, SimilarityJob
from service.work.operating_points import find_point


class _Search(NamedTuple):
    """One search of a batch: its place there, and its query."""

    place: int
    job: SearchJob
    query: Embedded


@dataclass(frozen=True)
class Engine:
    """Answers batches of jobs with one model and the shelf's indexes; safe for many threads."""

    embedder: Embedder
    shelf: Shelf
    metrics: Metrics

    def answer(self, jobs: Sequence[Job]) -> list[bytes | Exception]:
        """The answer of each job as JSON, or the error that is its own.

        Searches that ask the same of the same index become one search of several queries.

        Raises:
            EmbeddingError: the embedding of one of the images is not usable.
        """
        embedded = self._embed(jobs)
        answers: dict[int, bytes | Exception] = {}
        searches: defaultdict[Question, list[_Search]] = defaultdict(list)
        for place, (job, images) in enumerate(zip(jobs, embedded, strict=True)):
            match job:
                case SearchJob():
                    searches[job.question].append(_Search(place, job, images[0]))
                case SimilarityJob():
                    answers[place] = self._compare(job, *images)
                case EmbedJob():
                    answers[place] = self._describe(job, *images)
        for question, group in searches.items():
            answers |= self._search(question, group)
        return [answers[place] for place in range(len(jobs))]

    def check(self, question: Question) -> None:
        """Refuse a search that nothing could answer, before its image is looked at.

        Raises:
            IndexNotFoundError: there is no such index.
            IndexUnavailableError: there is one, and no version of it could be opened.
            UnknownOperatingPointError: its version has no operating point of that name.
        """
        with self.shelf.lease(question.index) as index:
            find_point(index, question.operating_point)

    def _embed(self, jobs: Sequence[Job]) -> list[list[Embedded]]:
        """Every image of every job: in one call, those that no cache knew."""
        self.metrics.observe_batch(len(jobs))
        for job in jobs:
            job.watch.lap("queue")
            job.watch.shared_by = len(jobs)
        images = [image for job in jobs for image in job.images if image.embedding is None]
        inputs = [image.input for image in images if image.input is not None]
        if inputs:
            for image, embedding in zip(images, self.embedder.embed_inputs(inputs), strict=True):
                image.embedding = embedding
        for job in jobs:
            job.watch.lap("embed")
        return [[_embedded(image) for image in job.images] for job in jobs]

    def _search(self, question: Question, group: Sequence[_Search]) -> dict[int, bytes | Exception]:
        """Answers by place, all of one version of the index."""
        watches = [search.job.watch for search in group]
        try:
            with self.shelf.lease(question.index) as index:
                rule, point = find_point(index, question.operating_point)
                answers = certified_search(
                    TimedIndex(index, watches),
                    [search.query.embedding for search in group],
                    lipschitz_bound=self.embedder.lipschitz_bound,
                    k=question.k,
                    max_distance=question.max_distance,
                    require_exact=question.require_exact,
                    rule=rule,
                )
                return {
                    search.place: encode(self._search_answer(search, answer, index, point))
                    for search, answer in zip(group, answers, strict=True)
                }
        except RetrievalError as error:
            return {search.place: error for search in group}

    def _search_answer(
        self,
        search: _Search,
        answer: Answer,
        index: GalleryIndex,
        point: OperatingPoint | None,
    ) -> SearchAnswer:
        job, query = search.job, search.query
        results = describe_results(answer, index, query, job.options)
        self.metrics.observe_results(index.name, results)
        job.watch.lap("certify")
        audit: dict[str, Audit] = {}
        if job.options.include_audit:
            pixels = job.image.pixels_sha256 or ""
            audit["audit"] = describe_audit(
                job.options, job.question.k, pixels, self.embedder, index
            )
        return SearchAnswer(
            query=describe_query(query, include_vector=job.options.include_vector),
            index=describe_index(index),
            model=describe_model(self.embedder, query.embedding.forward_error),
            operating_point=point,
            results=results,
            certificate=describe_certificate(answer, self.embedder.claim),
            timings_ms=SearchTimings(**job.watch.timings_ms()),
            **audit,
        )

    def _compare(self, job: SimilarityJob, a: Embedded, b: Embedded) -> bytes | Exception:
        """The distance of two images, its interval under a budget, the radius of the verdict."""
        try:
            pair = certify_pair(
                a.embedding.vector,
                b.embedding.vector,
                lipschitz_bound=self.embedder.lipschitz_bound,
                gain_a=a.embedding.gain,
                gain_b=b.embedding.gain,
                forward_error_a=a.embedding.forward_error,
                forward_error_b=b.embedding.forward_error,
                epsilon=job.options.epsilon,
                threshold=job.options.threshold,
            )
        except RetrievalError as error:
            return error
        job.watch.lap("certify")
        interval = radius = None
        if pair.interval_a is not None and pair.interval_both is not None:
            interval = Interval(a=pair.interval_a, both=pair.interval_both)
        if pair.match is not None:
            radius = PairRadius(
                a=wire_radius(pair.radius_a),
                b=wire_radius(pair.radius_b),
                both=wire_radius(pair.radius_both),
            )
        error = max(a.embedding.forward_error, b.embedding.forward_error)
        answer = SimilarityAnswer(
            distance=pair.distance,
            similarity=pair.similarity,
            interval=interval,
            match=pair.match,
            certified_radius=radius,
            image_a=ImageInfo.model_validate(a.info()),
            image_b=ImageInfo.model_validate(b.info()),
            model=describe_model(self.embedder, error),
            unit=UNIT,
            timings_ms=PairTimings(**job.watch.timings_ms()),
        )
        return encode(answer)

    def _describe(self, job: EmbedJob, embedded: Embedded) -> bytes:
        """The raw embedding of one image."""
        answer = EmbedAnswer(
            vector=embedded.embedding.vector.tolist(),
            norm=embedded.norm,
            fingerprint=self.embedder.fingerprint,
            image=ImageInfo.model_validate(embedded.info()),
            model=describe_model(self.embedder, embedded.embedding.forward_error),
            timings_ms=EmbedTimings(**job.watch.timings_ms()),
        )
        return encode(answer)


def _embedded(image: QueryImage) -> Embedded:
    assert image.embedding is not None  # noqa: S101 - found in a cache, or computed just now.
    return Embedded(image, image.embedding)


class TimedIndex:
    """An index whose searches are booked apart from the certificates between them."""

    def __init__(self, index: GalleryIndex, watches: Sequence[Stopwatch]) -> None:
        self._index = index
        self._watches = watches

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """As `GalleryIndex.search`."""
        self._lap("certify")
        found = self._index.search(queries, m)
        self._lap("search")
        return found

    def everything(self) -> Candidates:
        """As `GalleryIndex.everything`."""
        self._lap("certify")
        found = self._index.everything()
        self._lap("search")
        return found

    @property
    def size(self) -> int:
        """Entries of the index."""
        return self._index.size

    def _lap(self, stage: str) -> None:
        for watch in self._watches:
            watch.lap(stage)
