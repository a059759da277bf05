import sys
import threading

import numpy as np
import pytest

from index_builder.search.faiss_flat import (
    BLAS_BATCH,
    CpuFlatSearch,
    ShardedSearch,
    check_distributions,
    load_faiss,
    open_flat_search,
)
from model.errors import DependencyError


def rows(n, d, seed=0):
    raw = np.random.default_rng(seed).standard_normal((n, d))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def test_two_distributions_of_faiss_are_refused_with_the_cure():
    check_distributions([])
    check_distributions(["faiss-cpu"])
    with pytest.raises(DependencyError, match="pip uninstall -y faiss-cpu faiss-gpu"):
        check_distributions(["faiss-cpu", "faiss-gpu"])


@pytest.mark.parametrize("batch", [1, BLAS_BATCH - 1, BLAS_BATCH, 40])
def test_search_on_a_memory_map_is_brute_force(tmp_path, batch):
    vectors, queries = rows(300, 24), rows(batch, 24, 1)
    np.save(tmp_path / "v.npy", vectors)
    search = CpuFlatSearch(np.load(tmp_path / "v.npy", mmap_mode="r"))
    scores, found = search.search(queries, 150)
    wanted = np.sort(queries.astype(np.float64) @ vectors.astype(np.float64).T, axis=1)[:, ::-1]
    assert np.allclose(scores, wanted[:, :150], atol=1e-6)
    assert all(len(set(one)) == 150 for one in found.tolist())


@pytest.mark.parametrize("sizes", [[5, 40, 55], [1, 99], [100]])
@pytest.mark.parametrize("m", [1, 7, 60, 100])
def test_shards_find_what_one_search_finds(sizes, m):
    vectors, queries = rows(100, 16), rows(9, 16, 1)
    parts = np.split(vectors, np.cumsum(sizes)[:-1])
    sharded = ShardedSearch([CpuFlatSearch(part) for part in parts], sizes)
    scores, found = sharded.search(queries, m)
    wanted_scores, wanted = CpuFlatSearch(vectors).search(queries, m)
    assert np.array_equal(found, wanted)
    assert np.allclose(scores, wanted_scores, atol=1e-6)
    sharded.close()


def test_equal_scores_in_shards_rank_by_row():
    same = np.repeat(rows(1, 8), 6, axis=0)
    sharded = ShardedSearch([CpuFlatSearch(same[:2]), CpuFlatSearch(same[2:])], [2, 4])
    _, found = sharded.search(same[:1], 6)
    assert sorted(found[0].tolist()) == list(range(6))
    sharded.close()


def test_single_queries_scan_and_batches_multiply_and_no_search_changes_that():
    faiss = load_faiss()
    search = open_flat_search(rows(50, 96))
    threshold = faiss.cvar.distance_compute_blas_threshold
    assert threshold > 96
    assert threshold % BLAS_BATCH == 0
    seen = set()

    def ask():
        for batch in (1, 30):
            search.search(rows(batch, 96, batch), 10)
            seen.add(faiss.cvar.distance_compute_blas_threshold)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {threshold}
    assert search.max_depth in {sys.maxsize, 2048}
