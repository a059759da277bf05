"""The search that comes with a proof: candidates from an index, deeper only where it must be.

A hundred candidates prove almost every answer. A query whose ranking they do not prove is searched
again deeper, and in the end scored against the whole gallery, so every answer returned is the one
of a full float64 scan.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from model.certificate.match import MatchRule, Verdicts, judge
from model.certificate.search import Candidates, SearchCertificate, certify_search
from model.certificate.similarity import embedding_norm

# Measured on clustered data: 128 candidates prove 99 % of results exact at 4 to 48 % more time.
_FIRST_DEPTH = 128
_DEEPER = (512, 2048)

# A whole gallery of this size is scored in less time than the search and a second look would take.
_SMALL_GALLERY = 1024


@runtime_checkable
class SearchableIndex(Protocol):
    """What a certified search needs of an index: `index_builder.search.gallery.GalleryIndex`."""

    @property
    def size(self) -> int:
        """Number of entries."""
        ...

    def search(self, queries: Float64[np.ndarray, "B D"], m: int) -> list[Candidates]:
        """The m best entries of each query, m < size, with a proved bound on the others."""
        ...

    def everything(self) -> Candidates:
        """All entries, by number."""
        ...


@runtime_checkable
class QueryEmbedding(Protocol):
    """What a certified search needs of an embedded image: `model.embedder.ImageEmbedding`."""

    @property
    def vector(self) -> Float64[np.ndarray, " D"]:
        """Raw embedding."""
        ...

    @property
    def gain(self) -> float:
        """L2 operator norm of the image's resize, rounded up."""
        ...

    @property
    def forward_error(self) -> float:
        """Bound on the l2 error of the computed embedding."""
        ...


@dataclass(frozen=True, eq=False)
class Answer:
    """One query's candidates, and the certificate whose positions point into them.

    Attributes:
        candidates: what the index brought back.
        certificate: the answer and its radii.
        verdicts: match or no match of each result; None without a rule.
    """

    candidates: Candidates
    certificate: SearchCertificate
    verdicts: Verdicts | None = None


def certified_search(
    index: SearchableIndex,
    embeddings: Sequence[QueryEmbedding],
    *,
    lipschitz_bound: float,
    k: int,
    max_distance: float | None = None,
    require_exact: bool = False,
    rule: MatchRule | None = None,
) -> list[Answer]:
    """Answer each query with its proved top k and their radii.

    Args:
        index: the gallery.
        embeddings: embedded query images.
        lipschitz_bound: proved upper bound of the network's l2 Lipschitz constant, > 0.
        k: number of results asked for, >= 1; it may exceed the gallery.
        max_distance: results farther than this are left out; None keeps all.
        require_exact: search deeper until no radius is limited by the bound on unseen entries.
        rule: when a result counts as a match; None asks for no verdicts.

    Returns:
        One answer a query, in order; each ranking is proved, so it is that of a full scan, and so
        are the verdicts.

    Raises:
        CertificateError: an embedding or an option is not a number that can carry a proof.
    """
    answer = partial(_answer, lipschitz_bound=lipschitz_bound, rule=rule, k=k, limit=max_distance)
    answers: dict[int, Answer] = {}
    # Also refuses what is not finite before any index sees it.
    norms = [embedding_norm(embedding.vector).value for embedding in embeddings]
    pending = [i for i, norm in enumerate(norms) if norm > 0.0]
    for i in set(range(len(embeddings))).difference(pending):
        answers[i] = answer(embeddings[i], _first_entries(index.everything(), k))
    for depth in _depths(index.size, k):
        if not pending:
            break
        found = _candidates(index, [embeddings[i].vector for i in pending], depth)
        for i, candidates in zip(pending, found, strict=True):
            answers[i] = answer(embeddings[i], candidates)
        pending = [i for i in pending if not _is_enough(answers[i], require_exact)]
    return [answers[i] for i in range(len(embeddings))]


def sees_everything(size: int, k: int) -> bool:
    """Whether a search of a gallery of this size looks at every entry, whatever is asked."""
    return next(_depths(size, k)) == size


def _answer(
    embedding: QueryEmbedding,
    candidates: Candidates,
    *,
    lipschitz_bound: float,
    rule: MatchRule | None,
    k: int,
    limit: float | None,
) -> Answer:
    """Certify one query's candidates, and judge the results."""
    prove = {
        "lipschitz_bound": lipschitz_bound,
        "gain": embedding.gain,
        "forward_error": embedding.forward_error,
    }
    certificate = certify_search(embedding.vector, candidates, k=k, max_distance=limit, **prove)
    if rule is None:
        return Answer(candidates, certificate)
    verdicts = judge(embedding.vector, candidates, certificate.positions, rule, **prove)
    return Answer(candidates, certificate, verdicts)


def _depths(size: int, k: int) -> Iterator[int]:
    """Numbers of candidates to try in turn; `size` comes last and means all of them."""
    first = max(_FIRST_DEPTH, k + k // 4) if size > _SMALL_GALLERY else size
    for depth in (first, *(deeper for deeper in _DEEPER if deeper > first)):
        if depth < size:
            yield depth
    yield size


def _candidates(
    index: SearchableIndex, vectors: list[Float64[np.ndarray, " D"]], depth: int
) -> list[Candidates]:
    """Candidates of each query at a depth; one view of the whole gallery serves them all."""
    if depth == index.size:
        return [index.everything()] * len(vectors)
    return index.search(np.stack(vectors), depth)


def _first_entries(everything: Candidates, count: int) -> Candidates:
    """The first entries by number: the answer to a zero query, which scores all entries 0."""
    return replace(
        everything,
        rows=everything.rows[:count],
        vectors=everything.vectors[:count],
        unseen_score=0.0,
    )


def _is_enough(answer: Answer, require_exact: bool) -> bool:
    """Whether a deeper search is not called for."""
    certificate, verdicts = answer.certificate, answer.verdicts
    return (
        certificate.is_proved
        and (verdicts is None or verdicts.is_decided)
        and (not require_exact or bool(certificate.exact.all()))
    )
