"""A recorded question asked again, with a look at every entry, and the answer as it should read."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from index_builder.errors import ItemNotFoundError
from index_builder.filters.evaluate import passing_items
from index_builder.filters.language import parse_filter
from index_builder.search.certified import Answer, sees_everything
from index_builder.search.filtered import FilteredIndex, Searched
from index_builder.search.gallery import GalleryIndex
from model.certificate.geometry import angle, cosine_error
from model.certificate.match import Verdicts, judge
from model.certificate.search import SearchCertificate, certify_search
from model.embedder import Embedder
from service.decoding.query_image import QueryImage
from service.schemas.search import SearchOptions, SearchResult
from service.work.answers import (
    build_audit,
    build_certificate,
    build_index,
    build_model,
    build_query,
    build_results,
    build_trimmed,
    find_point,
)

ROUNDING = 1e-12
"""Relative, of a handful of float64 operations on the way from an embedding to a number."""

_SINE_ROUNDING = 1e-9
"""Of a match margin: planes between very close rows are computed less well."""


@dataclass(frozen=True)
class Tolerances:
    """How far honest numbers may lie apart.

    Two computed embeddings of one image lie within E of the real one each, so within 2 E of one
    another; each tolerance is what that makes of a number.

    Attributes:
        norm: of the embedding as recomputed.
        forward_error: E.
        scale: Lipschitz bound times gain: how far an embedding moves per unit of pixel change.
        least_scale: smallest of the output scales, times gain: along it an error of the embedding
            is worth the most pixels. `scale` where there are none.
        norm_deviation: bound on | |f| - 1 | over the gallery.
        exit: of the angle left to `max_distance`, for rounding; 0 without one. It is some 1e-12
            but where an entry lies at distance 0: there it is 1e-7.
    """

    norm: float
    forward_error: float
    scale: float
    least_scale: float
    norm_deviation: float
    exit: float

    @property
    def embedding(self) -> float:
        """Of the l2 distance of the embeddings, and of the difference of their norms."""
        return 2.0 * self.forward_error + ROUNDING * self.norm

    @property
    def turn(self) -> float:
        """Of the angle between them; inf where one may be zero."""
        # sin(turn) <= apart / norm of either, and x / (1 - x) is above arcsin(x).
        apart = 2.0 * self.forward_error
        return apart / (self.norm - apart) if self.norm > apart else math.inf

    @property
    def cosine(self) -> float:
        """Of a similarity or distance."""
        return min(2.0, self.turn * (1.0 + self.norm_deviation)) + ROUNDING

    def statistic(self, cosine_weight: float) -> float:
        """Of a match margin, which is the sine of an angle, and of so much cosine beside it."""
        longest = 1.0 + cosine_weight * (1.0 + self.norm_deviation)
        return longest * self.turn + _SINE_ROUNDING

    def margin(self, margin: float) -> float:
        """Of a margin: a radius in embedding space over the norm, both of which may move."""
        return (1.0 + margin) * self.turn + self.exit + ROUNDING

    @property
    def radius(self) -> float:
        """Of a radius, in uploaded pixels: one of rank, or of an exit, which has no scales."""
        apart = 2.0 * self.forward_error
        return max(apart / self.least_scale, (apart + self.exit * self.norm) / self.scale)

    def match_radius(self, cosine_weight: float) -> float:
        """Of a verdict's radius, which is computed less well.

        Where the cosine counts it may be a radius of rank, in the network's metric.
        """
        scale = self.least_scale if cosine_weight > 0.0 else self.scale
        return (2.0 * self.forward_error + _SINE_ROUNDING * self.norm) / scale


@dataclass(frozen=True)
class Recomputation:
    """A question and what it is answered by.

    `trim_radius` limits every radius where the query is a crop.
    """

    embedder: Embedder
    index: GalleryIndex
    query: QueryImage
    options: SearchOptions
    trim_radius: float = math.inf

    @cached_property
    def part(self) -> FilteredIndex | None:
        """The part of the index that the filter leaves; None where there is no filter."""
        if self.options.filter is None:
            return None
        wanted, index = parse_filter(self.options.filter), self.index
        return FilteredIndex(index, passing_items(wanted, index.columns, index.items))

    @property
    def searched(self) -> Searched:
        return self.part or self.index

    @property
    def saw_everything(self) -> bool:
        """Whether the answer must have come from a look at all entries, as this one does."""
        return sees_everything(self.searched, self.options.k)

    @property
    def judged_everything(self) -> bool:
        """Whether its verdicts must have: with a filter they are of another search."""
        rule, _ = find_point(self.index, self.options.operating_point)
        if self.part is None or rule is None:
            return self.saw_everything
        return sees_everything(self.index, rule.k)

    @cached_property
    def cosine_weight(self) -> float:
        """What the cosine counts in verdicts; 0 where none are asked for, too."""
        rule, _ = find_point(self.index, self.options.operating_point)
        return 0.0 if rule is None else rule.cosine_weight

    @cached_property
    def tolerances(self) -> Tolerances:
        embedding = self.query.embedded
        tolerances = Tolerances(
            norm=self.query.norm,
            forward_error=embedding.forward_error,
            scale=self.embedder.lipschitz_bound * embedding.gain,
            least_scale=float(self.embedder.output_scales.min()) * embedding.gain,
            norm_deviation=self.index.norm_deviation,
            exit=0.0,
        )
        if self.options.max_distance is None:
            return tolerances
        return replace(tolerances, exit=self._exit_error(tolerances.turn))

    def _exit_error(self, turn: float) -> float:
        """What rounding makes of the angle of an entry, which may lie nearer by `turn`.

        A distance errs by `cosine_error` at most, and as much is charged: docs/certificate.md. An
        angle errs the more by it the nearer it is to 0 or to half a turn.
        """
        rounding = 2.0 * cosine_error(self.query.embedded.vector.size)
        if not self.query.norm > 0.0:
            return angle(rounding)
        scores = self.index.vectors.astype(np.float64) @ self.query.embedded.vector
        distances = 1.0 - scores / self.query.norm
        nearest, farthest = float(distances.min(initial=2.0)), float(distances.max(initial=0.0))
        errors: list[float] = []
        for distance in (nearest, 2.0 - farthest):
            left = max(0.0, angle(distance - self.index.norm_deviation) - turn)
            least = 2.0 * math.sin(left / 2.0) ** 2
            errors.append(angle(least + rounding) - angle(least - rounding))
        return max(errors)

    @cached_property
    def answer(self) -> dict[str, Any]:
        """The answer as JSON would have it, but for `results` and the timings."""
        query, index, options = self.query, self.index, self.options
        _, point = find_point(index, options.operating_point)
        pixels = query.pixels_sha256 or ""
        parts = {
            "query": build_query(query, options),
            "index": build_index(self.searched),
            "model": build_model(self.embedder, query.embedded.forward_error),
            "certificate": build_certificate(self.full, self.searched, self.embedder.claim),
            "audit": build_audit(options, options.k, pixels, self.embedder, index),
        }
        answer = {name: part.model_dump(exclude_unset=True) for name, part in parts.items()}
        if self.query.trim is not None:
            crop = self.trimmed and self.trimmed.full
            trimmed = build_trimmed(self.query, crop, self.searched, options, self.embedder.claim)
            answer["trimmed"] = trimmed.model_dump(exclude_unset=True)
        return {
            **answer,
            "operating_point": None if point is None else point.model_dump(),
            "results": None,
            "timings_ms": None,
        }

    @cached_property
    def trimmed(self) -> "Recomputation | None":
        """The same question about what is inside the borders; None where nothing is outside."""
        trim, crop = self.query.trim, self.query.crop
        if trim is None or crop is None:
            return None
        return replace(self, query=crop, trim_radius=trim.radius)

    @cached_property
    def results(self) -> list[SearchResult]:
        return self._results(self.full)

    def similarity(self, item_id: str, view: str) -> float:
        """That of one view of an entry; -1 where there is none of that name."""
        rows = self.index.rows.of_entries(np.array([self.index.entry_by_id(item_id).number]))
        named = [row for row in rows if self.index.views(np.array([row])) == [view]]
        vector = self.query.embedded.vector
        scores = self.index.vectors[named].astype(np.float64) @ vector
        return float(scores.max(initial=-np.inf)) / self.query.norm if self.query.norm else -1.0

    def outsider(self, item_id: str) -> SearchResult | None:
        """What is to be said of an entry that is not in the answer; None if there is none such."""
        try:
            number = self.index.entry_by_id(item_id).number
        except ItemNotFoundError:
            return None
        here = np.array([number])
        if self.part is not None:
            here = np.flatnonzero(self.part.numbers == number)
        if not here.size or self.searched.entries(here)[0].id != item_id:
            return None
        vector, norm = self.query.embedded.vector, self.query.norm
        candidates = self.searched.of_items(here)
        scores = candidates.vectors.astype(np.float64) @ vector
        score = float(scores.max())
        similarity = max(-1.0, min(1.0, score / norm)) if norm > 0.0 else 0.0
        none = np.zeros(1)
        certificate = SearchCertificate(
            is_proved=True,
            positions=np.array([scores.argmax()]),
            distances=np.array([1.0 - similarity]),
            similarities=np.array([similarity]),
            certified_radii=none,
            exact=none > 0.0,
            margins=none,
            top1_radius=0.0,
            set_radius=0.0,
            order_radius=0.0,
        )
        verdicts = self._verdicts(np.array([number]))
        answer = Answer(candidates, replace(certificate, verdicts=verdicts))
        (result,) = self._results(answer)
        return result

    @cached_property
    def full(self) -> Answer:
        """The answer of a full scan: no bound on unseen entries is in its radii."""
        options, part, everything = self.options, self.part, self.searched.everything()
        rule, _ = find_point(self.index, options.operating_point)
        certificate = certify_search(
            self.query.embedded.vector,
            everything,
            # More than all is all, and a record may say any number.
            k=min(options.k, self.index.size + 1),
            max_distance=options.max_distance,
            rule=rule if part is None else None,
            lipschitz_bound=self.embedder.lipschitz_bound,
            output_scales=self.embedder.output_scales,
            gain=self.query.embedded.gain,
            forward_error=self.query.embedded.forward_error,
        )
        if part is not None:
            numbers = part.numbers[everything.numbers[certificate.positions]]
            certificate = replace(certificate, verdicts=self._verdicts(numbers))
        return Answer(everything, certificate)

    def _verdicts(self, entries: np.ndarray) -> Verdicts | None:
        """Of entries of the whole index."""
        rule, _ = find_point(self.index, self.options.operating_point)
        if rule is None:
            return None
        vector, everything = self.query.embedded.vector, self.index.everything()
        return judge(
            vector,
            everything,
            self.index.rows.starts[entries],
            rule,
            lipschitz_bound=self.embedder.lipschitz_bound,
            gain=self.query.embedded.gain,
            forward_error=self.query.embedded.forward_error,
            output_scales=self.embedder.output_scales,
        )

    def _results(self, answer: Answer) -> list[SearchResult]:
        proof = answer.certificate.within(self.trim_radius)
        answer = replace(answer, certificate=proof)
        return build_results(answer, self.searched, self.query, self.options)
