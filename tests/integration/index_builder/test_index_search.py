import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_tools import build, write_folder

from index_builder.search.gallery import GalleryIndex
from model.errors import EmbeddingError


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    build(root, write_folder(root / "in", 90))
    with GalleryIndex.open(root) as opened:
        yield opened


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 12),
    m=st.integers(1, 100),
    scale=st.sampled_from([1e-300, 1e-30, 1.0, 1e30, 1e300]),
    near=st.booleans(),
)
def test_search_is_brute_force_with_a_bound_on_the_rest(  # noqa: PLR0917
    index, seed, batch, m, scale, near
):
    rng = np.random.default_rng(seed)
    gallery = np.asarray(index.vectors, dtype=np.float64)
    queries = rng.standard_normal((batch, index.dim))
    if near:
        queries = gallery[rng.integers(0, 90, batch)] + 1e-7 * queries
    found = index.search(queries * scale, m)
    assert len(found) == batch
    for query, candidates in zip(queries, found, strict=True):
        scores = gallery @ query
        best = np.sort(scores)[::-1]
        assert candidates.size == 90
        assert len(set(candidates.rows.tolist())) == len(candidates.rows) == min(m, 90)
        assert np.array_equal(candidates.vectors, index.vectors[candidates.rows])
        assert scores[candidates.rows].min() >= best[min(m, 90) - 1] - 1e-6 * np.linalg.norm(query)
        unseen = np.setdiff1d(np.arange(90), candidates.rows)
        if unseen.size == 0:
            assert candidates.unseen_score == -np.inf
        else:
            assert (scores[unseen] * scale).max() <= candidates.unseen_score


@pytest.mark.parametrize("m", [90, 91, 10**9])
def test_asking_for_all_gives_all_rows_once_and_nothing_unseen(index, m):
    [candidates] = index.search(np.ones((1, index.dim)), m)
    assert candidates.rows.tolist() == list(range(90))
    assert candidates.unseen_score == -np.inf
    assert candidates.vectors is index.vectors


def test_a_zero_query_gets_the_first_entries(index):
    queries = np.zeros((2, index.dim))
    queries[1, 0] = 1.0
    first, second = index.search(queries, 5)
    assert first.rows.tolist() == [0, 1, 2, 3, 4]
    assert first.unseen_score == 0.0
    assert second.unseen_score > 0.0


def test_no_queries_give_no_answers(index):
    assert index.search(np.empty((0, index.dim)), 3) == []


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_is_refused(index, poison):
    queries = np.ones((3, index.dim))
    queries[2, 5] = poison
    with pytest.raises(EmbeddingError, match="a query embedding must be finite"):
        index.search(queries, 3)


def test_another_dimension_and_no_candidates_are_refused(index):
    with pytest.raises(EmbeddingError, match=r"wanted queries of shape \(B, 24\).*got \(2, 23\)"):
        index.search(np.ones((2, 23)), 3)
    with pytest.raises(ValueError, match="at least 1 candidate, got m = 0"):
        index.search(np.ones((1, 24)), 0)


def test_many_threads_search_and_look_up_at_once(index):
    queries = np.random.default_rng(3).standard_normal((16, index.dim))
    wanted = [c.rows.tolist() for c in index.search(queries, 10)]
    wrong = []

    def ask(start):
        for n in range(start, start + 40):
            [candidates] = index.search(queries[n % 16][None], 10)
            names = [entry.id for entry in index.entries(candidates.rows)]
            if set(candidates.rows.tolist()) != set(wanted[n % 16]) or names != [
                f"{row:04d}.png" for row in candidates.rows
            ]:
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
