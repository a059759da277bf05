"""The work behind each route, in plain blocking functions that run in a worker thread.

This is the seam for batching: `Engine` takes image bytes and gives answers, and nothing above it
knows how many images share one pass through the network.
"""

import hashlib
import math
import time
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from index_builder.certified_search import Answer, certified_search
from index_builder.gallery_index import GalleryIndex
from model.angle import certify_pair
from model.certificate import Candidates
from model.embedder import Embedder, ImageEmbedding
from model.errors import CertificateError
from model.image import DecodedImage, DecodeLimits, decode_image
from service.schemas.embed import EmbedAnswer, EmbedTimings
from service.schemas.parts import UNIT, ImageInfo, IndexInfo, ModelInfo
from service.schemas.search import (
    AnswerCertificate,
    QueryInfo,
    SearchAnswer,
    SearchOptions,
    SearchResult,
    SearchTimings,
)
from service.schemas.similarity import (
    Interval,
    PairRadius,
    PairTimings,
    SimilarityAnswer,
    SimilarityOptions,
)
from service.shelf import Shelf
from service.verdicts import find_point

MEANING = {
    "program": "Any image of the same size whose decoded pixels differ from the query's by less "
    "than a radius (l2) gets, from this program, index version and model, an answer that agrees in "
    "what that radius is about.",
    "real-arithmetic": "Any image of the same size whose decoded pixels differ from the query's by "
    "less than a radius (l2) gets, from this index version and this network in real arithmetic, an "
    "answer that agrees in what that radius is about; float32 rounding is not covered.",
}


@dataclass
class Stopwatch:
    """Milliseconds by stage; `lap` ends the current one."""

    waited_s: float
    laps: dict[str, float] = field(default_factory=dict[str, float])
    _begun: float = field(default_factory=time.perf_counter)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under this stage."""
        now = time.perf_counter()
        self.laps[stage] = self.laps.get(stage, 0.0) + now - self._last
        self._last = now

    def timings_ms(self) -> dict[str, float]:
        """Every stage, the wait before them, and their total, in milliseconds."""
        total = self.waited_s + time.perf_counter() - self._begun
        seconds = {"queue": self.waited_s, **self.laps, "total": total}
        return {stage: round(value * 1000, 3) for stage, value in seconds.items()}


@dataclass(frozen=True)
class Embedded:
    """One image of a request: what came, what was seen, where it lies."""

    sha256: str
    format: str
    embedding: ImageEmbedding

    @property
    def norm(self) -> float:
        """l2 norm of the raw embedding."""
        return math.sqrt(math.fsum(np.square(self.embedding.vector)))

    def info(self) -> dict[str, object]:
        """The members of `ImageInfo`."""
        return {
            "sha256": self.sha256,
            "width": self.embedding.width,
            "height": self.embedding.height,
            "format": self.format,
            "embedding_norm": self.norm,
            "gain": self.embedding.gain,
        }


@dataclass(frozen=True)
class Engine:
    """Answers requests with one model and the indexes on the shelf; safe for many threads."""

    embedder: Embedder
    shelf: Shelf
    limits: DecodeLimits

    def search(self, image: bytes, options: SearchOptions, k: int, waited_s: float) -> SearchAnswer:
        """The nearest entries of one index version and what is proved about them."""
        watch = Stopwatch(waited_s)
        with self.shelf.lease(options.index) as index:
            rule, point = find_point(index, options.operating_point)
            query = self._embed([image], watch)[0]
            timed = TimedIndex(index, watch)
            answer = certified_search(
                timed,
                [query.embedding],
                lipschitz_bound=self.embedder.lipschitz_bound,
                k=k,
                max_distance=options.max_distance,
                require_exact=options.require_exact,
                rule=rule,
            )[0]
            results = _results(answer, index, query, options)
            watch.lap("certify")
            index_info = describe_index(index)
        return SearchAnswer(
            query=_query_info(query, options.include_vector),
            index=index_info,
            model=self.describe_model(query.embedding.forward_error),
            operating_point=point,
            results=results,
            certificate=self._answer_certificate(answer),
            timings_ms=SearchTimings(**watch.timings_ms()),
        )

    def compare(
        self, image_a: bytes, image_b: bytes, options: SimilarityOptions, waited_s: float
    ) -> SimilarityAnswer:
        """The distance of two images, its interval under a budget, the radius of the verdict."""
        watch = Stopwatch(waited_s)
        a, b = self._embed([image_a, image_b], watch)
        pair = certify_pair(
            a.embedding.vector,
            b.embedding.vector,
            lipschitz_bound=self.embedder.lipschitz_bound,
            gain_a=a.embedding.gain,
            gain_b=b.embedding.gain,
            forward_error_a=a.embedding.forward_error,
            forward_error_b=b.embedding.forward_error,
            epsilon=options.epsilon,
            threshold=options.threshold,
        )
        watch.lap("certify")
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
        return SimilarityAnswer(
            distance=pair.distance,
            similarity=pair.similarity,
            interval=interval,
            match=pair.match,
            certified_radius=radius,
            image_a=ImageInfo.model_validate(a.info()),
            image_b=ImageInfo.model_validate(b.info()),
            model=self.describe_model(error),
            unit=UNIT,
            timings_ms=PairTimings(**watch.timings_ms()),
        )

    def embed(self, image: bytes, waited_s: float) -> EmbedAnswer:
        """The raw embedding of one image."""
        watch = Stopwatch(waited_s)
        embedded = self._embed([image], watch)[0]
        return EmbedAnswer(
            vector=embedded.embedding.vector.tolist(),
            norm=embedded.norm,
            fingerprint=self.embedder.fingerprint,
            image=ImageInfo.model_validate(embedded.info()),
            model=self.describe_model(embedded.embedding.forward_error),
            timings_ms=EmbedTimings(**watch.timings_ms()),
        )

    def describe_model(self, forward_error: float) -> ModelInfo:
        """The model as an answer names it, with the error bound of that answer's images."""
        return ModelInfo.model_validate(
            {
                "name": self.embedder.name,
                "fingerprint": self.embedder.fingerprint,
                "lipschitz_bound": self.embedder.lipschitz_bound,
                "forward_error": forward_error,
                "arithmetic": self.embedder.arithmetic,
                "claim": self.embedder.claim,
            }
        )

    def _embed(self, images: list[bytes], watch: Stopwatch) -> list[Embedded]:
        decoded: list[DecodedImage] = [decode_image(image, self.limits) for image in images]
        hashes = [hashlib.sha256(image).hexdigest() for image in images]
        watch.lap("decode")
        embeddings = [self.embedder.embed_image(image) for image in decoded]
        watch.lap("embed")
        return [
            Embedded(sha256, image.format, embedding)
            for sha256, image, embedding in zip(hashes, decoded, embeddings, strict=True)
        ]

    def _answer_certificate(self, answer: Answer) -> AnswerCertificate:
        proof = answer.certificate
        return AnswerCertificate(
            top1_radius=wire_radius(proof.top1_radius),
            set_radius=wire_radius(proof.set_radius),
            order_radius=wire_radius(proof.order_radius),
            unit=UNIT,
            norm="l2",
            strict=True,
            meaning=MEANING[self.embedder.claim],
        )


class TimedIndex:
    """An index whose searches are booked apart from the certificates between them."""

    def __init__(self, index: GalleryIndex, watch: Stopwatch) -> None:
        self._index = index
        self._watch = watch

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """As `GalleryIndex.search`."""
        self._watch.lap("certify")
        found = self._index.search(queries, m)
        self._watch.lap("search")
        return found

    def everything(self) -> Candidates:
        """As `GalleryIndex.everything`."""
        self._watch.lap("certify")
        found = self._index.everything()
        self._watch.lap("search")
        return found

    @property
    def size(self) -> int:
        """Entries of the index."""
        return self._index.size


def describe_index(index: GalleryIndex) -> IndexInfo:
    """The index version as an answer names it."""
    return IndexInfo(name=index.name, version=index.version, size=index.size)


def _query_info(query: Embedded, include_vector: bool) -> QueryInfo:
    vector = {"vector": query.embedding.vector.tolist()} if include_vector else {}
    return QueryInfo.model_validate({**query.info(), **vector})


def _results(
    answer: Answer, index: GalleryIndex, query: Embedded, options: SearchOptions
) -> list[SearchResult]:
    proof = answer.certificate
    entries = index.entries(answer.candidates.rows[proof.positions].tolist())
    values = 3 * query.embedding.height * query.embedding.width
    results: list[SearchResult] = []
    for place, entry in enumerate(entries):
        radius = wire_radius(float(proof.certified_radii[place]))
        result: dict[str, object] = {
            "rank": place + 1,
            "id": entry.id,
            "distance": float(proof.distances[place]),
            "similarity": float(proof.similarities[place]),
            "certified_radius": radius,
            "certified_rms_8bit": None if radius is None else rms_8bit(radius, values),
            "margin": wire_radius(float(proof.margins[place])),
            **_verdict(answer, place),
            "exact": bool(proof.exact[place]),
            "duplicates": entry.duplicates,
        }
        if options.epsilon is not None:
            result["certified"] = radius is None or options.epsilon < radius
        if options.include_metadata:
            result["metadata"] = entry.metadata
        results.append(SearchResult.model_validate(result))
    return results


def _verdict(answer: Answer, place: int) -> dict[str, object]:
    verdicts = answer.verdicts
    if verdicts is None:
        return {"match": None, "match_margin": None, "match_radius": None}
    return {
        "match": bool(verdicts.matches[place]),
        "match_margin": float(verdicts.margins[place]),
        "match_radius": wire_radius(float(verdicts.radii[place])),
    }


def rms_8bit(radius: float, values: int) -> float:
    """An l2 radius over [0, 1] values as 8-bit levels per value, rounded down."""
    return max(0.0, math.nextafter(255.0 * radius / math.sqrt(values), 0.0) * (1.0 - 1e-15))


def wire_radius(radius: float | None) -> float | None:
    """A radius as JSON has it: infinity, "nothing can change it", is null.

    Raises:
        CertificateError: it is NaN or negative, which no certificate gives.
    """
    if radius is None or radius == math.inf:
        return None
    if math.isnan(radius) or radius < 0.0:
        raise CertificateError(f"a radius must be >= 0, got {radius}")
    return radius
