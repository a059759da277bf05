"""One pass over a collection: each file is planned, embedded once, skipped, or set aside."""

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from index_builder.build.embedding import EmbedderLike, EmbeddingPipeline, Rejected
from index_builder.build.journal import EmbeddedImage, Journal
from index_builder.build.plan import Plan
from index_builder.build.writer import Planned
from index_builder.errors import GalleryIndexError, SourceError
from index_builder.search.gallery import GalleryIndex
from index_builder.sources.base import Problem, Source, SourceItem
from index_builder.store.manifest import Quarantined
from model.cli.progress import Progress
from model.pixels.decode import DecodeLimits
from model.pixels.sidecars import is_sidecar

_MOST_SKIPPED_NAMED = 20


@dataclass
class Counts:
    """Counts of one run, as the manifest lists them."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    embedded: int = 0
    reused: int = 0
    quarantined: int = 0
    skipped: int = 0


@dataclass
class Ingest:
    """Where embeddings come from, and what became of each file.

    Attributes:
        reusable: the served version, if it is by the same model, in the same views.
        views: names of the views that pictures are embedded in.
        max_errors: stop when more files than this are bad; None never stops.
        skipped: the first files that were passed over, by name.
    """

    plan: Plan
    journal: Journal
    reusable: GalleryIndex | None
    views: tuple[str, ...]
    max_errors: int | None
    counts: Counts = field(default_factory=Counts)
    quarantined: list[Quarantined] = field(default_factory=list[Quarantined])
    skipped: list[str] = field(default_factory=list[str])
    _rejected: dict[str, Problem] = field(default_factory=dict[str, Problem])

    def read(
        self, source: Source, embedder: EmbedderLike, limits: DecodeLimits, progress: Progress
    ) -> None:
        """Read the collection through: plan every item and embed what is not known yet."""
        pipeline = EmbeddingPipeline(embedder, limits=limits, views=self.views)
        counter = progress.counter("embedding", source.size, "files")
        with contextlib.closing(pipeline), counter as count:
            for item in source.items():
                self._take(item, pipeline, limits)
                self._keep(pipeline.ready())
                count()
            self._keep(pipeline.rest())

    def embedded(self, content_sha256: str) -> EmbeddedImage:
        """The embedding of an item that was planned.

        Raises:
            GalleryIndexError: another process took it out of the journal.
        """
        image = self._stored(content_sha256)
        if image is None:
            raise GalleryIndexError(
                f"the embedding of content {content_sha256[:16]} was lost from the journal during "
                "the build: run it again"
            )
        return image

    def _take(self, item: SourceItem, pipeline: EmbeddingPipeline, limits: DecodeLimits) -> None:
        """Plan one file of the collection, and have it embedded unless that was done before."""
        if item.problem is not None:
            self._quarantine(item.path, item.problem)
            return
        content = hashlib.sha256(item.data).hexdigest()
        planned = Planned(item.id, item.path, content, len(item.data), item.metadata)
        if content in self._rejected:
            self._set_aside(planned, self._rejected[content])
            return
        if self.plan.holds_content(content) or self._is_stored(content, limits):
            self.counts.reused += 1
        else:
            pipeline.submit(content, item.data)
        self.plan.put(planned)

    def _is_stored(self, content_sha256: str, limits: DecodeLimits) -> bool:
        """Whether these bytes need not be embedded: what is stored of them is still accepted."""
        # The whole record is read: a damaged one must be noticed while the file is at hand.
        image = self._stored(content_sha256)
        return image is not None and (limits.accept_truncated or not image.is_truncated)

    def _stored(self, content_sha256: str) -> EmbeddedImage | None:
        """What the served version or the journal has of these bytes."""
        image = stored_image(self.reusable, content_sha256) if self.reusable else None
        return image or self.journal.get(content_sha256)

    def _keep(self, results: Iterable[EmbeddedImage | Rejected]) -> None:
        """Put embeddings in the journal, and set aside what gave none."""
        images: list[EmbeddedImage] = []
        for result in results:
            if isinstance(result, Rejected):
                self._reject(result)
            else:
                images.append(result)
        if images:
            self.journal.add(images)
            self.counts.embedded += len(images)

    def _reject(self, rejected: Rejected) -> None:
        """Set aside every planned file of a content that gave no vector."""
        self._rejected[rejected.content_sha256] = rejected.problem
        planned = self.plan.by_content(rejected.content_sha256)
        self.counts.reused -= len(planned) - 1
        for item in planned:
            self.plan.remove(item.id)
            self._set_aside(item, rejected.problem)

    def _set_aside(self, item: Planned, problem: Problem) -> None:
        if problem.code != "format" or not is_sidecar(item.path):
            self._quarantine(item.path, problem)
            return
        self.counts.skipped += 1
        if len(self.skipped) < _MOST_SKIPPED_NAMED:
            self.skipped.append(item.path)

    def _quarantine(self, path: str, problem: Problem) -> None:
        self.quarantined.append(Quarantined(path, problem.code, problem.reason))
        self.counts.quarantined += 1
        if self.max_errors is not None and len(self.quarantined) > self.max_errors:
            raise SourceError(
                f"stopped at more than {self.max_errors} bad files; the last is {path!r}: "
                f"{problem.reason}. The index is as it was"
            )


def stored_image(index: GalleryIndex, content_sha256: str) -> EmbeddedImage | None:
    """What a sealed version keeps of a file of these bytes."""
    item = index.items.by_content(content_sha256)
    if item is None:
        return None
    rows = index.rows.of_entries(np.array([item.number]))
    return EmbeddedImage(
        content_sha256=content_sha256,
        vectors=index.vectors[rows].tobytes(),
        views=index.rows.views[rows].tobytes(),
        norms=index.rows.embedding_norms[rows].astype("<f8").tobytes(),
        width=item.width,
        height=item.height,
        format=item.format,
        thumbnail=index.items.thumbnail_by_content(content_sha256) or b"",
    )
