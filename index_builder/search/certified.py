"""The search that comes with a proof: candidates from an index, deeper only where it must be.

A hundred candidates prove almost every answer. A query whose ranking they do not prove is searched
again deeper, and in the end scored against the whole gallery, so every answer returned is the one
of a full float64 scan.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from index_builder.search.filtered import FilteredIndex
from model.certificate.geometry import embedding_norm
from model.certificate.match import MatchRule, Verdicts, judge
from model.certificate.pairs import Candidates, keep_on
from model.certificate.ranking import Ranking, complete_items, rank_candidates
from model.certificate.search import SearchCertificate, certify_ranking
from model.errors import RetrievalError

# Measured on clustered data: 128 candidates prove 99 % of results exact at 4 to 48 % more time.
_FIRST_DEPTH = 128
_DEEPER = (512, 2048)

# A whole gallery of this size is scored in less time than the search and a second look would take.
_SMALL_GALLERY = 1024
# Of a part, whose rows are fetched once for all queries and searched a block at a time.
_SMALL_PART = 512


@runtime_checkable
class SearchableIndex(Protocol):
    """What a certified search needs of an index: `index_builder.search.gallery.GalleryIndex`."""

    @property
    def vector_count(self) -> int:
        """Number of rows."""
        ...

    @property
    def size(self) -> int:
        """Number of items."""
        ...

    @property
    def most_views(self) -> int:
        """The most rows that one item has."""
        ...

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """The m best rows of each query, m < vector_count, with a proved bound on the others."""
        ...

    def everything(self) -> Candidates: ...

    def of_items(self, items: Int64[np.ndarray, " I"]) -> Candidates:
        """Every row of these items."""
        ...


@runtime_checkable
class QueryEmbedding(Protocol):
    """What a certified search needs of an embedded image: `model.embedder.ImageEmbedding`."""

    @property
    def vector(self) -> Float64[np.ndarray, " D"]: ...
    @property
    def gain(self) -> float: ...
    @property
    def forward_error(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Answer:
    """One query's candidates, and the certificate whose positions point into them."""

    candidates: Candidates
    certificate: SearchCertificate


@dataclass(frozen=True, eq=False)
class SearchQuestion:
    """What queries must have in common to be answered by one search.

    Attributes:
        lipschitz_bound: proved upper bound of the network's l2 Lipschitz constant, > 0.
        k: number of results asked for, >= 1; it may exceed the gallery.
        max_distance: results farther than this are left out; None keeps all.
        require_exact: search deeper until no radius is limited by the bound on unseen entries.
        rule: when a result counts as a match; None asks for no verdicts.
        whole: where verdicts are looked up, if what is searched is a part of a gallery.
        output_scales: proved bound of how the network moves embeddings along each coordinate, (D,);
            None where nothing but `lipschitz_bound` is proved.
    """

    lipschitz_bound: float
    k: int
    max_distance: float | None = None
    require_exact: bool = False
    rule: MatchRule | None = None
    output_scales: Float64[np.ndarray, " D"] | None = None
    whole: "WholeGallery | None" = None


@dataclass(frozen=True, eq=False)
class WholeGallery:
    """What a searched part is a part of, and the number there of each of its entries, (n,)."""

    gallery: SearchableIndex
    numbers: Int64[np.ndarray, " n"]


def whole_of(index: SearchableIndex) -> WholeGallery | None:
    """Where verdicts of a search of this index are looked up; None: in itself."""
    return WholeGallery(index.gallery, index.numbers) if isinstance(index, FilteredIndex) else None


@dataclass(frozen=True, eq=False)
class Query:
    """An embedded image, and a look at the clock of whoever waits for its answer.

    `check_deadline` is called between pieces of work, of which none takes long; it raises a
    RetrievalError where nobody waits any more.
    """

    embedding: QueryEmbedding
    check_deadline: Callable[[], None] = keep_on


def certified_search(
    index: SearchableIndex,
    embeddings: Sequence[QueryEmbedding],
    *,
    lipschitz_bound: float,
    k: int,
    max_distance: float | None = None,
    require_exact: bool = False,
    rule: MatchRule | None = None,
    output_scales: Float64[np.ndarray, " D"] | None = None,
) -> list[Answer]:
    """Answer each query, in order, with its proved top k and their radii.

    `SearchQuestion` explains the options. Rankings and verdicts are those of a full scan.

    Raises:
        CertificateError: an embedding or an option is not a number that can carry a proof.
    """
    whole = whole_of(index)
    question = SearchQuestion(
        lipschitz_bound, k, max_distance, require_exact, rule, output_scales, whole
    )
    queries = [Query(embedding) for embedding in embeddings]
    answers: dict[int, Answer] = {}
    for place, answer in answer_queries(index, queries, question, search_depths(index, k)):
        if isinstance(answer, RetrievalError):
            raise answer
        answers[place] = answer
    return [answers[place] for place in range(len(queries))]


def answer_queries(
    index: SearchableIndex,
    queries: Sequence[Query],
    question: SearchQuestion,
    depths: Sequence[int],
) -> Iterator[tuple[int, Answer | RetrievalError]]:
    """Answer queries as soon as each is proved, those that need fewer candidates first.

    `depths` are from `search_depths`, and tried in turn.

    Yields:
        Each query's place and its answer, or the error that is its own. A query that no depth
        answers is left out; with the last of `search_depths` among them there is none such.
    """
    pending: list[int] = []
    for place, query in enumerate(queries):
        try:
            # Also refuses what is not finite before any index sees it.
            is_zero = embedding_norm(query.embedding.vector).value == 0.0
        except RetrievalError as error:
            yield place, error
            continue
        if is_zero:
            # All items score 0: the first by number are the answer.
            first = replace(
                index.of_items(np.arange(min(question.k, index.size))), unseen_score=0.0
            )
            if (answer := _answer_or_error(index, query, first, question)) is not None:
                yield place, answer
        else:
            pending.append(place)
    to_judge = _to_judge(queries, pending, question)
    for depth in depths:
        if not pending:
            return
        vectors = [queries[place].embedding.vector for place in pending]
        unanswered: list[int] = []
        for place, candidates in zip(pending, _candidates(index, vectors, depth), strict=True):
            answer = _answer_or_error(
                index, queries[place], candidates, question, to_judge.get(place)
            )
            if answer is None:
                unanswered.append(place)
            else:
                yield place, answer
        pending = unanswered


def search_depths(index: SearchableIndex, k: int) -> list[int]:
    """Numbers of candidates to try in turn; `vector_count` comes last and means all of them."""
    size = index.vector_count
    wanted = (k + k // 4) * index.most_views
    small = _SMALL_PART if isinstance(index, FilteredIndex) else _SMALL_GALLERY
    first = max(_FIRST_DEPTH, wanted) if size > small else size
    depths = (first, *(deeper for deeper in _DEEPER if deeper > first))
    return [*(depth for depth in depths if depth < size), size]


def sees_everything(index: SearchableIndex, k: int) -> bool:
    """Whether a search of this gallery looks at every row, whatever is asked."""
    return search_depths(index, k)[0] == index.vector_count


def _to_judge(
    queries: Sequence[Query], places: Sequence[int], question: SearchQuestion
) -> dict[int, Candidates]:
    """Where a part is searched and judged: the gallery's candidates of each query, at once."""
    if question.whole is None or question.rule is None or not places:
        return {}
    gallery = question.whole.gallery
    vectors = [queries[place].embedding.vector for place in places]
    found = _candidates(gallery, vectors, search_depths(gallery, question.rule.k)[0])
    return dict(zip(places, found, strict=True))


def _answer_or_error(
    index: SearchableIndex,
    query: Query,
    candidates: Candidates,
    question: SearchQuestion,
    to_judge: Candidates | None = None,
) -> Answer | RetrievalError | None:
    """One query's answer from these candidates; None where they do not prove it.

    A ranking that they do not prove is not worth the comparison of pairs. The first items, the
    answer to a zero query, and all rows prove whatever can be.
    """
    is_zero = embedding_norm(query.embedding.vector).value == 0.0
    is_last = candidates.are_all or is_zero
    try:
        query.check_deadline()
        ranking = rank_candidates(
            query.embedding.vector, candidates, question.k, query.check_deadline
        )
        if not (ranking.is_proved or is_last):
            return None
        if candidates.items is not None and not is_last:
            own = index.of_items(candidates.items[ranking.top])
            ranking = complete_items(ranking, own, query.check_deadline)
        answer = _certify(query, ranking, question)
        if not (is_last or _is_enough(answer.certificate, question)):
            return None
        if question.whole is None or question.rule is None:
            return answer
        verdicts = _verdicts(query, answer, question, question.whole, to_judge)
        return replace(answer, certificate=replace(answer.certificate, verdicts=verdicts))
    except RetrievalError as error:
        return error


def _certify(query: Query, ranking: Ranking, question: SearchQuestion) -> Answer:
    certificate = certify_ranking(
        ranking,
        lipschitz_bound=question.lipschitz_bound,
        gain=query.embedding.gain,
        forward_error=query.embedding.forward_error,
        output_scales=question.output_scales,
        max_distance=question.max_distance,
        rule=question.rule if question.whole is None else None,
        check_deadline=query.check_deadline,
    )
    return Answer(ranking.candidates, certificate)


def _verdicts(
    query: Query,
    answer: Answer,
    question: SearchQuestion,
    whole: WholeGallery,
    found: Candidates | None,
) -> Verdicts | None:
    """Verdicts of an answer from a part: of the whole gallery, from candidates of its own."""
    rule, gallery, verdicts = question.rule, whole.gallery, None
    assert rule is not None  # noqa: S101 - or there would be no verdicts.
    items = whole.numbers[answer.candidates.numbers[answer.certificate.positions]]
    vector, own = query.embedding.vector, gallery.of_items(items)
    for depth in search_depths(gallery, rule.k):
        query.check_deadline()
        found = (found or _candidates(gallery, [vector], depth)[0]).with_rows(own)
        verdicts = judge(
            vector,
            found,
            found.positions_of(items),
            rule,
            lipschitz_bound=question.lipschitz_bound,
            gain=query.embedding.gain,
            forward_error=query.embedding.forward_error,
            output_scales=question.output_scales,
        )
        if verdicts.is_decided or found.are_all:
            break
        found = None
    return verdicts


def _is_enough(certificate: SearchCertificate, question: SearchQuestion) -> bool:
    """Whether a deeper search is not called for."""
    verdicts = certificate.verdicts
    return (
        certificate.is_proved
        and (verdicts is None or verdicts.is_decided)
        and (not question.require_exact or bool(certificate.exact.all()))
    )


def _candidates(
    index: SearchableIndex, vectors: list[Float64[np.ndarray, " D"]], depth: int
) -> list[Candidates]:
    """Candidates of each query at a depth; one view of the whole gallery serves them all."""
    if depth == index.vector_count:
        return [index.everything()] * len(vectors)
    return index.search(np.stack(vectors), depth)
