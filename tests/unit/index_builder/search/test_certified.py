"""The driver searches as deep as the proof needs, and no deeper."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from index_builder.search.certified import certified_search
from model.certificate.pairs import Candidates
from model.certificate.search import certify_search
from model.errors import CertificateError


@dataclass
class Embedding:
    vector: np.ndarray
    gain: float = 2.0
    forward_error: float = 1e-9


class ArrayIndex:
    """An exact index over an array that remembers how deep it was asked."""

    def __init__(self, vectors):
        self.vectors = vectors
        self.depths = []
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        self.deviation = float(np.abs(norms - 1.0).max(initial=0.0)) + 1e-12

    @property
    def vector_count(self):
        return self.vectors.shape[0]

    @property
    def size(self):
        return self.vector_count

    @property
    def most_views(self):
        return 1

    def search(self, queries, m):
        assert m < self.vector_count
        self.depths.append((queries.shape[0], m))
        return [self.best(query, m) for query in queries]

    def best(self, query, m):
        scores = self.vectors.astype(np.float64) @ query
        order = np.argsort(-scores, kind="stable")[:m]
        unseen = float(scores[order[-1]]) + 1e-12 * float(np.linalg.norm(query))
        return Candidates(order, self.vectors[order], unseen, self.vector_count, self.deviation)

    def of_items(self, items):
        self.depths.append(f"{len(items)} items")
        return replace(self.everything(), rows=items, vectors=self.vectors[items])

    def everything(self):
        self.depths.append("everything")
        rows = np.arange(self.vector_count)
        return Candidates(rows, self.vectors, -math.inf, self.vector_count, self.deviation)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_index(count, dimension=16, seed=0):
    return ArrayIndex(unit(np.random.default_rng(seed).normal(size=(count, dimension))))


def queries(count, dimension=16, seed=1):
    return [Embedding(v) for v in np.random.default_rng(seed).normal(size=(count, dimension))]


def ask(index, embeddings, k=10, **options):
    return certified_search(index, embeddings, lipschitz_bound=1.0, k=k, **options)


def entries(answer):
    return answer.candidates.rows[answer.certificate.positions].tolist()


def full_scan(index, embedding, k, max_distance=None):
    return certify_search(
        embedding.vector,
        index.everything(),
        k=k,
        lipschitz_bound=1.0,
        gain=embedding.gain,
        forward_error=embedding.forward_error,
        max_distance=max_distance,
    )


def test_a_batch_is_searched_once_where_that_proves_it():
    index = random_index(3000)
    answers = ask(index, queries(7))
    assert index.depths == [(7, 128)]
    assert all(answer.certificate.is_proved for answer in answers)


@pytest.mark.parametrize(("k", "max_distance"), [(1, None), (10, None), (10, 0.4), (150, None)])
def test_answers_are_those_of_a_full_scan(k, max_distance):
    index, asked = random_index(2500), queries(6)
    for embedding, answer in zip(
        asked, ask(index, asked, k, max_distance=max_distance), strict=True
    ):
        whole = full_scan(index, embedding, k, max_distance)
        assert entries(answer) == whole.positions.tolist()
        assert (answer.certificate.certified_radii <= whole.certified_radii * (1 + 1e-9)).all()
        assert (answer.certificate.distances == whole.distances).all()


def test_more_results_ask_for_more_candidates():
    index = random_index(3000)
    ask(index, queries(1), k=400)
    assert index.depths == [(1, 500)]


def test_a_small_gallery_is_scanned_whole():
    index = random_index(128)
    (answer,) = ask(index, queries(1), k=500)
    assert index.depths == ["everything"]
    assert len(entries(answer)) == 128
    assert np.isinf(answer.certificate.certified_radii).all()


def test_only_the_unproved_queries_are_searched_deeper():
    """One query has 600 equal best rows, so that 128 and 512 candidates leave its top k open."""
    index = random_index(4000)
    index.vectors[:600] = index.vectors[0]
    crowded = Embedding(index.vectors[0].astype(np.float64))
    answers = ask(index, [*queries(3), crowded, *queries(2, seed=9)])
    assert index.depths == [(6, 128), (1, 512), (1, 2048)]
    assert entries(answers[3]) == list(range(10))
    assert all(answer.certificate.is_proved for answer in answers)


def test_the_last_resort_is_the_whole_gallery():
    index = random_index(3000)
    index.vectors[:2500] = index.vectors[0]
    (answer,) = ask(index, [Embedding(index.vectors[0].astype(np.float64))])
    assert index.depths == [(1, 128), (1, 512), (1, 2048), "everything"]
    assert entries(answer) == list(range(10))
    assert answer.certificate.is_proved


def test_an_exact_answer_is_searched_for_only_on_request():
    rng = np.random.default_rng(5)
    base = rng.normal(size=(1, 16))
    crowd = base + rng.normal(size=(700, 16)) * 0.02
    index = ArrayIndex(unit(np.concatenate((base, crowd, rng.normal(size=(3000, 16))))))
    asked = [Embedding(base[0] + 0.05 * rng.normal(size=16)) for _ in range(8)]
    quick = ask(index, asked)
    assert index.depths == [(8, 128)]
    assert not all(answer.certificate.exact.all() for answer in quick)
    exact = ask(index, asked, require_exact=True)
    assert len(index.depths) > 2
    for before, after in zip(quick, exact, strict=True):
        assert after.certificate.exact.all()
        assert entries(before) == entries(after)
        assert (before.certificate.certified_radii <= after.certificate.certified_radii).all()


@pytest.mark.parametrize("size", [0, 1, 5, 3000])
@pytest.mark.parametrize("vector", [np.zeros(16), np.full(16, 1e-200)])
def test_a_zero_query_gets_the_first_entries_and_no_radius(size, vector):
    index = random_index(size)
    ordinary, zero = ask(index, [queries(1)[0], Embedding(vector)], k=3)
    assert entries(zero) == list(range(min(size, 3)))
    assert zero.candidates.rows.size <= 3
    assert not zero.certificate.certified_radii.any()
    assert zero.certificate.is_proved
    assert len(entries(ordinary)) == min(size, 3)


def test_an_empty_gallery_and_an_empty_batch_are_answered():
    (answer,) = ask(random_index(0), queries(1))
    assert entries(answer) == []
    assert answer.certificate.set_radius == math.inf
    assert ask(random_index(10), []) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
def test_an_embedding_that_is_no_number_is_refused_before_the_search(value):
    index = random_index(3000)
    with pytest.raises(CertificateError, match="embedding must be finite"):
        ask(index, [*queries(2), Embedding(np.full(16, value))])
    assert index.depths == []
