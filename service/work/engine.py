"""The work behind each route: a batch of jobs, one pass through the network, an answer each.

Plain blocking functions that run in a worker thread; nothing above knows how many images share a
pass, and nothing below knows of requests.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from index_builder.filters.evaluate import FilterCache
from index_builder.search.certified import (
    Answer,
    Query,
    SearchableIndex,
    SearchQuestion,
    answer_queries,
    search_depths,
    whole_of,
)
from index_builder.search.filtered import FilteredIndex, Searched
from index_builder.search.gallery import GalleryIndex
from model.certificate.match import MatchRule
from model.certificate.pairs import Candidates
from model.certificate.similarity import certify_pair
from model.embedder import Embedder
from model.errors import RetrievalError
from service.decoding.query_image import QueryImage
from service.observability.metrics import Metrics
from service.schemas.common import UNIT, ImageInfo, SeenImage, Stage
from service.schemas.embed import EmbedAnswer, EmbedTimings
from service.schemas.indexes import OperatingPoint
from service.schemas.search import SearchAnswer, SearchTimings
from service.schemas.similarity import Interval, PairRadius, PairTimings, SimilarityAnswer
from service.work.answers import (
    build_audit,
    build_certificate,
    build_index,
    build_model,
    build_query,
    build_results,
    build_trimmed,
    find_point,
    image_fields,
    input_field,
    wire_radius,
)
from service.work.batcher import Task
from service.work.challenge import challenge_steps
from service.work.encoding import encode
from service.work.index_registry import IndexRegistry
from service.work.item_query import among_others, item_query, without_pixels
from service.work.jobs import (
    BatchKey,
    ChallengeJob,
    EmbedJob,
    Job,
    LongJob,
    SearchJob,
    SimilarityJob,
    ToleranceJob,
)
from service.work.tolerance import tolerance_steps

JobTask = Task[Job, bytes]


class _Search(NamedTuple):
    """One search of a batch: the task, its job, its query, what was found for each part of that."""

    task: JobTask
    job: SearchJob
    query: QueryImage
    found: dict[QueryImage, Answer]


@dataclass(frozen=True)
class Engine:
    """Answers batches of jobs with one model and the registry's indexes; safe for many threads."""

    embedder: Embedder
    registry: IndexRegistry
    metrics: Metrics
    filters: FilterCache

    def answer(self, tasks: Sequence[JobTask]) -> list[JobTask]:
        """Answer each task as JSON, or by the error that is its own, as soon as it is ready.

        Searches that ask the same of the same index become one search of several queries.

        Returns:
            The tasks to be put back, which come alone, when it is their turn: searches that need a
            look at the whole of a large gallery, which may take as long as a batch of others, and
            work of many steps.

        Raises:
            EmbeddingError: the embedding of one of the images is not usable.
        """
        if not tasks[0].is_postponed:
            self.metrics.batch_size.observe(len(tasks))
        searches: defaultdict[BatchKey, list[tuple[JobTask, SearchJob]]] = defaultdict(list)
        again: list[JobTask] = []
        self._embed([task.job for task in tasks])
        for task in tasks:
            match task.job:
                case SearchJob() as job:
                    searches[job.key].append((task, job))
                case SimilarityJob() as job:
                    task.answer(self._compare(job, *job.images))
                case EmbedJob() as job:
                    task.answer(self._describe(job, *job.images))
                case ToleranceJob() | ChallengeJob() as job:
                    again += self._go_on(task, job)
        return again + [t for key, group in searches.items() for t in self._search(key, group)]

    def _embed(self, jobs: Sequence[Job]) -> None:
        """Embed the images of every job that no cache knew, in one call."""
        for job in jobs:
            job.watch.lap("queue")
            job.watch.shared_by = max(job.watch.shared_by, len(jobs))
        parts = [part for job in jobs for image in job.images for part in image.parts]
        images = [image for image in parts if image.embedding is None]
        inputs = [image.input for image in images if image.input is not None]
        if inputs:
            for image, embedding in zip(images, self.embedder.embed_inputs(inputs), strict=True):
                image.embedding = embedding
        for job in jobs:
            job.watch.lap("embed")

    def _search(self, key: BatchKey, asking: Sequence[tuple[JobTask, SearchJob]]) -> list[JobTask]:
        """Answer searches, all from one version of the index; gives those to be put back."""
        open_searches: dict[int, _Search] = {}
        try:
            with self.registry.lease(key.index, key.version) as index:
                item = None if key.item is None else index.items.by_id(key.item)
                for task, job in asking:
                    query = job.images[0] if item is None else item_query(index, item)
                    open_searches[len(open_searches)] = _Search(task, job, query, {})
                group = list(open_searches.values())
                asked = [
                    (place, part)
                    for place, search in open_searches.items()
                    for part in search.query.parts
                ]
                rule, point = find_point(index, key.operating_point)
                searched = self._searched(key, index)
                gallery: SearchableIndex = TimedIndex(searched, open_searches)
                question = self._question(key, rule, searched)
                if item is not None and not key.include_self:
                    gallery, question = among_others(item.number, gallery, question)
                *shallow, whole = search_depths(gallery, key.k)
                depths = shallow or [whole]
                if any(search.task.is_postponed for search in group):
                    # Of two parts one may have been answered: it is again, by the same search.
                    depths = [whole] if len(asked) == 1 else [*shallow, whole]
                answers = answer_queries(
                    gallery,
                    [
                        Query(part.embedded, open_searches[place].task.check_deadline)
                        for place, part in asked
                    ],
                    question,
                    depths,
                )
                for number, answer in answers:
                    place, part = asked[number]
                    search = group[place]
                    if isinstance(answer, RetrievalError):
                        search.task.answer(answer)
                    else:
                        search.found[part] = answer
                        if len(search.found) == len(search.query.parts):
                            search.task.answer(self._search_answer(search, index, searched, point))
                    if search.task.is_answered:
                        open_searches.pop(place, None)
        except RetrievalError as error:
            for task, _ in asking:  # Those that have an answer keep it.
                task.answer(error)
            return []
        return [search.task for search in open_searches.values()]

    def _searched(self, key: BatchKey, index: GalleryIndex) -> Searched:
        """The index, or the part of it that a filter leaves."""
        return index if key.filter is None else FilteredIndex.of(index, key.filter, self.filters)

    def _question(
        self, key: BatchKey, rule: MatchRule | None, searched: Searched
    ) -> SearchQuestion:
        return SearchQuestion(
            lipschitz_bound=self.embedder.lipschitz_bound,
            output_scales=self.embedder.output_scales,
            k=key.k,
            max_distance=key.max_distance,
            require_exact=key.require_exact,
            rule=rule,
            whole=whole_of(searched),
        )

    def _go_on(self, task: JobTask, job: LongJob) -> list[JobTask]:
        """One step of long work; gives the task to be put back, unless it was the last."""
        steps = job.steps or self._steps(job, task.check_deadline)
        job.steps = None  # Whatever ends the work also ends its lease of the index.
        try:
            answer = next(steps)
        except RetrievalError as error:
            task.answer(error)
            return []
        if answer is None:
            job.steps = steps
            return [task]
        task.answer(answer)
        return []

    def _steps(self, job: LongJob, check_deadline: Callable[[], None]) -> Iterator[bytes | None]:
        """All of it, by one version of the index."""
        with self.registry.lease(job.key.index) as index:
            rule, point = find_point(index, job.key.operating_point)
            searched = self._searched(job.key, index)
            question = self._question(job.key, rule, searched)
            if isinstance(job, ChallengeJob):
                steps = challenge_steps(
                    job, searched, self.embedder, question, check_deadline=check_deadline
                )
            else:
                steps = tolerance_steps(
                    job,
                    searched,
                    self.embedder,
                    question,
                    point=point,
                    check_deadline=check_deadline,
                )
            yield from steps

    def _search_answer(
        self,
        search: _Search,
        index: GalleryIndex,
        searched: Searched,
        point: OperatingPoint | None,
    ) -> bytes:
        job, query, item = search.job, search.query, search.job.key.item
        answer = search.found[query] if item is None else without_pixels(search.found[query])
        results = build_results(answer, searched, query, job.options)
        self.metrics.observe_results(index.name, results)
        job.watch.lap("certify")
        extra: dict[str, Any] = {}
        if job.options.trim:
            crop = search.found.get(query.crop) if query.crop is not None else None
            extra["trimmed"] = build_trimmed(
                query, crop, searched, job.options, self.embedder.claim
            )
        if job.options.include_audit:
            pixels = query.pixels_sha256 or ""
            extra["audit"] = build_audit(job.options, job.key.k, pixels, self.embedder, index)
        whole = SearchAnswer(
            query=build_query(query, job.options, item),
            index=build_index(searched),
            model=build_model(self.embedder, query.embedded.forward_error),
            operating_point=point,
            results=results,
            certificate=build_certificate(
                answer, searched, "item" if item else self.embedder.claim
            ),
            timings_ms=SearchTimings(**job.watch.timings_ms()),
            **extra,
        )
        return encode(whole)

    def _compare(self, job: SimilarityJob, a: QueryImage, b: QueryImage) -> bytes | Exception:
        """The distance of two images, its interval under a budget, the radius of the verdict."""
        try:
            pair = certify_pair(
                a.embedded.vector,
                b.embedded.vector,
                lipschitz_bound=self.embedder.lipschitz_bound,
                gain_a=a.embedded.gain,
                gain_b=b.embedded.gain,
                forward_error_a=a.embedded.forward_error,
                forward_error_b=b.embedded.forward_error,
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
        error = max(a.embedded.forward_error, b.embedded.forward_error)
        answer = SimilarityAnswer(
            distance=pair.distance,
            similarity=pair.similarity,
            interval=interval,
            match=pair.match,
            certified_radius=radius,
            image_a=ImageInfo.model_validate(image_fields(a)),
            image_b=ImageInfo.model_validate(image_fields(b)),
            model=build_model(self.embedder, error),
            unit=UNIT,
            timings_ms=PairTimings(**job.watch.timings_ms()),
        )
        return encode(answer)

    def _describe(self, job: EmbedJob, image: QueryImage) -> bytes:
        answer = EmbedAnswer(
            vector=image.embedded.vector.tolist(),
            norm=image.norm,
            fingerprint=self.embedder.fingerprint,
            image=SeenImage.model_validate(
                {**image_fields(image), **input_field(image, job.options)}
            ),
            model=build_model(self.embedder, image.embedded.forward_error),
            timings_ms=EmbedTimings(**job.watch.timings_ms()),
        )
        return encode(answer)


class TimedIndex:
    """An index whose searches are booked, to those that are open, apart from the certificates."""

    def __init__(self, index: SearchableIndex, searches: Mapping[int, _Search]) -> None:
        self._index = index
        self._searches = searches

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        self._lap("certify")
        found = self._index.search(queries, m)
        self._lap("search")
        return found

    def everything(self) -> Candidates:
        self._lap("certify")
        found = self._index.everything()
        self._lap("search")
        return found

    def of_items(self, items: Int64[np.ndarray, " I"]) -> Candidates:
        return self._index.of_items(items)

    @property
    def size(self) -> int:
        return self._index.size

    @property
    def vector_count(self) -> int:
        return self._index.vector_count

    @property
    def most_views(self) -> int:
        return self._index.most_views

    def _lap(self, stage: Stage) -> None:
        for search in self._searches.values():
            search.job.watch.lap(stage)
